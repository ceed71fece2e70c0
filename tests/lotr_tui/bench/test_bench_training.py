"""The benchmark of the dashboard and of `attach`: what it counts, and that it sees real programs to their end."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.events import Failed, Finished, TrainingEvent, to_record
from engine.runs.store import METRICS
from lotr_tui.bench.figures import Figure
from lotr_tui.bench.interface.attach import EVALUATIONS, attach, attach_once, peak_megabytes, write_long_run
from lotr_tui.bench.terminal import BenchError, Terminal
from lotr_tui.bench.training.dashboard import RUN, read_to_end_of_training, shown_from, training_speed
from lotr_tui.bench.training.event_loop_latency import beat, noting, read_lateness
from lotr_tui.monitor.training_view import TrainingView
from tests.lotr_tui.conftest import FakeJob, finished, make_decoder, training_events
from tests.lotr_tui.screens.dashboard.test_dashboard import MakeApp, dashboard_text
from tests.lotr_tui.screens.session.test_session_screen import until


def record_of(home: Path, events: Sequence[TrainingEvent]) -> None:
    path = home / "runs" / RUN
    path.mkdir(parents=True, exist_ok=True)
    with (path / METRICS).open("a") as file:
        file.writelines(json.dumps(to_record(event)) + "\n" for event in events)


def test_the_speed_of_a_training_is_that_of_its_record(tmp_path: Path) -> None:
    record_of(tmp_path, [*training_events(models=False), finished(make_decoder(1))])
    assert training_speed(tmp_path) == pytest.approx(12 * 19_022 / 24)


def test_a_training_that_was_stopped_has_no_speed(tmp_path: Path) -> None:
    record_of(tmp_path, [*training_events(models=False), Finished("stopped", RUN, 3.0, 72.5, 74.1, 24.0)])
    with pytest.raises(BenchError, match="did not come to its end"):
        training_speed(tmp_path)


@pytest.mark.parametrize("end", [finished(make_decoder(1)), Failed("no memory", "")])
def test_a_terminal_is_read_until_the_record_has_its_end(tmp_path: Path, end: TrainingEvent) -> None:
    record_of(tmp_path, training_events(models=False))
    chatter = "import time\nwhile True: print('x' * 500, flush=True); time.sleep(0.001)"  # stops where nobody reads
    with Terminal([sys.executable, "-c", chatter], 80, 24, tmp_path).opened() as terminal:
        ends = threading.Timer(0.5, record_of, (tmp_path, [end]))
        ends.start()
        read_to_end_of_training(terminal, tmp_path)
        ends.join()
    assert (tmp_path / "runs" / RUN / METRICS).read_text().count(f'"event": "{to_record(end)["event"]}"') == 1


async def test_what_tells_that_a_training_is_shown_is_shown(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(8))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: shown_from(12) in dashboard_text(app))


async def test_a_loop_that_is_held_up_is_late() -> None:
    beats: list[tuple[float, float]] = []
    task = asyncio.create_task(beat(0.01, beats))
    await asyncio.sleep(0.05)
    time.sleep(0.2)
    held_up = time.monotonic()
    await asyncio.sleep(0.05)
    task.cancel()
    woke, late = max(beats, key=lambda noted: noted[1])
    assert late > 0.18  # it may have slept for a hundredth already
    assert abs(woke - held_up) < late


def test_beats_are_read_between_two_moments(tmp_path: Path) -> None:
    file = tmp_path / "beats.json"
    with pytest.raises(BenchError, match="was not noted"):
        read_lateness(file, 0, 10)
    file.write_text(json.dumps([[1.0, 0.1], [2.0, 0.2], [3.0, 0.3], [4.0, 0.4]]))
    assert read_lateness(file, 2, 3.5) == [0.2, 0.3]
    with pytest.raises(BenchError, match="was not noted"):
        read_lateness(file, 5, 6)


def test_a_command_without_an_app_is_run_as_it_is_and_nothing_noted(tmp_path: Path) -> None:
    file = tmp_path / "beats.json"
    with Terminal(noting(file, 0.01, "locate"), 80, 24, tmp_path).opened() as terminal:
        terminal.until("assets")
        terminal.until_end()
    assert json.loads(file.read_text()) == []


def test_a_long_run_is_as_a_training_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "long"
    write_long_run(path, 3 * EVALUATIONS)
    view = TrainingView.of_run(path)
    assert len(view.steps) == 3 * EVALUATIONS
    assert len(view.evaluations) == len(view.samples) == EVALUATIONS == view.epochs
    assert view.finished is not None


def test_attach_is_measured_to_the_whole_curve(tmp_path: Path) -> None:
    """A short form of the measure of a million reports: a dashboard in a terminal of its own."""
    path = tmp_path / "runs" / "long"
    write_long_run(path, 20_000)
    attached = attach_once(path)
    assert 0 < attached.first_paint <= attached.whole_curve
    assert 0 < attached.longest_block < attached.whole_curve
    assert attached.megabytes is None or 10 < attached.megabytes < 300


def test_the_longest_block_is_that_of_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lotr_tui.bench.interface.attach import Attached

    runs = [Attached(1, 2, 0.03, 100), Attached(3, 4, 0.09, 120), Attached(5, 6, 0.04, 110)]
    monkeypatch.setattr("lotr_tui.bench.interface.attach.attach_once", lambda _: runs.pop())
    figures = [figure for figure in attach(3, 1000) if isinstance(figure, Figure)]
    assert [figure.value for figure in figures] == pytest.approx([3, 4, 90, 110])
    assert [figure.limit for figure in figures] == [0.8, 5, 100, 300]


def test_a_measured_program_has_a_terminal_where_ci_looks_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would draw for a person is measured, wherever that is done."""
    monkeypatch.setenv("CI", "true")
    program = "from lotr_tui.cli.options import has_terminal; print('screen', has_terminal()); input()"
    with Terminal([sys.executable, "-c", program], 80, 24, tmp_path).opened() as terminal:
        terminal.until("screen True")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")
def test_the_most_memory_is_in_megabytes() -> None:
    program = "import sys; kept = b'x' * 300_000_000; print('ready', flush=True); sys.stdin.read()"
    with Terminal([sys.executable, "-c", program], 80, 24, Path()).opened() as terminal:
        terminal.until("ready")
        megabytes = peak_megabytes(terminal.pid)
    assert megabytes is not None
    assert 300 / 1.05 < megabytes < 360
    assert peak_megabytes(2**30) is None
