"""Cost of the dashboard: training speed, delays of the event loop, and output per second."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.runs.directory import METRICS_FILE
from engine.runs.metrics import RecordFollower, read_current_rows
from lotr_tui.bench.event_loop_latency import delay_recording_command, read_delays
from lotr_tui.bench.measurement import Measurement, alternate, compare, latency_percentile, median_of_runs
from lotr_tui.bench.programs import SESSION_COMMAND, run_in_terminal
from lotr_tui.bench.terminal import BenchError, Terminal

EPOCHS = 3
"""Epochs of `tiny` on the bundled dialogues, about 7 s on two cores."""
ENDLESS_EPOCHS = 500
"""Epochs of a training that outlasts the measurement."""
TRAINING_TIMEOUT = 300.0
"""Maximum seconds of a training."""
HEARTBEAT_INTERVAL = 0.01
"""Seconds between two checks of the event loop."""
WINDOW_SECONDS = 10.0
"""Time during which the output is counted."""
RUN_NAME = "measured"


def measure_dashboard(repeat: int) -> Iterator[Measurement]:
    """Measure trainings of `tiny` on the bundled dialogues, with the default number of threads."""
    pairs = alternate(_speed_with_dashboard, _speed_without_tui, repeat)
    name = f"training speed with the dashboard, 160x45, {os.cpu_count()} cores"
    yield from compare(name, "training speed with --no-tui", "tokens/s", pairs, ratio_lower_limit=0.95)
    delays = [seconds for _ in range(repeat) for seconds in _event_loop_delays()]
    yield latency_percentile("event loop delay while training, 160x45", delays, 50, percent=99)
    rates = [_bytes_per_second() for _ in range(repeat)]
    yield median_of_runs("output of the dashboard per second, 80x24", "bytes", rates, 4096)


def _train_arguments(epochs: int = EPOCHS) -> list[str]:
    return ["train", "--preset", "tiny", "--set", f"epochs={epochs}", "--run", RUN_NAME]


def _speed_with_dashboard() -> float:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with Terminal([*SESSION_COMMAND, *_train_arguments()], 160, 45, home).spawn() as terminal:
            read_until_training_ends(terminal, home)
        return training_speed(home)


def _speed_without_tui() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [*SESSION_COMMAND, *_train_arguments(), "--no-tui"]
        subprocess.run(command, env=os.environ | {"LOTR_TUI_HOME": folder}, stdout=subprocess.DEVNULL, check=True)
        return training_speed(Path(folder))


def read_until_training_ends(terminal: Terminal, home: Path) -> None:
    """Read the output of the dashboard until the record of its run has an end."""
    follower = RecordFollower(_metrics_path(home))
    deadline = time.monotonic() + TRAINING_TIMEOUT
    while not any(row["event"] in ("finished", "failed") for row in follower.read_batch(0.1).rows):
        if time.monotonic() > deadline:
            raise BenchError(f"the training did not end within {TRAINING_TIMEOUT:.0f} s")
        terminal.read_until_quiet(0.3, 0.3)


def training_speed(home: Path) -> float:
    """Return training tokens per second, computed from the record of the run, which must be complete."""
    rows = {row["event"]: row for row in read_current_rows(_metrics_path(home), subsample=True)}
    if rows.get("finished", {}).get("reason") != "done":
        raise BenchError("the training did not finish; `lotr-tui train --preset tiny` shows why")
    finished = rows["finished"]
    return float(rows["started"]["train_tokens"] * finished["epochs"] / finished["seconds"])


def _event_loop_delays() -> list[float]:
    """Return the delays of the event loop in seconds, from the first report on the screen to the training's end."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        delay_file = home / "delays.json"
        command = delay_recording_command(delay_file, HEARTBEAT_INTERVAL, *_train_arguments())
        with Terminal(command, 160, 45, home).spawn() as terminal:
            terminal.read_until(epoch_marker(EPOCHS))
            started = time.monotonic()
            read_until_training_ends(terminal, home)
            ended = time.monotonic()
            terminal.read_until_quiet(1.5, 3)  # after the end of the training, q quits without a question
            terminal.write(b"q")
            terminal.read_until_exit()
        return read_delays(delay_file, started, ended)


def _bytes_per_second() -> float:
    command = [*SESSION_COMMAND, *_train_arguments(ENDLESS_EPOCHS)]
    with run_in_terminal(command, 80, 24, epoch_marker(ENDLESS_EPOCHS)) as terminal:
        num_bytes, started = 0, time.monotonic()
        while (seconds := time.monotonic() - started) < WINDOW_SECONDS:
            num_bytes += len(terminal.read(0.1))
        return num_bytes / seconds


def epoch_marker(epochs: int) -> str:
    """Return the text after the current epoch on the dashboard of a running training."""
    return f"/{epochs} ·"


def _metrics_path(home: Path) -> Path:
    return home / "runs" / RUN_NAME / METRICS_FILE
