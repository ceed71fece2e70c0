"""Keys and panes of the dashboard, mostly for a run that another process trains."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.control import ControlCommand
from engine.errors import RunError
from engine.events import CommandApplied, Warned
from lotr_tui.app import LotrApp
from lotr_tui.messages import TrainingChanged
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.chart import TrainingChart
from lotr_tui.screens.dashboard.log_pane import LogPane
from lotr_tui.screens.dashboard.prompt_dialog import SamplePromptDialog
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dashboard.tiles import MetricTiles
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from tests.support.app import FakeJob, finished, make_decoder, training_events
from tests.support.metrics import view_of
from tests.support.pilot import MakeApp, lines_of, notices, text_of, until


@asynccontextmanager
async def attach(
    make_app: MakeApp,
    view: TrainingView | None = None,
    send_command: Callable[[ControlCommand], None] = lambda command: None,
    size: tuple[int, int] = (160, 45),
) -> AsyncIterator[tuple[LotrApp, Pilot[None], DashboardScreen]]:
    """Show the dashboard of a run that another process trains."""
    app = make_app()
    screen = DashboardScreen(view or view_of(training_events()), send_command, attached=True)
    async with app.run_test(size=size) as pilot:
        app.push_screen(screen)
        await until(pilot, lambda: screen.query("#chart") and screen.query_one("#chart").size.height > 0)
        yield app, pilot, screen


def status_text(app: LotrApp) -> str:
    return text_of(app.screen.query_one("#status"))


def legend_text(app: LotrApp) -> str:
    return app.screen.query_one(TrainingChart).render_line(0).text


def log_text(app: LotrApp) -> str:
    return "\n".join(line.rstrip() for line in lines_of(app.screen.query_one(LogPane)).splitlines())


# Commands


async def test_command_is_shown_as_pending_until_it_is_applied(make_app: MakeApp) -> None:
    commands: list[ControlCommand] = []
    view = view_of(training_events())
    async with attach(make_app, view, commands.append) as (app, pilot, screen):
        await pilot.press("space")
        assert "pausing …" in status_text(app)
        await pilot.press("space")
        assert "resuming …" in status_text(app)
        assert commands == [ControlCommand("pause"), ControlCommand("resume")]
        for command in commands:
            view.apply(CommandApplied(1, 1.0, command.kind, ""))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "following" in status_text(app))


async def test_prompt_dialog_rejects_an_empty_prompt_and_sends_a_valid_one(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(8)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "tiny-test" in status_text(app))
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, SamplePromptDialog))
        field = app.screen.query_one(Input)
        assert field.value == "bilbo baggins is"
        field.value = "  "
        await pilot.press("enter")
        await pilot.pause()
        assert "a sample prompt must be one line" in text_of(app.screen.query_one("#problem"))
        field.value = "the [lamp]"
        await pilot.press("enter")
        await until(pilot, lambda: bool(job.commands))
        assert job.commands == [ControlCommand("prompt", "the [lamp]")]
        await pilot.press("f2", "f2", "f2")
        await until(pilot, lambda: "sample prompt: “the [lamp]”" in log_text(app))


async def test_refused_command_is_reported_and_not_pending(make_app: MakeApp) -> None:
    def refuse(command: ControlCommand) -> None:
        raise RunError("only its owner can control [this] run")

    async with attach(make_app, send_command=refuse, size=(80, 24)) as (app, pilot, _):
        await pilot.press("space")
        assert notices(app) == "only its owner can control [this] run"
        assert "following" in status_text(app)


async def test_attached_dashboard_closes_without_a_question(make_app: MakeApp) -> None:
    async with attach(make_app, size=(80, 24)) as (app, pilot, _):
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("n")
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, (DashboardScreen, ConfirmDialog)))


async def test_no_command_is_sent_after_the_end(make_app: MakeApp) -> None:
    commands: list[ControlCommand] = []
    async with attach(make_app, view_of([*training_events(), finished(make_decoder())]), commands.append) as (
        app,
        pilot,
        _,
    ):
        await pilot.press("space", "c", "d", "l", "s")
        assert isinstance(app.screen, DashboardScreen)
        assert not commands
        assert "finished" in status_text(app)


# Cursor and samples


async def test_arrows_move_through_the_samples_with_the_cursor(make_app: MakeApp) -> None:
    view = view_of(training_events())
    async with attach(make_app, view) as (app, pilot, screen):
        samples = screen.query_one(SampleTimeline)
        assert "latest" in text_of(samples)
        await pilot.press("left", "left")
        assert "a friend of mine 10" in text_of(samples)
        assert "epoch 10.0" in text_of(samples).splitlines()[0]
        assert "epoch 10.00" in legend_text(app)
        assert f"valid {view.evaluations[10].valid_perplexity:.1f}" in legend_text(app)
        await pilot.press("right", "right")
        assert "latest" in text_of(samples)
        assert "● best" in legend_text(app)
        await pilot.press("home")
        assert "the of a the" in text_of(samples)
        await pilot.press("left")
        assert "1 of 13" in text_of(samples)
        await pilot.press("end")
        assert "latest" in text_of(samples)


async def test_cursor_moves_over_the_steps_with_the_samples(make_app: MakeApp) -> None:
    view = view_of(training_events())
    async with attach(make_app, view) as (app, pilot, screen):
        await pilot.press("comma")
        assert "epoch 11.75" in legend_text(app)
        assert "raw" in legend_text(app)
        assert "a friend of mine 11" in text_of(screen.query_one(SampleTimeline))
        await pilot.press("full_stop", "full_stop")
        assert "● best" in legend_text(app)
        chart = screen.query_one(TrainingChart)
        await pilot.click(chart, offset=(7 + (chart.size.width - 6) // 2, 9))
        assert chart.cursor_step is not None
        epochs = view.steps.column("epoch")[view.steps.column("step") == chart.cursor_step]
        assert epochs == pytest.approx(6, abs=0.26)


async def test_new_samples_do_not_move_the_cursor(make_app: MakeApp) -> None:
    view = view_of(training_events(8))
    async with attach(make_app, view) as (app, pilot, screen):
        await pilot.press("left")
        for event in training_events(12)[-18:]:
            view.apply(event)
        screen.show_view(view)
        assert "a friend of mine 7" in text_of(screen.query_one(SampleTimeline))
        assert "epoch 7.00" in legend_text(app)


async def test_chart_keys(make_app: MakeApp) -> None:
    async with attach(make_app, view_of([*training_events(), finished(make_decoder())])) as (_app, pilot, screen):
        chart = screen.query_one(TrainingChart)
        bottom = chart.size.height - 1

        def x_axis() -> str:
            return chart.render_line(bottom).text

        assert chart.x_range == (0, 12)
        await pilot.press("plus", "plus")
        assert chart.x_range == (9, 12)
        await pilot.press("left_square_bracket")
        assert chart.x_range == (7.5, 10.5)
        await pilot.press("right_square_bracket", "minus")
        assert chart.x_range == (6, 12)
        await pilot.press("home")  # the range follows the cursor
        assert chart.x_range[0] == 0
        await pilot.press("0")
        assert chart.x_range == (0, 12)
        assert "epochs" in x_axis()
        await pilot.press("x")
        assert "steps" in x_axis()
        await pilot.press("x")
        assert "time" in x_axis()
        assert "0:10" in x_axis()
        log_scale_lines = [chart.render_line(row).text for row in range(bottom)]
        await pilot.press("x", "y")
        assert "epochs" in x_axis()
        assert [chart.render_line(row).text for row in range(bottom)] != log_scale_lines
        smoothing = []
        for _ in range(3):
            smoothing.append(chart.smoothing)
            await pilot.press("m")
        assert smoothing == [0.85, 0.97, 0.995]


# Panes


async def test_narrow_terminal_shows_one_pane_at_a_time(make_app: MakeApp) -> None:
    async with attach(make_app, size=(60, 20)) as (app, pilot, _):
        panes = (TrainingChart, SampleTimeline, MetricTiles, LogPane)
        for kind in (*panes, TrainingChart):
            assert [pane for pane in panes if app.screen.query_one(pane).region.area] == [kind]
            await pilot.press("f2")
            await pilot.pause()
        await pilot.resize_terminal(160, 45)
        await until(pilot, lambda: all(app.screen.query_one(pane).region.area for pane in panes))


async def test_machine_is_monitored_only_while_this_process_trains(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(8))
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "tiny-test" in status_text(app))
        tiles = app.screen.query_one(MetricTiles)
        assert tiles.is_monitoring
        await pilot.press("d")
        await until(pilot, lambda: "detached" in status_text(app))
        assert not tiles.is_monitoring
        await until(pilot, lambda: "machine" not in {thread.name for thread in threading.enumerate()})


async def test_machine_of_another_process_is_not_monitored(make_app: MakeApp) -> None:
    async with attach(make_app) as (_app, _pilot, screen):
        tiles = screen.query_one(MetricTiles).render_line(0).text
        assert "tokens/s" in tiles
        assert "memory" not in tiles


async def test_log_follows_the_end_until_the_user_scrolls_up(make_app: MakeApp) -> None:
    events = [*training_events(30), Warned("the disk is full " * 10), CommandApplied(303, 30.0, "lr", "0.5")]
    view = view_of(events)
    async with attach(make_app, view) as (app, pilot, screen):
        log = log_text(app)
        assert "epoch 30.0: valid 70.0, new best" in log
        assert "! the disk is full" in log
        assert "› learning rate × 0.5" in log
        await pilot.resize_terminal(160, 30)
        await until(pilot, lambda: "learning rate × 0.5" in log_text(app).splitlines()[-1])
        log = log_text(app)
        await pilot.press("pageup")
        scrolled_log = log_text(app)
        view.apply(Warned("and more"))
        screen.show_view(view)
        await pilot.pause()
        assert log_text(app) == scrolled_log != log
