"""A session for hours: a training that does not end, words streaming, a ladder every minute; what it takes is sampled.

    python -m tests.faults.long_life --minutes 120

Memory at the end must be within 5 % of what it was after the first twelfth of the time, threads and file handles the
same. `--speed 8` does 8 times as much in the same time: words come 8 times as fast, and so do prompts and ladders.
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
from lotr_tui.bench.subjects import SESSION_COMMAND, TYPEABLE
from lotr_tui.bench.terminal import BenchError, Terminal, shown
from lotr_tui.bench.training.dashboard import shown_from
from lotr_tui.session.settings import MAX_PACE, Settings

EPOCHS = 100_000
"""Of `tiny`: weeks."""
WORDS = 300
"""Of a reply."""
PACE = 25.0
"""Words a second, unless sped up."""
SAMPLE_SECONDS = 10.0
PROMPT_SECONDS = 5.0
LADDER_SECONDS = 60.0
LADDER_STAYS_SECONDS = 10.0
MOST_GROWTH = 0.05
PARTS = 12
"""Of the time: what the first is left with is what the last is compared with."""
CTRL_L, ESC = b"\x0c", b"\x1b"


@dataclass(frozen=True)
class Sample:
    """What the process has at a moment."""

    seconds: float
    megabytes: float
    threads: int
    handles: int

    def __str__(self) -> str:
        return f"{self.seconds:7.0f} s  {self.megabytes:8.1f} MB  {self.threads:3} threads  {self.handles:3} handles"


class LongLife:
    """A session beside a training of its own, in a terminal."""

    def __init__(self, terminal: Terminal, speed: float) -> None:
        """Go from the dashboard, once there is a model, to the session that plays with it.

        Raises:
            BenchError: it does not come so far.
        """
        self._terminal = terminal
        self._speed = speed
        self._output = b""
        terminal.until(shown_from(EPOCHS))
        terminal.settle(3, 3)
        terminal.press(b"p", TYPEABLE)
        self._started = time.monotonic()
        self._ladder_until = 0.0
        self._next_ladder = self._started + LADDER_SECONDS / speed
        self._next_prompt = self._started

    def live(self, seconds: float) -> Iterator[Sample]:
        """So long; what it has, now and then."""
        next_sample = self._started
        while (now := time.monotonic()) < self._started + seconds:
            self._read()
            self._act(now)
            if now >= next_sample:
                next_sample = now + SAMPLE_SECONDS
                yield sample(self._terminal.pid, now - self._started)

    def _act(self, now: float) -> None:
        if self._ladder_until:
            if now >= self._ladder_until:
                self._ladder_until = 0.0
                self._press(ESC)
        elif now >= self._next_ladder:
            self._next_ladder = now + LADDER_SECONDS / self._speed
            self._ladder_until = now + LADDER_STAYS_SECONDS / self._speed
            self._press(CTRL_L)
        elif now >= self._next_prompt:  # while words still come it stays where it is, and is sent the next time
            self._next_prompt = now + PROMPT_SECONDS / self._speed
            self._press(b"\x15the lamp is\r")

    def _press(self, keys: bytes) -> None:
        self._terminal.write(keys)

    def _read(self) -> None:
        """Take what it writes.

        Raises:
            AssertionError: it told of an exception, or ended.
        """
        try:
            self._output = (self._output + self._terminal.read(0.02))[-200_000:]
        except BenchError as error:
            raise AssertionError(shown(self._output)) from error
        assert b"Traceback" not in self._output, shown(self._output)


def sample(pid: int, seconds: float) -> Sample:
    """What /proc tells of a process now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(seconds, int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), handles)


def verdict(samples: list[Sample]) -> str:
    """A line about the last part of the time beside the one that began when the first was over.

    Workers come and go, so the least threads and handles of a part are those that stay.

    Raises:
        AssertionError: it has grown.
    """
    size = max(1, len(samples) // PARTS)
    then, now = samples[size : 2 * size] or samples[:1], samples[-size:]
    was, has = (statistics.median(each.megabytes for each in part) for part in (then, now))
    said = f"{was:.1f} MB after a twelfth of the time, {has:.1f} MB at the end: {has / was - 1:+.1%}"
    assert has <= was * (1 + MOST_GROWTH), said
    for what in ("threads", "handles"):
        least = [min(getattr(each, what) for each in part) for part in (then, now)]
        assert least[0] == least[1], f"{least[0]} {what} became {least[1]}; {said}"
        said += f", {least[0]} {what}"
    return said


def long_life(home: Path, seconds: float, speed: float, options: list[str]) -> Iterator[str]:
    """A line for each sample, then the verdict.

    Raises:
        AssertionError: it has grown, or broke.
    """
    sampler = SamplerSettings(max_tokens=WORDS)
    (home / "settings.json").write_text(Settings(sampler=sampler, pace=min(MAX_PACE, PACE * speed)).to_json())
    train = ["train", "--preset", "tiny", "--mode", "stream", "--set", f"epochs={EPOCHS}", "--set", "threads=1"]
    samples = []
    with Terminal([*SESSION_COMMAND, *train, *options], 120, 40, home).opened() as terminal:
        for one in LongLife(terminal, speed).live(seconds):
            samples.append(one)
            yield str(one)
    yield verdict(samples)


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--speed", type=float, default=1)
    parser.add_argument("--set", action="append", default=[], help="a setting of the training, as `train` takes it")
    options = parser.parse_args()
    os.environ["LOTR_TUI_DEBUG"] = "1"
    changes = [part for change in options.set for part in ("--set", change)]
    with tempfile.TemporaryDirectory() as folder:
        for line in long_life(Path(folder), 60 * options.minutes, options.speed, changes):
            print(line, flush=True)


if __name__ == "__main__":
    main()
