"""Keys of the runs: what is listed, marked and compared, and what is done with a run."""

import json
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from engine.events import Evaluated, Step, to_record
from engine.runs.store import METRICS
from lotr_tui.app import LotrApp
from lotr_tui.monitor.run_list import COLUMNS
from lotr_tui.screens.runs.overlay_chart import MARKS
from lotr_tui.screens.runs.screen import RunsScreen
from tests.conftest import write_run
from tests.lotr_tui.conftest import training_events
from tests.lotr_tui.screens.session.test_session_screen import text_of, until
from tests.support import scenes
from tests.support.bindings.rows import Row, Stage, becomes, focused, moves, screen_name

# What is looked at


def rows(app: LotrApp) -> list[str]:
    """The list as it is read, under a question too."""
    screen = next(screen for screen in reversed(app.screen_stack) if isinstance(screen, RunsScreen))
    return [str(option.prompt) for option in screen.query_one("#runs", OptionList).options]


def listed(app: LotrApp) -> int:
    return len(rows(app))


def marks(app: LotrApp) -> int:
    """How many rows have a mark."""
    return sum(row[1] in MARKS for row in rows(app))


def sorted_by(app: LotrApp) -> str:
    """The column that has an arrow."""
    words = text_of(app.screen.query_one("#columns", Static)).split()
    return " ".join(word for word in words if word[:-1] in [column.name for column in COLUMNS])


def said(app: LotrApp) -> str:
    return text_of(app.screen.query_one("#said", Static))


def differences(app: LotrApp) -> str:
    """The settings that differ, where they are seen."""
    return text_of(app.screen.query_one("#settings")) if app.screen.query_one("#differences").region.area else ""


def written(app: LotrApp) -> list[str]:
    """Files of an exported run."""
    return sorted(path.name for path in Path.cwd().glob("first-csv/*"))


def model(app: Any) -> str:
    """What is played with."""
    return app.screen._player.name if screen_name(app) == "PlayScreen" else ""


def one_run_more() -> None:
    write_run(Path("runs/new"))


def turned(before: list[str], after: list[str]) -> bool:
    return bool(before != after and after == before[::-1])


def exported(before: str, after: str) -> bool:
    """TensorBoard need not be there, which is then said."""
    return before != after and (after.endswith("first-tensorboard") or "TensorBoard is not installed" in after)


# The stages


async def runs(pilot: Pilot[None]) -> None:
    """Two runs and the bundled model, opened from the session; `first` is chosen."""
    app: Any = pilot.app
    scenes.runs(app)
    rows = [json.dumps(to_record(event)) for event in training_events(1) if isinstance(event, (Step, Evaluated))]
    (app.runs_dir / "first" / METRICS).write_text("\n".join([*rows, ""]))
    await scenes.session(pilot)
    await pilot.press("ctrl+o")
    await until(pilot, lambda: screen_name(app) == "RunsScreen" and listed(app) == 3)
    await pilot.press("down")
    await until(pilot, lambda: app.screen._chosen().name == "first")


RUNS: dict[str, Stage] = {
    "runs": Stage(
        runs,
        [
            Row("runs.mark", marks, moves(1)),
            Row("runs.differences", lambda app: "hidden" in differences(app), becomes(True), ("up", "space")),
            Row("runs.reverse", rows, turned, ("down",)),
            Row("runs.sort", sorted_by, becomes("size↓")),
            Row("runs.csv", written, becomes(["evaluated.csv", "step.csv"])),
            Row("runs.tensorboard", said, exported),
            Row("runs.rename", screen_name, becomes("AskName")),
            Row("runs.delete", screen_name, becomes("Confirm")),
            Row("runs.refresh", listed, moves(1), prepare=one_run_more),
            Row("runs.filter", focused, becomes("LineBox")),
            Row("runs.back", focused, becomes("Rows"), ("f", "i", "r", "s", "t")),
            Row("confirm.yes", listed, moves(-1), ("x",)),
            Row("runs.back", screen_name, becomes("PlayScreen")),
        ],
        size=(100, 24),  # all columns
    ),
    "run to play": Stage(runs, [Row("runs.play", model, becomes("first"))]),
}
