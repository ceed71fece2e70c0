"""What the dashboard costs the training that it shows, how it feels meanwhile, and what it sends over the line."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.runs.metrics import Follower, current_rows
from engine.runs.store import METRICS
from lotr_tui.bench.figures import Figure, median, paired, percentile
from lotr_tui.bench.subjects import SESSION_COMMAND, running
from lotr_tui.bench.terminal import BenchError, Terminal
from lotr_tui.bench.training.event_loop_latency import noting, read_lateness

EPOCHS = 3
"""Of `tiny` on the bundled dialogues: some 7 s on two cores."""
MANY_EPOCHS = 500
"""Of a training that is looked at as long as is wanted."""
TRAINING_SECONDS = 300.0
"""No training takes longer, on the busiest machine."""
BEAT_SECONDS = 0.01
WINDOW_SECONDS = 10.0
"""So long bytes are counted."""
RUN = "measured"


def dashboard(repeat: int, epochs: int = EPOCHS, window: float = WINDOW_SECONDS) -> Iterator[Figure]:
    """Trainings of `tiny` on the bundled dialogues, with as many threads as a person gets."""
    yield from paired(
        f"training speed with the dashboard, 160x45, {os.cpu_count()} cores",
        "tokens/s",
        lambda: _shown_speed(epochs),
        lambda: _plain_speed(epochs),
        "training speed with --no-tui",
        repeat,
        ratio_least=0.95,
    )
    late = [seconds for _ in range(repeat) for seconds in _lateness(epochs)]
    yield percentile(99, "event loop's lateness while training, 160x45", late, 50)
    counts = [_bytes_a_second(window) for _ in range(repeat)]
    yield median("a training shown at 80x24, a second", "bytes", counts, 4096)


def _training(epochs: int) -> list[str]:
    return ["train", "--preset", "tiny", "--set", f"epochs={epochs}", "--run", RUN]


def _shown_speed(epochs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with Terminal([*SESSION_COMMAND, *_training(epochs)], 160, 45, home).opened() as terminal:
            read_to_end_of_training(terminal, home)
        return training_speed(home)


def _plain_speed(epochs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [*SESSION_COMMAND, *_training(epochs), "--no-tui"]
        subprocess.run(command, env=os.environ | {"LOTR_TUI_HOME": folder}, stdout=subprocess.DEVNULL, check=True)
        return training_speed(Path(folder))


def read_to_end_of_training(terminal: Terminal, home: Path) -> None:
    """Read all that the dashboard writes, and nothing else but what is new in the record, until that has its end.

    Raises:
        BenchError: the program has ended before, or the training does not end in time.
    """
    follower = Follower(_record(home))
    deadline = time.monotonic() + TRAINING_SECONDS
    while not any(row["event"] in ("finished", "failed") for row in follower.more(0.1).rows):
        if time.monotonic() > deadline:
            raise BenchError(f"the training did not end within {TRAINING_SECONDS:.0f} s")
        terminal.settle(0.3, 0.3)


def training_speed(home: Path) -> float:
    """Training tokens a second, from the run's own record: its tokens and epochs, and the seconds it says it took.

    Raises:
        BenchError: it did not come to its end.
    """
    rows = {row["event"]: row for row in current_rows(_record(home), outline=True)}
    if rows.get("finished", {}).get("reason") != "done":
        raise BenchError("the training did not come to its end; `lotr-tui train --preset tiny` shows why")
    finished = rows["finished"]
    return float(rows["started"]["train_tokens"] * finished["epochs"] / finished["seconds"])


def _lateness(epochs: int) -> list[float]:
    """From the first report on the screen to the end of the training."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        noted = home / "lateness.json"
        with Terminal(noting(noted, BEAT_SECONDS, *_training(epochs)), 160, 45, home).opened() as terminal:
            terminal.until(shown_from(epochs))
            since = time.monotonic()
            read_to_end_of_training(terminal, home)
            until = time.monotonic()
            terminal.settle(1.5, 3)  # now leaving asks nothing
            terminal.write(b"q")
            terminal.until_end()
        return read_lateness(noted, since, until)


def _bytes_a_second(window: float) -> float:
    with running([*SESSION_COMMAND, *_training(MANY_EPOCHS)], 80, 24, shown_from(MANY_EPOCHS)) as terminal:
        written, started = 0, time.monotonic()
        while (seconds := time.monotonic() - started) < window:
            written += len(terminal.read(0.1))
        return written / seconds


def shown_from(epochs: int) -> str:
    """What stands behind the epoch once the training goes on."""
    return f"/{epochs} ·"


def _record(home: Path) -> Path:
    return home / "runs" / RUN / METRICS
