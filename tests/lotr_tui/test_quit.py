"""Quitting while this process trains: the question, the choices, and what is printed afterwards."""

import re
import threading
from functools import partial

import pytest
from textual.widgets import OptionList

from engine.control import ControlCommand
from engine.errors import LotrError
from engine.presets import PRESETS
from lotr_tui.cli.launch import run_app
from lotr_tui.monitor.local_training import LocalTraining
from lotr_tui.screens.dialogs.dialog import ConfirmDialog
from lotr_tui.screens.dialogs.questions import QuitDialog
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.session_file import load_session
from tests.support.app import FakeJob, finished, make_decoder, training_events
from tests.support.commands import kept_signal_handlers
from tests.support.files import no_file_longer_than, write_run
from tests.support.pilot import conversation_of, notices, reply_to, until


async def ask_to_quit(pilot, key="ctrl+q"):
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, QuitDialog))


async def until_ended(pilot):
    await until(pilot, lambda: pilot.app.return_code is not None)


@pytest.fixture
def make_training_app(make_app, use_job):
    def make(job=None, num_events=5):
        app = make_app()
        app.fake_job = use_job(job or FakeJob(training_events()).release(num_events))
        return app

    return make


async def test_quitting_asks_on_every_screen_and_a_cancel_changes_nothing(make_training_app):
    app = make_training_app()
    async with app.run_test(size=(80, 24)) as pilot:
        app.screen.training.start(PRESETS["tiny"])
        for cancel in ("escape", "c"):
            await ask_to_quit(pilot)
            await pilot.press("ctrl+q")  # a second one changes nothing
            await pilot.press(cancel)
            await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        for key in ("ctrl+o", "ctrl+p", "ctrl+t"):
            await pilot.press(key)
            await pilot.pause()
            await ask_to_quit(pilot)
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, QuitDialog))
            if key != "ctrl+t":
                await pilot.press("escape")
                await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        assert app.state.is_training
        assert not app.fake_job.stopped.is_set()
        await pilot.press("space")  # pauses the training on its dashboard
        await ask_to_quit(pilot)
        await pilot.press("enter")  # the first choice: stop
        await until_ended(pilot)
    assert app.fake_job.stopped.wait(1)


async def test_quitting_the_dashboard_of_a_training_asks_the_same(make_app):
    job = FakeJob(training_events()).release(5)
    async with make_app(job=job).run_test(size=(80, 24)) as pilot:
        await ask_to_quit(pilot, "escape")
        await pilot.press("escape")
        await ask_to_quit(pilot)
        await pilot.click(pilot.app.screen.query_one(OptionList), offset=(3, 0))
        await until_ended(pilot)
    assert pilot.app.return_code == 0
    assert job.stopped.wait(1)


async def test_no_question_without_a_training(make_training_app):
    job = FakeJob([*training_events(1), finished(make_decoder())])
    job.ends = True
    app = make_training_app(job)
    async with app.run_test(size=(80, 24)) as pilot:
        app.screen.training.start(PRESETS["tiny"])
        job.release()
        await until(pilot, lambda: not app.state.is_training)
        await pilot.press(*"bilbo", "enter")
        await until(pilot, lambda: conversation_of(app).current_reply is not None)
        await pilot.press("ctrl+q")
        await until_ended(pilot)


async def test_a_training_that_fails_before_it_is_detached_ends_the_app(make_training_app, monkeypatch):
    app = make_training_app(FakeJob(training_events()[:9], RuntimeError("no room")).release(8))
    monkeypatch.setattr(app.fake_job.command_queue, "drain", list)  # it fails before it sees the command
    async with app.run_test(size=(80, 24)) as pilot:
        app.screen.training.start(PRESETS["tiny"])
        await ask_to_quit(pilot)
        await pilot.press("d")
        await until(pilot, lambda: "then lotr-tui quits" in notices(app))
        app.fake_job.release()
        await until_ended(pilot)
    assert app.state.detached_run is None


def test_a_command_during_the_preparation_is_applied_after_it():
    job, sent = FakeJob(training_events()), threading.Event()

    def prepare():
        sent.wait(10)
        return job

    training = LocalTraining(prepare)
    training.send_command(ControlCommand("detach"))
    sent.set()
    assert training.join(10)
    training.poll()
    assert training.view.finished.reason == "detached"


@pytest.fixture
def run_headless(monkeypatch):
    """Return a function that runs an app as the commands do, without a terminal, and drives it with a pilot."""
    monkeypatch.setattr(
        "lotr_tui.monitor.background.resume_in_background", lambda path: f"run {path.name} continues in the background"
    )

    def run(app, drive):
        app.run = partial(app.run, headless=True, size=(80, 24), auto_pilot=drive)
        return run_app(app, mouse=False)

    with kept_signal_handlers():
        yield run


@pytest.mark.parametrize(
    ("num_events", "key", "commands", "expected"),
    [
        (5, "s", [], ["run tiny-test is in", "open a session with it", "resume it"]),
        (2, "s", [], ["run tiny-test is in", "resume it"]),  # without a model
        (5, "d", ["detach"], ["run tiny-test continues in the background"]),
    ],
)
def test_quitting_a_session_prints_how_the_training_goes_on(
    make_training_app, run_headless, capsys, tmp_path, monkeypatch, num_events, key, commands, expected
):
    app = make_training_app(num_events=num_events)
    monkeypatch.setattr(app.fake_job.run, "path", tmp_path / "tiny-test")
    if num_events == 5:
        write_run(app.fake_job.run.path)

    async def drive(pilot):
        app.screen.training.start(PRESETS["tiny"])
        await until(pilot, lambda: app.state.training_view is not None and app.state.training_view.started)
        await ask_to_quit(pilot)
        await pilot.press(key)

    assert run_headless(app, drive) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(text) for line, text in zip(lines, expected, strict=True))
    assert [command.kind for command in app.fake_job.commands] == commands


def test_the_command_of_a_training_that_fails_exits_with_1_and_names_no_model(make_app, run_headless, capsys):
    problem = "cannot write model.safetensors: No space left on device; the end of the training is not saved"
    app = make_app(job=FakeJob(training_events(), LotrError(problem)).release())

    async def drive(pilot):
        await until(pilot, lambda: app.state.training_view.failure)
        await pilot.press("ctrl+q")

    assert run_headless(app, drive) == 1
    out, err = capsys.readouterr()
    assert "open a session" not in out
    assert err == f"lotr-tui: {problem}\n"


def test_a_conversation_that_is_not_saved_is_not_lost_without_a_question(make_app, run_headless, capsys):
    app = make_app()

    async def drive(pilot):
        await until(pilot, lambda: app.screen.is_ready)
        await reply_to(pilot)
        conversation = conversation_of(app)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("ctrl+q", "n")
        await pilot.press(*"/new", "enter")
        await until(pilot, lambda: "would be lost" in notices(app))
        assert conversation_of(app) is conversation
        await pilot.press("ctrl+q", "y")
        await until_ended(pilot)

    with no_file_longer_than(0):
        assert run_headless(app, drive) == 1
    assert re.search(r"^lotr-tui: the session is not saved: .*sessions.*: File too large", capsys.readouterr().err)


async def test_quitting_saves_a_conversation_once_there_is_room(make_app, tmp_path):
    async with make_app().run_test() as pilot:
        with no_file_longer_than(0):
            await reply_to(pilot)
        assert not list(tmp_path.glob("sessions/*"))
        await pilot.press("ctrl+q")
        await until_ended(pilot)
    assert pilot.app.state.exit_message == ""
    (path,) = tmp_path.glob("sessions/*")
    assert len(load_session(path).replies) == 1
