"""`lotr-tui attach`: the dashboard of a run that another process trains."""

import pytest

from engine.control import ControlCommand
from engine.events import CommandApplied, Finished
from engine.runs.directory import COMMANDS_FILE, METRICS_FILE, RecordFollower
from engine.runs.locked_run import create_run, parse_command
from lotr_tui.monitor import run_follower
from tests.support.app import attached, training_events
from tests.support.dashboard import dashboard_text
from tests.support.pilot import text_of, until
from tests.support.runs import CONFIG, VOCABULARY, append_events

EVENTS = training_events(models=False)


@pytest.fixture
def app(tmp_path, monkeypatch):
    """Return the app on a run that this process holds, without a record."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    monkeypatch.setattr(run_follower, "POLL_INTERVAL", 0.01)
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path / "runs")
    yield attached(run.path)
    run.lock.close()


async def test_dashboard_follows_the_record_past_damaged_lines_and_sends_commands_except_for_quitting(app, tmp_path):
    path = tmp_path / "runs" / "r"
    requests = RecordFollower(path / COMMANDS_FILE, parse_command).read
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "no metrics.jsonl" in text_of(app.screen.query_one("#status")))
        append_events(path, EVENTS[:20])
        await until(pilot, lambda: "epoch 3.0/12" in dashboard_text(app))
        await pilot.press("k")
        await until(pilot, lambda: "saving …" in text_of(app.screen.query_one("#status")))
        assert requests() == [ControlCommand("checkpoint")]
        append_events(path, [CommandApplied(9, 3.0, "checkpoint", "")])
        await until(pilot, lambda: "saving …" not in text_of(app.screen.query_one("#status")))
        with (path / METRICS_FILE).open("ab") as file:
            file.write(b"\x00\xff[\n" + b"[" * 100_000 + b'\n{"event": "step", "step": "many"}\n{"event": "sampled"}\n')
        append_events(path, EVENTS[20:])
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        append_events(path, [Finished("done", "r", 12.0, 72.5, 74.1, 24.0)])
        await until(pilot, lambda: "test 74.1" in dashboard_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.return_code == 0)
    assert requests() == []
