"""Keys of the dashboard: the places one looks at, the curve, the log, and what is asked of the training."""

from typing import Any

from textual.pilot import Pilot

from lotr_tui.app import LotrApp
from lotr_tui.screens.dashboard.chart import TrainingChart
from lotr_tui.screens.dashboard.log_pane import LogPane
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.widgets.pane_tabs import PaneTabs
from tests.lotr_tui.screens.session.test_session_screen import text_of, until
from tests.support.bindings.rows import (
    Row,
    Stage,
    Wanted,
    becomes,
    less,
    more,
    moves,
    of,
    of_app,
    screen_name,
    scrolled,
    walk_along,
)

# What is looked at


def curve(app: LotrApp) -> TrainingChart:
    return app.screen.query_one(TrainingChart)


def seen(app: LotrApp) -> tuple[float, float]:
    """The part of the curve."""
    return curve(app).part


def sample_epoch(app: LotrApp) -> float:
    """The epoch of the sample that is read."""
    return float(text_of(app.screen.query_one(SampleTimeline)).split()[1])


def training(name: str) -> Any:
    """What is known of the training, which tells when it did what was asked."""
    return lambda app: getattr(app.training, name)


def commands(app: Any) -> list[tuple[str, str]]:
    """What the training was asked and has told that it did."""
    told = [(event.what, event.value) for event in app.training.steered]
    return told if told == [(command.what, command.value) for command in app._job.commands] else []


def asked(what: str, value: str = "") -> Wanted:
    """That it was asked this, and nothing else."""
    return lambda before, after: bool(after == [*before, (what, value)])


# The stages


async def learning(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: app.training is not None and len(app.training.samples) == 13)
    await until(pilot, lambda: seen(app) == (0, 12) and sample_epoch(app) == 12)


async def log(pilot: Pilot[None]) -> None:
    """The log in sight, and longer than that."""
    await learning(pilot)
    await pilot.press("f2", "f2", "f2")
    await until(pilot, lambda: scrolled(LogPane)(pilot.app) > 0)  # type: ignore[arg-type]


TRAINING: dict[str, Stage] = {
    "dashboard": Stage(
        learning,
        [
            Row("train.before", sample_epoch, moves(-1)),
            Row("train.next", sample_epoch, moves(1)),
            Row("train.first", sample_epoch, becomes(0.0)),
            Row("train.latest", sample_epoch, becomes(12.0)),
            Row("train.back", of(TrainingChart, "_place"), becomes(122)),
            Row("train.on", of(TrainingChart, "_place"), becomes(123)),
            Row("train.closer", seen, becomes((6, 12)), ("end",)),
            Row("train.left", seen, becomes((3, 9))),
            Row("train.right", seen, becomes((6, 12))),
            Row("train.wider", seen, becomes((0, 12))),
            Row("train.all", seen, becomes((0, 12)), ("plus", "plus")),
            Row("train.log", lambda app: curve(app).axes.logarithmic, becomes(False)),
            Row("train.along", lambda app: curve(app).axes.along, becomes("update")),
            Row("train.smooth", lambda app: curve(app)._smoothed.share, becomes(0.97)),
            Row("train.pane", of(PaneTabs, "pane"), becomes("samples")),
            Row("train.runs", screen_name, becomes("RunsScreen")),
            Row("train.play", screen_name, becomes("PlayScreen")),
            Row("train.prompt", screen_name, becomes("AskPrompt")),
            Row("sample-prompt.cancel", screen_name, becomes("TrainScreen"), ("e",)),
            Row("train.interrupt", screen_name, becomes("Confirm")),
            Row("train.close", screen_name, becomes("Confirm")),
            Row("train.stop", screen_name, becomes("Confirm")),
            Row("confirm.no", screen_name, becomes("TrainScreen"), ("s",)),
            Row("confirm.yes", of_app("is_training"), becomes(False), ("s",)),
        ],
        trains=True,
    ),
    "steering": Stage(
        learning,
        [
            Row("train.pause", commands, asked("pause")),
            Row("train.pause", training("paused"), becomes(False)),
            Row("train.pause", commands, asked("pause")),
            Row("train.lower", commands, asked("lr", "0.5")),
            Row("train.lower", training("lr_share"), becomes(0.25)),
            Row("train.full", training("lr_share"), becomes(1.0)),
            Row("train.save", training("saved_step"), becomes(7)),
            Row("train.detach", commands, asked("detach")),
        ],
        trains=True,
    ),
    "log of the training": Stage(
        log,
        [
            Row("train.up", scrolled(LogPane), moves(-1)),
            Row("train.down", scrolled(LogPane), moves(1)),
            *walk_along("train", scrolled(LogPane), {"page-up": less, "page-down": more}),
        ],
        size=(80, 14),
        trains=True,
    ),
}
