"""`lotr-tui attach` to a run of a million reports, in a pseudo-terminal of 160x45.

    python -m tests.faults.attach_million [REPORTS]

prints when something is on the screen, when the whole curve is, how long the event loop was held up at most, and the
peak of memory, beside what each may be.
"""

import asyncio
import fcntl
import json
import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

from engine.config import Config
from engine.events import Evaluated, Finished, Sampled, Started, Step, to_record
from lotr_tui.attach import AttachApp

BEAT_SECONDS = 0.002
LIMIT_SECONDS = 60.0
LIMITS = {"first paint, s": 0.8, "whole curve, s": 5.0, "longest block, ms": 100.0, "peak memory, MB": 300.0}


def _peak_megabytes() -> float:
    """Of this process since it began; `getrusage` would count what the one it was forked from had in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def write_run(path: Path, reports: int) -> None:
    """A run as a training leaves it: so many reports, an evaluation and a sample every thousandth of them."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(Config("tiny").to_json())
    every = max(1, reports // 1000)
    with (path / "metrics.jsonl").open("w") as metrics, (path / "samples.jsonl").open("w") as samples:
        started = Started("big", "tiny", 752_239, 879, 19_022, 2_227, 1000, "cpu", "", 150.9, 90.8)
        metrics.write(json.dumps(to_record(started)) + "\n")
        for number in range(1, reports + 1):
            share = number / reports
            step = Step(
                step=number,
                epoch=1000 * share,
                train_perplexity=60 + 90 * (1 - share) ** 2 + number * 7919 % 1009 / 100,
                lr=0.006 * (1 - share),
                gradient_norm=0.2 + number * 31 % 97 / 1000,
                tokens_per_second=9000 + number % 997 / 7,
                seconds=number * 0.0371,
                eta_seconds=(reports - number) * 0.0371,
            )
            metrics.write(json.dumps(to_record(step)) + "\n")
            if number % every == 0:
                valid = 70 + 80 * (1 - share) ** 2
                evaluated = Evaluated(number, 1000 * share, valid, True, number * 0.0371)
                metrics.write(json.dumps(to_record(evaluated)) + "\n")
                sampled = Sampled(number, 1000 * share, "bilbo baggins is", "a friend of mine", 0, 0.7)
                samples.write(json.dumps(to_record(sampled)) + "\n")
        finished = Finished("done", "big", 1000.0, 70.0, 72.0, reports * 0.0371)
        metrics.write(json.dumps(to_record(finished)) + "\n")


class Probed(AttachApp):
    """Attached, noting how it goes; leaves once the whole curve is drawn and a second has passed."""

    def __init__(self, path: Path, reports: int, begun: float, figures: Path) -> None:
        super().__init__(path)
        self._reports = reports
        self._begun = begun
        self._figures = figures
        self._longest = 0.0

    def on_ready(self) -> None:
        self._beating = asyncio.create_task(self._beat())
        self.set_interval(0.05, self._look)

    async def _beat(self) -> None:
        """How late the event loop is at most."""
        while True:
            due = time.perf_counter() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._longest = max(self._longest, time.perf_counter() - due)

    def _look(self) -> None:
        if len(self.training.steps) >= self._reports and self.training.finished and not self._figures.exists():
            self._figures.touch()
            self.set_timer(0.6, self._drawn)  # by then the screen was told

    def _drawn(self) -> None:
        self.call_after_refresh(self._note)

    def _note(self) -> None:
        figures = {
            "whole curve, s": time.time() - self._begun,
            "longest block, ms": 1000 * self._longest,
            "peak memory, MB": _peak_megabytes(),
        }
        self._figures.write_text(json.dumps(figures))
        self.exit()


def measure(path: Path, reports: int) -> dict[str, float]:
    """Attach in a process and terminal of its own.

    Raises:
        TimeoutError: the whole curve was not there after a minute.
    """
    figures = path.parent / "figures.json"
    figures.unlink(missing_ok=True)
    begun = time.time()
    child, file = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS="160", LINES="45")
        arguments = ["attach", str(path), str(reports), str(begun), str(figures)]
        os.execv(sys.executable, [sys.executable, "-m", "tests.faults.attach_million", *arguments])
    fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 160, 0, 0))
    first_paint, seen = 0.0, b""
    try:
        while not (figures.exists() and figures.stat().st_size):
            if time.time() - begun > LIMIT_SECONDS:
                raise TimeoutError(seen.decode(errors="replace")[-2000:])
            if select.select([file], [], [], 0.01)[0]:
                try:
                    read = os.read(file, 1 << 16)
                except OSError:  # it has left
                    break
                seen = (seen + read)[-100_000:]
                if not first_paint and b"lotr-tui" in seen and b"quit" in seen:  # from the first line to the footer
                    first_paint = time.time() - begun
    finally:
        os.close(file)
        os.waitpid(child, 0)
    return {"first paint, s": first_paint, **json.loads(figures.read_text())}


def main() -> None:
    reports = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs" / "big"
        os.environ["LOTR_TUI_HOME"] = folder
        write_run(path, reports)
        size = (path / "metrics.jsonl").stat().st_size
        print(f"{reports:,} reports, {size / 1e6:,.0f} MB")
        for name, value in measure(path, reports).items():
            print(f"{value:10.2f}  {name} (at most {LIMITS[name]:g})", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["attach"]:
        _, _, path, reports, begun, figures = sys.argv
        Probed(Path(path), int(reports), float(begun), Path(figures)).run()
    else:
        main()
