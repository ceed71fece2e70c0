"""Rows for the keys of the dashboard: samples, chart, log and control commands."""

from typing import Any

from textual.pilot import Pilot

from engine.events import Diagnosed
from lotr_tui.app import LotrApp
from lotr_tui.screens.dashboard.chart import TrainingChart
from lotr_tui.screens.dashboard.diagnosis_banner import DiagnosisBanner
from lotr_tui.screens.dashboard.log_pane import LogPane
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.widgets.pane_tabs import PaneTabs
from tests.support.bindings.expectations import Expect, becomes, decreases, increases, moves
from tests.support.bindings.observations import of, of_app, screen_name, scroll_y
from tests.support.bindings.rows import Row, Stage, cursor_rows
from tests.support.pilot import text_of, until

# Observations


def chart(app: LotrApp) -> TrainingChart:
    return app.screen.query_one(TrainingChart)


def visible_range(app: LotrApp) -> tuple[float, float]:
    """Return the epochs that the chart shows."""
    return chart(app).x_range


def sample_epoch(app: LotrApp) -> float:
    """Return the epoch of the sample that is shown."""
    return float(text_of(app.screen.query_one(SampleTimeline)).split()[1])


def of_view(name: str) -> Any:
    """Return a function that reads an attribute of the training view."""
    return lambda app: getattr(app.training_view, name)


def commands(app: Any) -> list[tuple[str, str]]:
    """Return the commands that were sent if all of them are reported as applied."""
    applied = [(event.kind, event.value) for event in app.training_view.applied_commands]
    return applied if applied == [(command.kind, command.value) for command in app.job.commands] else []


def sends(kind: str, value: str = "") -> Expect:
    """Return the expectation that exactly this command is sent."""
    return lambda before, after: bool(after == [*before, (kind, value)])


# Stages


async def train(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: app.training_view is not None and len(app.training_view.samples) == 13)
    await until(pilot, lambda: visible_range(app) == (0, 12) and sample_epoch(app) == 12)


async def log(pilot: Pilot[None]) -> None:
    """Show the log, which is longer than the screen."""
    await train(pilot)
    await pilot.press("f2", "f2", "f2")
    await until(pilot, lambda: scroll_y(LogPane)(pilot.app) > 0)  # type: ignore[arg-type]


async def diagnosis(pilot: Pilot[None]) -> None:
    """Show a problem of the training in the banner."""
    await train(pilot)
    app: Any = pilot.app
    app.training_view.apply(Diagnosed(123, 12.0, "idle_gpu", "the GPU was idle", "--set batch_size=40"))
    app.screen.show_view(app.training_view)


TRAINING: dict[str, Stage] = {
    "dashboard": Stage(
        train,
        [
            Row("dashboard.previous-sample", sample_epoch, moves(-1)),
            Row("dashboard.next-sample", sample_epoch, moves(1)),
            Row("dashboard.first", sample_epoch, becomes(0.0)),
            Row("dashboard.latest", sample_epoch, becomes(12.0)),
            Row("dashboard.cursor-left", of(TrainingChart, "cursor_step"), becomes(122)),
            Row("dashboard.cursor-right", of(TrainingChart, "cursor_step"), becomes(123)),
            Row("dashboard.zoom-in", visible_range, becomes((6, 12)), ("end",)),
            Row("dashboard.pan-left", visible_range, becomes((3, 9))),
            Row("dashboard.pan-right", visible_range, becomes((6, 12))),
            Row("dashboard.zoom-out", visible_range, becomes((0, 12))),
            Row("dashboard.show-all", visible_range, becomes((0, 12)), ("plus", "plus")),
            Row("dashboard.log-scale", lambda app: chart(app).axes.log_scale, becomes(False)),
            Row("dashboard.x-axis", lambda app: chart(app).axes.x_axis, becomes("step")),
            Row("dashboard.smoothing", lambda app: chart(app).smoothing, becomes(0.97)),
            Row("dashboard.pane", of(PaneTabs, "pane"), becomes("samples")),
            Row("dashboard.runs", screen_name, becomes("RunsScreen")),
            Row("dashboard.play", screen_name, becomes("SessionScreen")),
            Row("dashboard.prompt", screen_name, becomes("SamplePromptDialog")),
            Row("sample-prompt.cancel", screen_name, becomes("DashboardScreen"), ("e",)),
            Row("dashboard.interrupt", screen_name, becomes("ConfirmDialog")),
            Row("dashboard.close", screen_name, becomes("QuitDialog")),
            Row("dashboard.stop", screen_name, becomes("ConfirmDialog")),
            Row("confirm.no", screen_name, becomes("DashboardScreen"), ("s",)),
            Row("confirm.yes", of_app("is_training"), becomes(False), ("s",)),
        ],
        trains=True,
    ),
    "quitting with detach": Stage(
        train,
        [
            Row("quit.cancel", screen_name, becomes("DashboardScreen"), ("q",)),
            Row("quit.detach", commands, sends("detach"), ("q",)),
        ],
        trains=True,
    ),
    "quitting with stop": Stage(train, [Row("quit.stop", lambda app: app._exit, becomes(True), ("q",))], trains=True),
    "control commands": Stage(
        train,
        [
            Row("dashboard.pause", commands, sends("pause")),
            Row("dashboard.pause", of_view("paused"), becomes(False)),
            Row("dashboard.pause", commands, sends("pause")),
            Row("dashboard.halve-lr", commands, sends("lr", "0.5")),
            Row("dashboard.halve-lr", of_view("lr_scale"), becomes(0.25)),
            Row("dashboard.reset-lr", of_view("lr_scale"), becomes(1.0)),
            Row("dashboard.save", of_view("checkpoint_step"), becomes(7)),
            Row("dashboard.detach", commands, sends("detach")),
        ],
        trains=True,
    ),
    "problem of the training": Stage(
        diagnosis,
        [Row("dashboard.dismiss", lambda app: app.screen.query_one(DiagnosisBanner).display, becomes(False))],
        trains=True,
    ),
    "log of the training": Stage(
        log,
        [
            Row("dashboard.log-up", scroll_y(LogPane), moves(-1)),
            Row("dashboard.log-down", scroll_y(LogPane), moves(1)),
            *cursor_rows("dashboard", scroll_y(LogPane), {"log-page-up": decreases, "log-page-down": increases}),
        ],
        size=(80, 14),
        trains=True,
    ),
}
