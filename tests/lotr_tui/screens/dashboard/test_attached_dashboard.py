"""Dashboard of a run that another process trains: chart, samples, log, panes and problems."""

from contextlib import asynccontextmanager

import pytest

from engine.control import ControlCommand
from engine.errors import RunError
from engine.events import Checkpointed, CommandApplied, Diagnosed, Evaluated, Resume, Warned
from lotr_tui.app_state import TrainingChanged
from lotr_tui.screens.dashboard.panes import LogPane, SampleTimeline, TrainingChart
from lotr_tui.screens.dashboard.screen import DashboardScreen
from tests.support.app import finished, make_decoder, training_events
from tests.support.pilot import lines_of, notices, text_of, until
from tests.support.runs import append_events, view_of


@asynccontextmanager
async def attach(make_host, view, send_command=lambda command: None, size=(160, 45)):
    app = make_host()
    screen = DashboardScreen(view, send_command, attached=True)
    async with app.run_test(size=size) as pilot:
        app.push_screen(screen)
        await until(pilot, lambda: screen.query("#chart") and screen.query_one("#chart").size.height > 0)
        yield app, pilot, screen


def status_text(app):
    return text_of(app.screen.query_one("#status"))


def log_text(app):
    return "\n".join(line.rstrip() for line in lines_of(app.screen.query_one(LogPane)).splitlines())


async def test_a_command_is_pending_until_applied_and_a_refused_one_is_reported(make_host):
    commands, refusals = [], []

    def send(command):
        if refusals:
            raise RunError(refusals.pop())
        commands.append(command)

    view = view_of(training_events())
    async with attach(make_host, view, send, size=(80, 24)) as (app, pilot, screen):
        await pilot.press("space")
        assert "pausing …" in status_text(app)
        await pilot.press("space")
        assert "resuming …" in status_text(app)
        assert commands == [ControlCommand("pause"), ControlCommand("resume")]
        for command in commands:
            view.apply(CommandApplied(1, 1.0, command.kind, ""))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "following" in status_text(app))
        refusals.append("only its owner can control [this] run")
        await pilot.press("space")
        assert notices(app) == "only its owner can control [this] run"
        del commands[:]
        view.apply(finished(make_decoder()))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "finished" in status_text(app))
        await pilot.press("space", "k", "d", "h", "ctrl+c")
        assert app.screen is screen
        assert not commands


async def test_the_cursor_moves_over_samples_and_steps_and_new_ones_leave_it(make_host):
    view = view_of(training_events(10))
    async with attach(make_host, view) as (_app, pilot, screen):
        samples, chart = screen.query_one(SampleTimeline), screen.query_one(TrainingChart)

        def legend():
            return chart.render_line(0).text

        assert "latest" in text_of(samples)
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert "a friend of mine 8" in text_of(samples)
        assert "epoch 8.0" in text_of(samples).splitlines()[0]
        assert f"valid {view.evaluations[8].valid_perplexity:.1f}" in legend()
        for event in training_events(12)[-12:]:
            view.apply(event)
        screen.show_view(view)
        assert "a friend of mine 8" in text_of(samples)
        assert "epoch 8.00" in legend()
        await pilot.press("end", "left")
        assert "a friend of mine 11" in text_of(samples)
        assert "epoch 11.8" in legend()
        await pilot.click(chart, offset=(7 + (chart.size.width - 6) // 2, 9))
        assert chart.cursor == pytest.approx(5, abs=1.1)


async def test_the_log_follows_its_end_until_it_is_scrolled(make_host):
    view = view_of([*training_events(30), Warned("the disk is full " * 10), CommandApplied(303, 30.0, "lr", "0.5")])
    async with attach(make_host, view, size=(160, 30)) as (app, pilot, screen):
        await until(pilot, lambda: "! the disk is full" in log_text(app))
        await until(pilot, lambda: "learning rate × 0.5" in log_text(app).splitlines()[-1])
        log = log_text(app)
        await pilot.press("pageup")
        scrolled_log = log_text(app)
        view.apply(Warned("and more"))
        screen.show_view(view)
        await pilot.pause()
        assert log_text(app) == scrolled_log != log


# Problems


BEST, WORSE = Evaluated(43, 4.0, 60.0, True, 9.0), Evaluated(43, 4.0, 160.0, False, 9.0)
LEARNING = ["rising_validation", "loss_spike", "forgetting", "vanishing_gradients"]


@pytest.mark.parametrize(
    ("kind", "event", "is_outdated"),
    [
        *((kind, BEST, True) for kind in LEARNING), *((kind, WORSE, False) for kind in LEARNING),
        ("unigram_model", BEST, True), ("unigram_model", Evaluated(43, 4.0, 149.0, True, 9.0), False),
        ("disk_space", Checkpointed(43, "resume.safetensors"), True),
        ("disk_space", Checkpointed(43, "model.safetensors"), False), ("disk_space", BEST, False),
        ("loss_spike", Resume(33), True), ("loss_spike", Resume(34), False),
    ],
)  # fmt: skip
def test_later_events_outdate_a_problem(kind, event, is_outdated):
    view = view_of([*training_events(3), Diagnosed(33, 3.0, kind, "a problem", "a remedy"), event])
    assert (view.current_diagnoses == []) == is_outdated


async def test_a_followed_run_is_shown_while_this_process_trains_another_one(make_host, tmp_path):
    path = tmp_path / "followed"
    path.mkdir()
    append_events(path, training_events(3, models=False))
    app = make_host()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = DashboardScreen.following(path)
        app.push_screen(screen)
        await until(pilot, lambda: screen.query("#status") and "followed" in status_text(app))
        await until(pilot, lambda: len(screen.view.samples) == 4)
        screen.post_message(TrainingChanged(view_of(training_events(10)), training_events(10)))
        await pilot.pause()
        assert len(screen.view.samples) == 4
        assert "followed" in status_text(app)
