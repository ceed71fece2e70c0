"""Dashboard of a training in this process, or of a run that another process trains."""

import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from textual.widgets import Input

from engine.control import ControlCommand
from engine.errors import RunError
from engine.events import Checkpointed, CommandApplied, Diagnosed, Evaluated, Resume, Sampled, Warned
from lotr_tui.app import LotrApp
from lotr_tui.app_state import TrainingChanged
from lotr_tui.screens.dashboard.panes import ChangedWords, LogPane, MetricTiles, SampleTimeline, TrainingChart
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dialogs.dialog import ConfirmDialog, Dialog
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.widgets.keys import KeyFooter
from tests.support.app import FakeJob, adapter_events, finished, make_decoder, training_events
from tests.support.lists import answer, open_dialog, refuse
from tests.support.pilot import dashboard_text, lines_of, notices, text_of, until
from tests.support.runs import append_events, view_of

CONTROL_ACTIONS = {
    "toggle_pause", "stop_training", "send_command('checkpoint')", "send_command('detach')", "change_prompt",
    "halve_lr",
}  # fmt: skip


def status(app):
    return text_of(app.screen.query_one("#status"))


@asynccontextmanager
async def attach(make_host, view, send_command=lambda command: None, size=(160, 45)):
    app = make_host()
    screen = DashboardScreen(view, send_command, attached=True)
    async with app.run_test(size=size) as pilot:
        app.push_screen(screen)
        await until(pilot, lambda: screen.query("#chart") and screen.query_one("#chart").size.height > 0)
        yield app, pilot, screen


def log_text(app):
    return "\n".join(line.rstrip() for line in lines_of(app.screen.query_one(LogPane)).splitlines())


async def test_figures_follow_the_training_and_p_opens_a_session_with_its_model(opened):
    job = FakeJob([*training_events(), finished(make_decoder(5))]).release(1)
    async with opened((160, 45), job=job) as (pilot, app):

        def visible_actions():
            return {hint.binding.action for side in app.screen.query_one(KeyFooter).visible_keys() for hint in side}

        await until(pilot, lambda: "computing the unigram and 5-gram baselines" in dashboard_text(app))
        await pilot.press("p")
        await pilot.pause()
        assert isinstance(app.screen, DashboardScreen)
        assert notices(app) == "No model yet. The first evaluation saves one."
        job.release(len(training_events()) - 1)
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        text = dashboard_text(app)
        for figure in ("tiny-test", "752,239 parameters", "Kneser-Ney 90.8", "unigram 150.9", "valid 72.5", "9,800"):
            assert figure in text
        sample = text_of(app.screen.query_one(SampleTimeline))
        assert "epoch 12.0 · valid 72.5 · best" in sample
        assert "bilbo baggins is a friend of mine 12" in sample
        await until(pilot, lambda: visible_actions() >= CONTROL_ACTIONS)
        job.release(1)
        await until(pilot, lambda: "finished" in dashboard_text(app))
        assert "test 74.1" in dashboard_text(app)
        await until(pilot, lambda: not CONTROL_ACTIONS & visible_actions())
        await pilot.press("ctrl+c")
        await pilot.pause()
        assert isinstance(app.screen, DashboardScreen)
        await pilot.press("p")
        await pilot.pause()
        assert isinstance(app.screen, SessionScreen)
        assert "valid 72.5" in status(app)


async def test_figures_of_a_model_that_others_have_pre_trained_are_bits_per_character(opened):
    preparing, started, *later = training_events()
    started = replace(started, base="smollm2", valid_characters=4 * started.valid_tokens)
    job = FakeJob([preparing, started, *later, finished(make_decoder(5))]).release()
    async with opened((160, 45), job=job) as (pilot, app):
        await until(pilot, lambda: "finished" in dashboard_text(app))
        text = dashboard_text(app)
        assert "tiny-test · pre-trained on other text" in status(app)
        for figure in ("bits/character, pre-trained on other text", "valid 1.545", "test 1.553", "Kneser-Ney 1.626"):
            assert figure in text
        for perplexity in ("72.5", "74.1", "90.8", "152.5", "perplexity"):
            assert perplexity not in text
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        assert "valid 1.545 bits/character, pre-trained on other text" in status(app)


async def test_a_failure_is_shown_as_text(opened):
    job = FakeJob(training_events()[:9], failure=RuntimeError("no room [left]")).release()
    async with opened((160, 45), job=job) as (pilot, app):
        await until(pilot, lambda: "failed: RuntimeError: no room [left]" in dashboard_text(app))
        assert not app.state.is_training


async def test_the_machine_is_not_read_while_another_screen_covers_the_dashboard(opened):
    job = FakeJob(training_events()).release(8)
    async with opened((160, 45), job=job) as (pilot, app):
        await until(pilot, lambda: "tiny-test" in status(app))
        dashboard, tiles = app.screen, app.screen.query_one(MetricTiles)
        await open_dialog(pilot, "ctrl+o", RunsScreen)
        evaluations = len(dashboard.view.evaluations)
        job.release(40)
        await until(pilot, lambda: len(dashboard.view.evaluations) > evaluations)
        dashboard.show_view(dashboard.view)
        assert not tiles.is_monitoring
        await pilot.press("escape")
        await until(pilot, lambda: tiles.is_monitoring)


async def test_control_keys_send_their_commands_and_a_detached_training_does_not_read_the_machine(opened):
    job = FakeJob(training_events()).release(8)
    async with opened((160, 45), job=job) as (pilot, app):
        await until(pilot, lambda: "tiny-test" in status(app))
        tiles = app.screen.query_one(MetricTiles)
        assert tiles.is_monitoring
        await open_dialog(pilot, "e", Dialog)
        assert app.screen.query_one(Input).value == "bilbo baggins is"
        await refuse(pilot, **{"  ": "a sample prompt must be one line"})
        app.screen.query_one(Input).value = "the [lamp]"
        await pilot.press("enter")
        await until(pilot, lambda: "sample prompt: “the [lamp]”" in lines_of(app.screen.query_one(LogPane)))
        for key, text in (("space", "paused"), ("space", "training"), ("h", "lr × 0.5"), ("k", "saved at 7")):
            await pilot.press(key)
            await until(pilot, lambda: text in status(app))  # noqa: B023
        await pilot.press("d")
        await until(pilot, lambda: "detached" in status(app))
        assert not tiles.is_monitoring
        await until(pilot, lambda: "machine" not in {thread.name for thread in threading.enumerate()})
    sent = [("prompt", "the [lamp]"), ("pause",), ("resume",), ("lr", "0.5"), ("checkpoint",), ("detach",)]
    assert job.commands == [ControlCommand(*command) for command in sent]


async def test_a_problem_is_shown_with_its_remedy_until_dismissed_and_stop_asks_first(opened):
    problem = Diagnosed(33, 3.0, "loss_spike", "a problem", "a remedy")
    job = FakeJob([*training_events(3), problem]).release(len(training_events(3)))
    async with opened((60, 20), job=job) as (pilot, app):

        def banner():
            widget = app.screen.query_one("#diagnosis")
            return text_of(widget) if widget.display else ""

        await until(pilot, lambda: app.state.training_view is not None and len(app.state.training_view.samples) == 4)
        assert banner() == ""
        job.release()
        await until(pilot, lambda: banner() == "! a problem → a remedy  h lower lr  x dismiss")
        await pilot.press("h")
        await until(pilot, lambda: job.commands == [ControlCommand("lr", "0.5")])
        await pilot.press("x")
        await until(pilot, lambda: banner() == "")
        assert [line.kind for line in app.state.training_view.log if line.text == "a problem; a remedy"] == ["warning"]
        await answer(pilot, "ctrl+c", ConfirmDialog, "y")
        assert job.stopped.wait(1)


async def test_a_question_about_a_training_that_has_ended_meanwhile_closes_with_a_note(opened):
    all_events = [*training_events(2), finished(make_decoder())]
    job = FakeJob(all_events).release(len(all_events) - 1)
    async with opened((80, 24), job=job, notifications=True) as (pilot, app):
        await until(pilot, lambda: app.state.training_view is not None and app.state.training_view.evaluations)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        job.ends = True
        job.release()
        await until(pilot, lambda: not isinstance(app.screen, ConfirmDialog))
        await until(pilot, lambda: "has ended meanwhile" in notices(app))
        assert not job.commands


# Attached


async def test_a_command_is_pending_until_applied_and_a_refused_one_is_reported(make_host):
    commands, refusals = [], []

    def send(command):
        if refusals:
            raise RunError(refusals.pop())
        commands.append(command)

    view = view_of(training_events())
    async with attach(make_host, view, send, size=(80, 24)) as (app, pilot, screen):
        await pilot.press("space")
        assert "pausing …" in status(app)
        await pilot.press("space")
        assert "resuming …" in status(app)
        assert commands == [ControlCommand("pause"), ControlCommand("resume")]
        for command in commands:
            view.apply(CommandApplied(1, 1.0, command.kind, ""))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "following" in status(app))
        refusals.append("only its owner can control [this] run")
        await pilot.press("space")
        assert notices(app) == "only its owner can control [this] run"
        del commands[:]
        view.apply(finished(make_decoder()))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "finished" in status(app))
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


async def test_the_words_of_a_held_out_line_show_what_an_adapter_has_changed(make_host):
    async with attach(make_host, view_of(adapter_events())) as (_app, pilot, screen):
        words, samples = screen.query_one(ChangedWords), screen.query_one(SampleTimeline)

        def shown():
            return "\n".join(map(lines_of, words.children))

        assert "held-out line 1/2 (n) · 7.21 → 6.71 bits/word" in shown()
        sides = screen.query_one(KeyFooter).visible_keys()
        assert any(hint.binding.action == "step_line(1)" for side in sides for hint in side)
        assert "Gollum: It burns! ¶" in shown()
        assert "It +3.0 · ¶ -1.5" in shown()
        assert [words.query_one(TextView).style_of(index) for index in range(3)] == [
            ("much-better",), ("even",), ("worse",),
        ]  # fmt: skip
        latest, as_it_came, others = text_of(samples).split("\n\n")[:3]
        assert "a friend of mine 3" in latest
        assert as_it_came.startswith("as it came · valid ")
        assert "the of a the" in as_it_came
        assert "a friend of mine 2" in others
        await pilot.press("left_square_bracket")
        assert "It +2.0 · ¶ -1.0" in shown()
        await pilot.press("n")
        assert "held-out line 2/2" in shown()
        assert "Sam: Po-ta-toes! ¶" in shown()
        assert "no change yet" in shown()
        await pilot.press("N", "N")
        assert "held-out line 2/2" in shown()
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: not words.is_on_screen)
        await until(pilot, lambda: "n" not in screen.active_bindings)
        await pilot.press("n", "tab")
        await until(pilot, lambda: words.is_on_screen and samples.is_on_screen)
        await until(pilot, lambda: "n" in screen.active_bindings)
        assert "held-out line 2/2" in shown()  # n has no effect on a hidden line
        await pilot.resize_terminal(60, 14)
        await until(pilot, lambda: samples.is_on_screen and not words.is_on_screen)


async def test_a_dashboard_that_opens_first_shades_the_held_out_line_and_its_legend():
    app = LotrApp(make_screen=lambda: DashboardScreen(view_of(adapter_events()), lambda command: None, attached=True))
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#line-words") and app.screen.query_one("#line-words").size.height)
        words, legend = (app.screen.query_one(name) for name in ("#line-words", "#line-changes"))

        def backgrounds(widget, line):
            return {segment.text: segment.style.bgcolor for segment in widget.render_line(line)}

        await until(pilot, lambda: "lost 3 bits" in backgrounds(legend, 1))
        of_word, of_legend = backgrounds(words, 0), backgrounds(legend, 1)
        assert of_word["It"] == of_legend["gained 3 bits"]
        assert len({of_word["It"], of_word["burns!"], of_word["¶"], of_legend["lost 3 bits"]}) == 4


async def test_the_prompt_of_a_conversation_is_shown_by_line_and_edited_without_the_name_that_answers(make_host):
    view = view_of([*adapter_events(), Sampled(30, 3.0, "Frodo: Who are you?\nGollum:", "The ring.", 0, 0.7)])
    async with attach(make_host, view) as (_app, pilot, screen):
        await until(pilot, lambda: "Gollum: The ring." in text_of(screen.query_one(SampleTimeline)).splitlines())
        assert view.prompt == "Frodo: Who are you?"


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


async def test_a_followed_run_is_shown_while_this_process_trains_another_one(hosted, tmp_path):
    path = tmp_path / "followed"
    path.mkdir()
    append_events(path, training_events(3, models=False))
    async with hosted((160, 45)) as (pilot, app):
        screen = DashboardScreen.following(path)
        app.push_screen(screen)
        await until(pilot, lambda: screen.query("#status") and "followed" in status(app))
        await until(pilot, lambda: len(screen.view.samples) == 4 and "no process is training it" in status(app))
        sides = screen.query_one(KeyFooter).visible_keys()
        assert not CONTROL_ACTIONS & {hint.binding.action for side in sides for hint in side}  # none would be heard
        screen.post_message(TrainingChanged(view_of(training_events(10)), training_events(10)))
        await pilot.pause()
        assert len(screen.view.samples) == 4
        assert "followed" in status(app)
