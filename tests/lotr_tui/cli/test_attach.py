"""Dashboard of a run that another process trains."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.control import ControlCommand
from engine.errors import RunError
from engine.events import CommandApplied, Finished, event_to_dict
from engine.runs.control_files import CommandFileReader
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE
from engine.runs.locked_run import LockedRun, create_run
from lotr_tui.cli import attach
from lotr_tui.cli.attach import AttachApp
from lotr_tui.monitor import run_follower
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.screen import SessionScreen
from tests.support.app import training_events
from tests.support.dashboard import dashboard_text
from tests.support.files import write_run
from tests.support.metrics import append_events
from tests.support.pilot import notices, text_of, until
from tests.support.runs import CONFIG, VOCABULARY


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    monkeypatch.setattr(run_follower, "POLL_INTERVAL", 0.005)
    monkeypatch.setattr(attach, "DRAIN_INTERVAL", 0.01)
    monkeypatch.setattr(attach, "POLL_INTERVAL", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> LockedRun:
    """Return a run that this process holds, without a record."""
    return create_run(CONFIG, VOCABULARY, "r", tmp_path / "runs")


@asynccontextmanager
async def attached_to_running(run: LockedRun) -> AsyncIterator[tuple[AttachApp, Pilot[None]]]:
    """Attach to a run whose record has two epochs and no end."""
    append_events(run.path, training_events(models=False)[:9])
    app = AttachApp(run.path)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.training_view.started)
        yield app, pilot


async def press_stop(pilot: Pilot[None]) -> None:
    """Ask to stop the training, and confirm it."""
    await pilot.press("s")
    await pilot.pause()
    await pilot.press("y")
    await pilot.pause()


async def test_dashboard_follows_the_record_and_quitting_sends_no_command(run: LockedRun) -> None:
    events, requests = training_events(models=False), CommandFileReader(run.path)
    app = AttachApp(run.path)
    async with app.run_test(size=(160, 45)) as pilot:
        assert isinstance(app.screen, DashboardScreen)
        await until(pilot, lambda: "no metrics.jsonl" in text_of(app.screen.query_one("#status")))
        append_events(run.path, events[:20])
        await until(pilot, lambda: "epoch 3.0/12" in dashboard_text(app))
        append_events(run.path, events[20:])
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        append_events(run.path, [Finished("done", "r", 12.0, 72.5, 74.1, 24.0)])
        await until(pilot, lambda: "test 74.1" in dashboard_text(app))
        await pilot.press("q")
        await until(pilot, lambda: app.return_code == 0)
    assert requests() == []


async def test_deleted_run_is_reported_and_its_figures_stay(run: LockedRun) -> None:
    append_events(run.path, training_events(models=False))
    app = AttachApp(run.path)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        run.path.rename(run.path.with_name("elsewhere"))
        await until(pilot, lambda: "the run directory was deleted" in dashboard_text(app))
        assert "epoch 12.0/12" in dashboard_text(app)


async def test_pending_command_is_shown_until_it_is_applied(run: LockedRun) -> None:
    requests = CommandFileReader(run.path)
    async with attached_to_running(run) as (app, pilot):
        await pilot.press("c")
        await until(pilot, lambda: "saving …" in text_of(app.screen.query_one("#status")))
        assert requests() == [ControlCommand("checkpoint")]
        append_events(run.path, [CommandApplied(9, 3.0, "checkpoint", "")])
        await until(pilot, lambda: "saving …" not in text_of(app.screen.query_one("#status")))


async def test_stop_is_sent_to_the_training_process(run: LockedRun) -> None:
    requests = CommandFileReader(run.path)
    async with attached_to_running(run) as (app, pilot):
        await press_stop(pilot)
        assert requests() == [ControlCommand("stop")]
        run.lock.release()
        await until(pilot, lambda: "no process is training it" in dashboard_text(app))
        assert app.is_running


async def test_command_that_cannot_be_sent_is_an_error_notice(run: LockedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_permission_denied(*_: object) -> None:
        raise RunError("cannot write commands.jsonl: Permission denied; only the owner of the run can send it commands")

    monkeypatch.setattr(run_follower, "send_command", raise_permission_denied)
    async with attached_to_running(run) as (app, pilot):
        await press_stop(pilot)
        await until(pilot, lambda: "only the owner" in notices(app))
        assert isinstance(app.screen, DashboardScreen)


async def test_damaged_lines_are_skipped(run: LockedRun) -> None:
    events = training_events(models=False)
    append_events(run.path, events[:20])
    with (run.path / METRICS_FILE).open("ab") as file:
        file.write(
            b"\x00\xff[\n" + b"[" * 100_000 + b"\n" + b'{"event": "step", "step": "many"}\n{"event": "sampled"}\n'
        )
    with (run.path / SAMPLES_FILE).open("ab") as file:
        file.write(b'{"event": "sampled", "text": 3}\n')
    append_events(run.path, events[20:])
    with (run.path / METRICS_FILE).open("a") as file:
        file.write(json.dumps(event_to_dict(events[-2]))[:40])  # an incomplete line
    app = AttachApp(run.path)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        assert len(app.training_view.samples) == 13


async def test_session_and_runs_screen_open_from_the_dashboard(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs" / "complete")
    append_events(path, [*training_events(models=False), Finished("done", "old name", 12.0, 72.5, 74.1, 24.0)])
    app = AttachApp(path)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "finished" in dashboard_text(app))
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        await until(pilot, lambda: "complete" in text_of(app.screen.query_one("#status")))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
