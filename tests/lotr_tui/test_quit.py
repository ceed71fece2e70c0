"""Tests of quitting while this process trains: the question, the choices, and what is printed afterwards."""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from textual.app import App
from textual.drivers import linux_driver
from textual.pilot import Pilot
from textual.widgets import OptionList

from engine.control import ControlCommand
from engine.presets import PRESETS
from engine.training.job import TrainingJob
from lotr_tui.app import LotrApp
from lotr_tui.cli.launch import run_app
from lotr_tui.monitor.local_training import LocalTraining
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dialogs.quit import QuitDialog
from lotr_tui.screens.session.screen import SessionScreen
from tests.support.app import FakeJob, UseJob, finished, make_decoder, training_events
from tests.support.pilot import MakeApp, conversation_of, notices, until


def start_training(app: LotrApp) -> None:
    cast(SessionScreen, app.screen).start_training(PRESETS["tiny"])


async def ask_to_quit(pilot: Pilot[None], key: str = "ctrl+q") -> None:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, QuitDialog))


async def test_quitting_a_session_that_trains_asks_and_a_cancel_changes_nothing(
    make_app: MakeApp, use_job: UseJob
) -> None:
    job = use_job(FakeJob(training_events()).release(5))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        start_training(app)
        for key in ("escape", "n"):
            await ask_to_quit(pilot)
            await pilot.press("ctrl+q")  # a second one changes nothing
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        assert app.is_training
        assert not job.stopped.is_set()
        assert app.return_code is None
        await ask_to_quit(pilot)
        await pilot.press("s")
        await until(pilot, lambda: app.return_code is not None)
    assert job.stopped.wait(1)


@pytest.mark.parametrize("keys", [["ctrl+e"], ["f1"], ["ctrl+p"], ["ctrl+t"], ["ctrl+o"], ["ctrl+t", "space"]])
async def test_quitting_asks_on_every_screen(make_app: MakeApp, use_job: UseJob, keys: list[str]) -> None:
    job = use_job(FakeJob(training_events()).release(5))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        start_training(app)
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await ask_to_quit(pilot)
        await pilot.press("enter")  # the first choice: stop
        await until(pilot, lambda: app.return_code is not None)
    assert job.stopped.wait(1)


@pytest.mark.parametrize("key", ["q", "ctrl+q"])
async def test_quitting_the_dashboard_of_a_training_asks_the_same(make_app: MakeApp, key: str) -> None:
    job = FakeJob(training_events()).release(5)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask_to_quit(pilot, key)
        await pilot.press("s")
        await until(pilot, lambda: app.return_code is not None)
    assert app.return_code == 0
    assert job.stopped.wait(1)


async def test_no_question_without_a_training(make_app: MakeApp, use_job: UseJob) -> None:
    job = use_job(FakeJob([*training_events(1), finished(make_decoder())]))
    job.ends = True
    app = make_app(pace=2)
    async with app.run_test(size=(80, 24)) as pilot:
        start_training(app)
        job.release()
        await until(pilot, lambda: not app.is_training)
        await pilot.press(*"bilbo", "enter")
        await until(pilot, lambda: conversation_of(app).active_reply is not None)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app.return_code is not None)


async def test_detaching_waits_until_the_training_has_saved(make_app: MakeApp, use_job: UseJob) -> None:
    job = use_job(FakeJob(training_events()).release(5))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        start_training(app)
        await ask_to_quit(pilot)
        await pilot.press("d")
        await until(pilot, lambda: app.return_code is not None)
    assert [command.kind for command in job.commands] == ["detach"]
    assert app.detached_run == job.run.path


async def test_a_choice_can_be_clicked(make_app: MakeApp, use_job: UseJob) -> None:
    use_job(FakeJob(training_events()).release(5))
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        start_training(app)
        await ask_to_quit(pilot)
        await pilot.click(app.screen.query_one(OptionList), offset=(3, 1))
        await until(pilot, lambda: app.detached_run is not None)


async def test_a_training_that_ends_before_it_is_detached_ends_the_app(
    make_app: MakeApp, use_job: UseJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = use_job(FakeJob(training_events()[:9], failure=RuntimeError("no room")))
    monkeypatch.setattr(job, "_apply_commands", lambda: iter(()))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        start_training(app)
        await ask_to_quit(pilot)
        await pilot.press("d")
        await until(pilot, lambda: "then lotr-tui quits" in notices(app))
        job.release()
        await until(pilot, lambda: app.return_code is not None)
    assert app.detached_run is None


def test_a_command_during_the_preparation_is_applied_after_it() -> None:
    job = FakeJob(training_events())
    is_sent = False

    def prepare() -> TrainingJob:
        while not is_sent:
            pass
        return cast(TrainingJob, job)

    training = LocalTraining(prepare)
    training.send_command(ControlCommand("detach"))
    is_sent = True
    assert training.join(10)
    training.poll()
    assert training.view.finished is not None
    assert training.view.finished.reason == "detached"


# After the screen is closed


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[LotrApp, Callable[[Pilot[None]], Awaitable[None]]], int]:
    """Function that runs an app as the commands do, without a terminal, and drives it with a pilot."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for name in ("WriterThread", "getincrementaldecoder"):  # replaced by the workarounds for the terminal
        monkeypatch.setattr(linux_driver, name, getattr(linux_driver, name))
    resumed: list[Path] = []

    def resume(path: Path) -> str:
        resumed.append(path)
        return f"run {path.name} continues in the background"

    monkeypatch.setattr("lotr_tui.monitor.background.resume_in_background", resume)

    def run(app: LotrApp, drive: Callable[[Pilot[None]], Awaitable[None]]) -> int:
        def run_headless(app: App[None], **_: Any) -> None:
            original(app, headless=True, size=(80, 24), auto_pilot=drive)  # type: ignore[arg-type]

        monkeypatch.setattr(LotrApp, "run", run_headless)
        return run_app(app, mouse=False)

    original = LotrApp.run
    return run


@pytest.mark.parametrize(
    ("num_events", "key", "expected"),
    [
        (5, "s", ["run", "open a session with it", "resume it"]),
        (2, "s", ["run", "resume it"]),  # without a model
        (5, "d", ["run tiny-test continues in the background"]),
    ],
)
def test_quitting_a_session_prints_how_the_training_goes_on(
    make_app: MakeApp,
    use_job: UseJob,
    run_with: Any,
    capsys: pytest.CaptureFixture[str],
    num_events: int,
    key: str,
    expected: list[str],
) -> None:
    use_job(FakeJob(training_events()).release(num_events))
    app = make_app()

    async def drive(pilot: Pilot[None]) -> None:
        start_training(app)
        await until(pilot, lambda: app.training_view is not None and app.training_view.started)
        await ask_to_quit(pilot)
        await pilot.press(key)

    assert run_with(app, drive) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(expected)
    assert all(line.startswith(text) for line, text in zip(lines, expected, strict=True))


def test_quitting_a_session_without_a_training_prints_nothing(
    make_app: MakeApp, run_with: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def drive(pilot: Pilot[None]) -> None:
        await pilot.app.action_quit()

    assert run_with(make_app(), drive) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 0)]
)
def test_a_signal_that_ends_the_app_sets_the_exit_code(
    make_app: MakeApp, run_with: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, exit_code: int
) -> None:
    monkeypatch.setattr("lotr_tui.monitor.background.detach_from_terminal", lambda: None)
    app = make_app()

    async def drive(pilot: Pilot[None]) -> None:
        app.handle_signal(number)
        if number == signal.SIGUSR1:
            app.exit()

    assert run_with(app, drive) == exit_code


async def test_a_training_that_outlives_its_terminal_ends_with_exit_code_0(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(5))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.is_training)
        app.handle_signal(signal.SIGHUP)
        assert app.exit_code == 0
        app.handle_signal(signal.SIGTERM)  # later
        assert app.exit_code == 143
