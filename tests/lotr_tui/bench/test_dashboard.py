"""Measurements of the dashboard and of event loop delays."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.events import Failed, Finished, TrainingEvent, event_to_dict
from engine.runs.directory import METRICS_FILE
from lotr_tui.bench.event_loop_latency import delay_recording_command, read_delays, record_heartbeats
from lotr_tui.bench.terminal import BenchError, Terminal
from lotr_tui.bench.training.dashboard import RUN_NAME, epoch_marker, read_until_training_ends, training_speed
from tests.support.app import FakeJob, finished, make_decoder, training_events
from tests.support.dashboard import dashboard_text
from tests.support.metrics import append_events
from tests.support.pilot import MakeApp, until


def record(home: Path, events: Sequence[TrainingEvent]) -> None:
    """Append events to the record of the measured run."""
    path = home / "runs" / RUN_NAME
    path.mkdir(parents=True, exist_ok=True)
    append_events(path, events)


def test_training_speed_is_computed_from_the_record(tmp_path: Path) -> None:
    record(tmp_path, [*training_events(models=False), finished(make_decoder(1))])
    assert training_speed(tmp_path) == pytest.approx(12 * 19_022 / 24)


def test_stopped_training_has_no_speed(tmp_path: Path) -> None:
    record(tmp_path, [*training_events(models=False), Finished("stopped", RUN_NAME, 3.0, 72.5, 74.1, 24.0)])
    with pytest.raises(BenchError, match="did not finish"):
        training_speed(tmp_path)


@pytest.mark.parametrize("end", [finished(make_decoder(1)), Failed("no memory", "")])
def test_terminal_is_read_until_the_record_has_an_end(tmp_path: Path, end: TrainingEvent) -> None:
    record(tmp_path, training_events(models=False))
    endless_output = "import time\nwhile True: print('x' * 500, flush=True); time.sleep(0.001)"
    with Terminal([sys.executable, "-c", endless_output], 80, 24, tmp_path).spawn() as terminal:
        timer = threading.Timer(0.5, record, (tmp_path, [end]))
        timer.start()
        read_until_training_ends(terminal, tmp_path)
        timer.join()
    event_name = event_to_dict(end)["event"]
    assert (tmp_path / "runs" / RUN_NAME / METRICS_FILE).read_text().count(f'"event": "{event_name}"') == 1


async def test_dashboard_shows_the_epoch_marker(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(8))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: epoch_marker(12) in dashboard_text(app))


async def test_blocked_event_loop_is_recorded_as_a_delay() -> None:
    heartbeats: list[tuple[float, float]] = []
    task = asyncio.create_task(record_heartbeats(0.01, heartbeats))
    await asyncio.sleep(0.05)
    time.sleep(0.2)
    blocked_until = time.monotonic()
    await asyncio.sleep(0.05)
    task.cancel()
    woke_at, delay = max(heartbeats, key=lambda heartbeat: heartbeat[1])
    assert delay > 0.18  # the task may have slept up to 0.01 s before
    assert abs(woke_at - blocked_until) < delay


def test_delays_are_read_between_two_times(tmp_path: Path) -> None:
    path = tmp_path / "delays.json"
    with pytest.raises(BenchError, match="no delays"):
        read_delays(path, 0, 10)
    path.write_text(json.dumps([[1.0, 0.1], [2.0, 0.2], [3.0, 0.3], [4.0, 0.4]]))
    assert read_delays(path, 2, 3.5) == [0.2, 0.3]
    with pytest.raises(BenchError, match="no delays"):
        read_delays(path, 5, 6)


def test_command_without_an_app_runs_and_records_nothing(tmp_path: Path) -> None:
    path = tmp_path / "delays.json"
    with Terminal(delay_recording_command(path, 0.01, "locate"), 80, 24, tmp_path).spawn() as terminal:
        terminal.read_until("assets")
        terminal.read_until_exit()
    assert not path.exists()
