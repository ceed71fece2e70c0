"""Keys of the list of runs, and of the dashboard: samples, chart, log and control commands."""

import json
from pathlib import Path

from textual.widgets import Input, OptionList

from engine.events import Checkpointed, Diagnosed, Evaluated, LinesScored, Step, event_to_dict
from engine.runs.directory import METRICS_FILE, MODEL_FILE
from lotr_tui.monitor.run_list import RUN_COLUMNS
from lotr_tui.screens.runs.screen import CURVE_MARKS, RunsScreen
from tests.support import scenes
from tests.support.app import training_events
from tests.support.bindings import Row, Stage, closes, focused, keys, moves, of, opens, scroll_y
from tests.support.pilot import lines_of, screen_name, text_of, until

# The list of runs


def rows(app):
    """Return the rows of the list, which may be below a dialog."""
    screen = next(screen for screen in reversed(app.screen_stack) if isinstance(screen, RunsScreen))
    return [str(option.prompt) for option in screen.query_one("#rows", OptionList).options]


def sorted_by(app):
    words = text_of(app.screen.query_one("#columns")).split()
    return " ".join(word for word in words if word[:-1] in [column.name for column in RUN_COLUMNS])


def shows_differences(app):
    pane = app.screen.query_one("#differences")
    return bool(pane.region.area) and "hidden" in lines_of(app.screen.query_one("#settings"))


def suggested_folder(app):
    """Return the name of the folder that the export dialog suggests, or "" without the dialog."""
    return Path(app.screen.query_one(Input).value).name if screen_name(app) == "ExportDialog" else ""


def model(app):
    return app.screen.slot.session_model.name if screen_name(app) == "SessionScreen" else ""


async def runs(pilot):
    """Open the list of two runs and the bundled models, and select the run `first`."""
    app = pilot.app
    scenes.write_runs(app)
    events = [event for event in training_events(1) if isinstance(event, (Step, Evaluated))]
    lines = [json.dumps(event_to_dict(event)) for event in (*events, Checkpointed(0, MODEL_FILE))]
    (app.state.runs_dir / "first" / METRICS_FILE).write_text("\n".join([*lines, ""]))
    await scenes.session(pilot)
    await pilot.press("ctrl+o")
    await until(pilot, lambda: screen_name(app) == "RunsScreen" and len(rows(app)) == 5)
    await pilot.press(*["down"] * next(index for index, row in enumerate(rows(app)) if "first" in row))
    await until(pilot, lambda: "first" in rows(app)[app.screen.query_one("#rows", OptionList).highlighted])


RUNS = [
    Row("runs.mark", lambda app: sum(row[1] in CURVE_MARKS for row in rows(app)), moves(1)),
    Row("runs.compare", shows_differences, True, ("up",)),
    Row("runs.back", focused, "RobustOptionList", ("tab",)),
    Row("list.sort", sorted_by, "size↓", ("down",)),
    *keys("list", suggested_folder, export="first-csv"),
    *opens("list", rename="Dialog", delete="ConfirmDialog"),
    *opens("runs", watch=("DashboardScreen", "dashboard.close")),
    *keys("list", focused, filter="LineInput"),
    Row("list.back", focused, "RobustOptionList", ("f", "i", "r", "s", "t")),
    closes("list.back", "SessionScreen"),
]

# The dashboard


visible_range = of("TrainingChart", "x_range")


def cursor(app):
    """Return the epoch of the cursor, or the latest one."""
    return app.screen.query_one("TrainingChart").cursor or 12


def sample_epoch(app):
    word = text_of(app.screen.query_one("SampleTimeline")).split()[1]
    return 0 if word == "it" else float(word)  # "as it came", or an epoch


def of_view(name):
    return lambda app: getattr(app.state.training_view, name)


def commands(app):
    """Return the commands that were sent if all of them are reported as applied."""
    applied = [(event.kind, event.value) for event in app.state.training_view.applied_commands]
    return applied if applied == [(command.kind, command.value) for command in app.state.job.commands] else []


def sends(kind, value=""):
    return lambda before, after: after == [*before, (kind, value)]


async def train(pilot):
    app = pilot.app
    await until(pilot, lambda: app.state.training_view is not None and len(app.state.training_view.samples) == 13)
    await until(pilot, lambda: visible_range(app) == (0, 12) and sample_epoch(app) == 12)


async def log(pilot):
    await pilot.press("tab", "tab", "tab")
    await until(pilot, lambda: scroll_y("LogPane")(pilot.app) > 0)


async def show_samples(pilot):
    await pilot.press("tab")
    await train(pilot)
    lines = ("Gollum", ("It",)), ("Sam", ("Run!",))
    pilot.app.state.training_view.apply(LinesScored(0, 0.0, ((-1.0,), (-2.0,)), lines))
    pilot.app.screen.show_view(pilot.app.state.training_view)


async def diagnosis(pilot):
    await train(pilot)
    view = pilot.app.state.training_view
    view.apply(Diagnosed(123, 12.0, "loss_spike", "training perplexity jumped", "--set lr=0.001"))
    pilot.app.screen.show_view(view)


LOG = [
    *keys("dashboard", scroll_y("LogPane"), log_up=moves(-1), log_down=moves(1)),
    *keys("dashboard", scroll_y("LogPane"), log_page_up="decreases", log_page_down="increases"),
]
DASHBOARD = [
    *keys("dashboard", sample_epoch, previous_sample=moves(-1), next_sample=moves(1), first=0.0, latest=12.0),
    *keys("dashboard", cursor, cursor_left="decreases", cursor_right="increases"),
    Row("dashboard.zoom-in", visible_range, (6, 12), ("end",)),
    *keys("dashboard", visible_range, zoom_out=(0, 12)),
    Row("dashboard.show-all", visible_range, (0, 12), ("plus", "plus")),
    *keys("dashboard", of("PaneTabs", "pane"), pane="samples"),
    *keys("dashboard", of("ChangedWords", "line"), next_line=1, previous_line=0),
    *keys("dashboard", of("PaneTabs", "pane"), previous_pane="chart"),
    *opens("dashboard", runs="RunsScreen", play="SessionScreen"),
    *opens("dashboard", prompt=("Dialog", "dialog.cancel"), export="ExportDialog"),
    *opens("dashboard", stop="ConfirmDialog", close="QuitDialog"),
]
CONTROL_COMMANDS = [
    Row("dashboard.pause", commands, sends("pause")),
    Row("dashboard.halve-lr", commands, sends("lr", "0.5")),
    Row("dashboard.reset-lr", of_view("lr_scale"), 1.0),
    Row("dashboard.save", of_view("checkpoint_step"), 7),
    Row("dashboard.detach", commands, sends("detach")),
]
RUN_APPS = {
    "runs": [Stage(runs, RUNS, size=(100, 24))],  # all columns
    "selected run": [Stage(runs, [Row("list.open", model, "first")])],
}
TRAINING_APPS = {
    "dashboard": [
        Stage(diagnosis, keys("dashboard", of("#diagnosis", "display"), dismiss=False)),
        Stage(log, LOG, size=(80, 14)),
        Stage(show_samples, DASHBOARD),
    ],
    "control commands": [Stage(train, CONTROL_COMMANDS)],
}
