"""A session that runs for hours, with a training, prompts and temperature ladders: its memory must not grow.

    python -m tests.faults.long_life --minutes 120

The memory at the end must be within 5 % of the memory after the first twelfth of the time, and the numbers of threads
and open files must be the same. With `--speed 8`, words, prompts and ladders come 8 times as fast.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.generation.settings import SamplerSettings
from lotr_tui.bench.programs import INPUT_READY_TEXT, SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError, Terminal, strip_control_sequences
from lotr_tui.bench.training.dashboard import epoch_marker
from lotr_tui.session.settings import MAX_PACE, Settings

EPOCHS = 100_000
"""Epochs of the preset "tiny", which take weeks."""
MAX_TOKENS = 300
"""Length of a reply."""
PACE = 25.0
"""Words per second at speed 1."""
SAMPLE_INTERVAL = 10.0
"""Seconds between two measurements."""
PROMPT_INTERVAL = 5.0
LADDER_INTERVAL = 60.0
LADDER_SECONDS = 10.0
"""Time that a ladder stays open."""
MAX_GROWTH = 0.05
NUM_PARTS = 12
"""Parts of the time; the second part is compared with the last."""
CTRL_L, ESC = b"\x0c", b"\x1b"


@dataclass(frozen=True)
class ResourceUsage:
    """Resources of a process at one moment."""

    seconds: float
    """Time since the start of the measurement."""
    megabytes: float
    """Resident memory."""
    threads: int
    open_files: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:7.0f} s  {self.megabytes:8.1f} MB  {self.threads:3} threads  {self.open_files:3} open files"
        )


class LongSession:
    """Session in a terminal that plays with a model while it is being trained."""

    def __init__(self, terminal: Terminal, speed: float) -> None:
        """Wait for the first model on the dashboard, and open the session that plays with it.

        Raises:
            BenchError: If the dashboard or the session does not appear in time.
        """
        self._terminal = terminal
        self._speed = speed
        self._output = b""
        terminal.read_until(epoch_marker(EPOCHS))
        terminal.read_until_quiet(3, 3)
        terminal.press(b"p", INPUT_READY_TEXT)
        self._start_time = time.monotonic()
        self._ladder_end: float | None = None
        self._next_ladder_time = self._start_time + LADDER_INTERVAL / speed
        self._next_prompt_time = self._start_time

    def run(self, seconds: float) -> Iterator[ResourceUsage]:
        """Type prompts and open ladders for `seconds`, and yield the resource usage every `SAMPLE_INTERVAL`."""
        next_sample_time = self._start_time
        while (now := time.monotonic()) < self._start_time + seconds:
            self._read()
            self._press_due_keys(now)
            if now >= next_sample_time:
                next_sample_time = now + SAMPLE_INTERVAL
                yield measure_usage(self._terminal.pid, now - self._start_time)

    def _press_due_keys(self, now: float) -> None:
        if self._ladder_end is not None:
            if now >= self._ladder_end:
                self._ladder_end = None
                self._terminal.write(ESC)
        elif now >= self._next_ladder_time:
            self._next_ladder_time = now + LADDER_INTERVAL / self._speed
            self._ladder_end = now + LADDER_SECONDS / self._speed
            self._terminal.write(CTRL_L)
        elif now >= self._next_prompt_time:  # during a reply, enter does nothing, and the prompt stays
            self._next_prompt_time = now + PROMPT_INTERVAL / self._speed
            self._terminal.write(b"\x15the lamp is\r")

    def _read(self) -> None:
        """Read the output.

        Raises:
            AssertionError: If the program has ended, or shows a traceback.
        """
        try:
            self._output = (self._output + self._terminal.read(0.02))[-200_000:]
        except BenchError as error:
            raise AssertionError(strip_control_sequences(self._output)) from error
        assert b"Traceback" not in self._output, strip_control_sequences(self._output)


def measure_usage(pid: int, seconds: float) -> ResourceUsage:
    """Return the resource usage of a process, from /proc; `seconds` is the time of the measurement."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return ResourceUsage(seconds, int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), open_files)


def compare_usage(samples: list[ResourceUsage]) -> str:
    """Compare the last part of the samples with the second, and return a line with the result.

    Threads and files of background work come and go, so the minimum of each part is compared.

    Raises:
        AssertionError: If the usage has grown.
    """
    size = max(1, len(samples) // NUM_PARTS)
    early, late = samples[size : 2 * size] or samples[:1], samples[-size:]
    before, after = (statistics.median(sample.megabytes for sample in part) for part in (early, late))
    result = f"{before:.1f} MB after a twelfth of the time, {after:.1f} MB at the end: {after / before - 1:+.1%}"
    assert after <= before * (1 + MAX_GROWTH), result
    for name in ("threads", "open_files"):
        minima = [min(getattr(sample, name) for sample in part) for part in (early, late)]
        label = name.replace("_", " ")
        assert minima[0] == minima[1], f"{minima[0]} {label} became {minima[1]}; {result}"
        result += f", {minima[0]} {label}"
    return result


def run_long_session(home: Path, seconds: float, speed: float, overrides: list[str]) -> Iterator[str]:
    """Yield a line for each measurement, then the result of the comparison.

    Args:
        home: Directory for `LOTR_TUI_HOME`.
        seconds: Duration.
        speed: Factor on the frequency of words, prompts and ladders.
        overrides: Settings of the training as "key=value".

    Raises:
        AssertionError: If the resource usage has grown, or the session fails.
    """
    sampler = SamplerSettings(max_tokens=MAX_TOKENS)
    (home / "settings.json").write_text(Settings(sampler=sampler, pace=min(MAX_PACE, PACE * speed)).to_json())
    arguments = ["train", "--preset", "tiny", "--mode", "stream"]
    arguments += [f"--set={setting}" for setting in (f"epochs={EPOCHS}", "threads=1", *overrides)]
    samples = []
    with Terminal([*SESSION_COMMAND, *arguments], 120, 40, home).spawn() as terminal:
        for sample in LongSession(terminal, speed).run(seconds):
            samples.append(sample)
            yield str(sample)
    yield compare_usage(samples)


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--speed", type=float, default=1)
    parser.add_argument("--set", action="append", default=[], help="a setting of the training, as for `train`")
    options = parser.parse_args()
    os.environ["LOTR_TUI_DEBUG"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        for line in run_long_session(Path(folder), 60 * options.minutes, options.speed, options.set):
            print(line, flush=True)


if __name__ == "__main__":
    main()
