"""The dashboard of a run in another process, driven as a person would."""

import json
from pathlib import Path

import pytest

from engine.control import Command
from engine.errors import RunError
from engine.events import Finished, Steered, to_record
from engine.runs import writer
from engine.runs.control_files import Requests
from engine.runs.store import METRICS, SAMPLES
from lotr_tui.cli import attach
from lotr_tui.cli.attach import AttachApp
from lotr_tui.monitor import followed_run
from lotr_tui.screens.dashboard.screen import TrainScreen
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.screen import PlayScreen
from tests.conftest import write_run
from tests.lotr_tui.conftest import training_events
from tests.lotr_tui.monitor.test_followed_run import write
from tests.lotr_tui.screens.dashboard.test_dashboard import dashboard_text
from tests.lotr_tui.screens.session.test_session_screen import text_of, until
from tests.support.runs import CONFIG, VOCABULARY


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    monkeypatch.setattr(followed_run, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(attach, "TAKE_SECONDS", 0.01)
    monkeypatch.setattr(attach, "POLL_SECONDS", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> writer.Run:
    """One that is being trained, though nothing is written yet."""
    return writer.create(CONFIG, VOCABULARY, "r", tmp_path / "runs")


async def test_it_follows_and_leaving_stops_nothing(run: writer.Run) -> None:
    events, requests = training_events(models=False), Requests(run.path)
    app = AttachApp(run.path)
    async with app.run_test(size=(160, 45)) as pilot:
        assert isinstance(app.screen, TrainScreen)
        await until(pilot, lambda: "no metrics.jsonl" in text_of(app.screen.query_one("#status")))
        write(run.path, events[:20])
        await until(pilot, lambda: "epoch 3.0/12" in dashboard_text(app))
        write(run.path, events[20:])
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        write(run.path, [Finished("done", "r", 12.0, 72.5, 74.1, 24.0)])
        await until(pilot, lambda: "test 74.1" in dashboard_text(app))
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running or app._exit)
    assert requests() == []


async def test_a_run_deleted_meanwhile_is_told_and_what_was_read_stays(run: writer.Run) -> None:
    write(run.path, training_events(models=False))
    app = AttachApp(run.path)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        run.path.rename(run.path.with_name("elsewhere"))
        await until(pilot, lambda: "the run directory is gone" in dashboard_text(app))
        assert "epoch 12.0/12" in dashboard_text(app)


async def test_what_was_asked_is_said_until_the_other_process_has_done_it(run: writer.Run) -> None:
    write(run.path, training_events(models=False)[:9])
    requests = Requests(run.path)
    app = AttachApp(run.path)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.training.started)
        await pilot.press("c")
        await until(pilot, lambda: "saving …" in text_of(app.screen.query_one("#status")))
        assert requests() == [Command("checkpoint")]
        write(run.path, [Steered(9, 3.0, "checkpoint", "")])
        await until(pilot, lambda: "saving …" not in text_of(app.screen.query_one("#status")))


async def test_stopping_asks_the_other_process(run: writer.Run) -> None:
    write(run.path, training_events(models=False)[:9])
    requests = Requests(run.path)
    app = AttachApp(run.path)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.training.started)
        await pilot.press("s")
        await pilot.pause()
        await pilot.press("y")
        await pilot.pause()
        assert requests() == [Command("stop")]
        run.lock.close()
        await until(pilot, lambda: "nobody is training it" in dashboard_text(app))
        assert app.is_running


async def test_what_cannot_be_asked_is_told(run: writer.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise RunError("cannot write requests.jsonl: Permission denied; only its owner can steer a run")

    monkeypatch.setattr(followed_run, "ask", closed)
    write(run.path, training_events(models=False)[:9])
    app = AttachApp(run.path)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.training.started)
        await pilot.press("s")
        await pilot.pause()
        await pilot.press("y")
        await until(pilot, lambda: any("only its owner" in note.message for note in app._notifications))
        assert isinstance(app.screen, TrainScreen)


async def test_damage_is_passed_over(run: writer.Run) -> None:
    events = training_events(models=False)
    write(run.path, events[:20])
    with (run.path / METRICS).open("ab") as file:
        file.write(
            b"\x00\xff[\n" + b"[" * 100_000 + b"\n" + b'{"event": "step", "step": "many"}\n{"event": "sampled"}\n'
        )
    with (run.path / SAMPLES).open("ab") as file:
        file.write(b'{"event": "sampled", "text": 3}\n')
    write(run.path, events[20:])
    with (run.path / METRICS).open("a") as file:
        file.write(json.dumps(to_record(events[-2]))[:40])  # torn
    app = AttachApp(run.path)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        assert len(app.training.samples) == 13


async def test_playing_with_its_model_and_looking_at_other_runs(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs" / "whole")
    write(path, [*training_events(models=False), Finished("done", "old name", 12.0, 72.5, 74.1, 24.0)])
    app = AttachApp(path)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "finished" in dashboard_text(app))
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PlayScreen))
        await until(pilot, lambda: "whole" in text_of(app.screen.query_one("#status")))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
