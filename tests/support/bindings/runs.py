"""Rows for the keys of the list of runs."""

import json
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from engine.events import Checkpointed, Evaluated, Step, event_to_dict
from engine.runs.directory import METRICS_FILE, MODEL_FILE
from lotr_tui.app import LotrApp
from lotr_tui.monitor.run_list import RUN_COLUMNS
from lotr_tui.screens.runs.overlay_chart import BASELINE_MARK, CURVE_MARKS
from lotr_tui.screens.runs.screen import RunsScreen
from tests.support import scenes
from tests.support.app import training_events
from tests.support.bindings.expectations import becomes, decreases, increases, moves
from tests.support.bindings.observations import focused, screen_name
from tests.support.bindings.rows import Row, Stage
from tests.support.files import write_run
from tests.support.pilot import text_of, until

# Observations


def rows(app: LotrApp) -> list[str]:
    """Return the rows of the list, which may be below a dialog."""
    screen = next(screen for screen in reversed(app.screen_stack) if isinstance(screen, RunsScreen))
    return [str(option.prompt) for option in screen.query_one("#runs", OptionList).options]


def listed(app: LotrApp) -> int:
    return len(rows(app))


def marks(app: LotrApp) -> int:
    """Return the number of marked rows."""
    return sum(row[1] in CURVE_MARKS for row in rows(app))


def baseline(app: LotrApp) -> int:
    """Return the number of rows with the mark of the baseline."""
    return sum(row[1] == BASELINE_MARK for row in rows(app))


def first_line(app: LotrApp) -> int:
    """Return the number of lines above the visible part of the comparison."""
    return round(app.screen.query_one("#differences").scroll_y)


def sorted_by(app: LotrApp) -> str:
    """Return the name of the column with an arrow."""
    words = text_of(app.screen.query_one("#columns", Static)).split()
    return " ".join(word for word in words if word[:-1] in [column.name for column in RUN_COLUMNS])


def differences(app: LotrApp) -> str:
    """Return the differing settings if they are visible."""
    return text_of(app.screen.query_one("#settings")) if app.screen.query_one("#differences").region.area else ""


def suggested_folder(app: LotrApp) -> str:
    """Return the name of the folder that the export dialog suggests, or "" without the dialog."""
    return Path(app.screen.query_one(Input).value).name if screen_name(app) == "ExportDialog" else ""


def model(app: Any) -> str:
    """Return the name of the session's model."""
    return app.screen.session_model.name if screen_name(app) == "SessionScreen" else ""


def add_run() -> None:
    write_run(Path("runs/new"))


def is_reversed(before: list[str], after: list[str]) -> bool:
    return bool(before != after and after == before[::-1])


# Stages


async def runs(pilot: Pilot[None]) -> None:
    """Open the list of two runs and the bundled models, and select the run `first`."""
    app: Any = pilot.app
    scenes.write_runs(app)
    rows = [json.dumps(event_to_dict(event)) for event in training_events(1) if isinstance(event, (Step, Evaluated))]
    rows.append(json.dumps(event_to_dict(Checkpointed(0, MODEL_FILE))))
    (app.runs_dir / "first" / METRICS_FILE).write_text("\n".join([*rows, ""]))
    await scenes.session(pilot)
    await pilot.press("ctrl+o")
    await until(pilot, lambda: screen_name(app) == "RunsScreen" and listed(app) == 4)
    await pilot.press("down", "down")
    await until(pilot, lambda: app.screen._selected_run().name == "first")


RUNS: dict[str, Stage] = {
    "runs": Stage(
        runs,
        [
            Row("runs.mark", marks, moves(1)),
            Row("runs.differences", lambda app: "hidden" in differences(app), becomes(True), ("up", "space")),
            Row("runs.scroll-down", first_line, increases),
            Row("runs.scroll-up", first_line, decreases),
            Row("runs.baseline", baseline, moves(1)),
            Row("runs.reverse", rows, is_reversed, ("down",)),
            Row("runs.sort", sorted_by, becomes("size↓")),
            Row("runs.csv", suggested_folder, becomes("first-csv")),
            Row("runs.tensorboard", suggested_folder, becomes("first-tensorboard")),
            Row("runs.rename", screen_name, becomes("RenameDialog")),
            Row("runs.delete", screen_name, becomes("ConfirmDialog")),
            Row("runs.refresh", listed, moves(1), prepare=add_run),
            Row("runs.filter", focused, becomes("LineInput")),
            Row("runs.back", focused, becomes("RobustOptionList"), ("f", "i", "r", "s", "t")),
            Row("confirm.yes", listed, moves(-1), ("x",)),
            Row("runs.back", screen_name, becomes("SessionScreen")),
        ],
        size=(100, 24),  # all columns
    ),
    "selected run": Stage(runs, [Row("runs.select", model, becomes("first"))]),
}
