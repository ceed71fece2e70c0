"""Trainings killed, or left without a terminal, at random moments; each must end with the bits of an undisturbed one.

    python -m tests.faults.interruptions --kills 50 --closes 20

The suite runs a short form of it.
"""

import argparse
import json
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from engine.files import assets_folder
from engine.record import current_rows
from engine.runs import CONFIG, METRICS, MODEL, is_written, summarize

SETTINGS = {
    "embedding_size": 24,
    "hidden_size": 24,
    "epochs": 6,
    "threads": 1,
    "averaging": "ema",
    "checkpoint_seconds": 0.1,
    "evaluate_updates": 7,
}
LINES = 300
"""Of the bundled dialogues: most of the time is that of starting."""
SECONDS = 120.0
"""After which a training counts as hanging."""


class Interrupted:
    """Trains in a folder of runs, and interrupts."""

    def __init__(self, home: Path, seed: int = 0) -> None:
        """Train undisturbed, to know the end, and again, to know how long it takes: the first has files to find."""
        self.home = home
        self.corpus = home / "lines.csv"
        lines = (assets_folder() / "dialogues.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        self.corpus.write_text("".join(lines[:LINES]), encoding="utf-8")
        self.chance = random.Random(seed)
        self._wait(self._start("whole"))
        self.whole = self._result("whole")
        started = time.monotonic()
        self._wait(self._start("again"))
        self.seconds = time.monotonic() - started
        self._compare("again")

    def kill(self, name: str) -> int:
        """Kill a training at random moments until it gets to its end; returns how often it was killed.

        Raises:
            AssertionError: it did not end as the undisturbed one.
        """
        kills, process = 0, self._start(name)
        while True:
            try:
                process.wait(self.chance.uniform(0, self.seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
            else:
                assert process.returncode == 0, (self.home / f"{name}.txt").read_text()
            path = self.home / "runs" / name
            begun = (path / CONFIG).exists()
            if begun and summarize(path).state == "finished":  # it may have been killed after its end
                self._compare(name)
                return kills
            process = self._start(name, resume=begun)

    def close_terminal(self, name: str) -> None:
        """Close the terminal of a dashboard at a random moment; the training must get to its end by itself.

        Raises:
            AssertionError: it did not.
        """
        process, terminal = pty.fork()
        if process == 0:
            os.execve(sys.executable, self._command(name), self._environment() | {"TERM": "xterm-256color"})
        path = self.home / "runs" / name
        while not (path / METRICS).exists():  # before that there is nothing to outlive
            _discard(terminal, 0.02)
        deadline = time.monotonic() + self.chance.uniform(0, self.seconds)
        while time.monotonic() < deadline and os.waitpid(process, os.WNOHANG) == (0, 0) and is_written(path):
            _discard(terminal, 0.02)
        os.close(terminal)
        self._wait_for_pid(process)
        self._compare(name)

    def _compare(self, name: str) -> None:
        model, rows = self._result(name)
        assert rows == self.whole[1], f"{name}: other evaluations than undisturbed"
        assert model == self.whole[0], f"{name}: other weights than undisturbed"
        left = [item.name for item in (self.home / "runs" / name).rglob(".*")]
        assert not left, f"{name}: {left} are left behind"

    def _result(self, name: str) -> tuple[bytes, list[tuple[int, float]]]:
        path = self.home / "runs" / name
        rows = current_rows(path / METRICS)
        assert rows[-1]["event"] == "finished", rows[-1]
        assert rows[-1]["reason"] == "done", rows[-1]
        evaluated = [(row["step"], row["valid_perplexity"]) for row in rows if row["event"] == "evaluated"]
        return (path / MODEL).read_bytes(), evaluated

    def _command(self, name: str, *, resume: bool = False) -> list[str]:
        command = [sys.executable, "-m", "lotr_tui", "train"]
        if resume:
            return [*command, "--resume", name]
        changes = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
        return [*command, "--preset", "tiny", "--csv", str(self.corpus), "--run", name, *changes]

    def _start(self, name: str, *, resume: bool = False) -> "subprocess.Popen[bytes]":
        with (self.home / f"{name}.txt").open("ab") as output:
            command = [*self._command(name, resume=resume), "--no-tui"]
            return subprocess.Popen(command, stdout=output, stderr=output, env=self._environment())

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "LOTR_TUI_HOME": str(self.home), "LOTR_TUI_DEBUG": "1"}

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.wait(SECONDS) == 0, "the undisturbed training failed"

    def _wait_for_pid(self, process: int) -> None:
        deadline = time.monotonic() + SECONDS
        with suppress(ChildProcessError):  # it has ended, and was waited for
            while os.waitpid(process, os.WNOHANG) == (0, 0):
                assert time.monotonic() < deadline, "it goes on for ever"
                time.sleep(0.05)


def _discard(terminal: int, seconds: float) -> None:
    """Read what a terminal would show."""
    import select

    if select.select([terminal], [], [], seconds)[0]:
        with suppress(OSError):
            os.read(terminal, 1 << 16)


def trials(kills: int, closes: int, home: Path, seed: int) -> Iterator[str]:
    """As many of both; says what came of each."""
    interrupted = Interrupted(home, seed)
    yield f"undisturbed: {interrupted.seconds:.1f} s, {len(interrupted.whole[1])} evaluations"
    done = 0
    for run in count():
        if done >= kills:
            break
        number = interrupted.kill(f"killed-{run}")
        done += number
        yield f"killed {number} times, then the same bits ({done} of {kills})"
    for number in range(closes):
        interrupted.close_terminal(f"closed-{number}")
        yield f"terminal closed, then the same bits ({number + 1} of {closes})"


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--closes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        for line in trials(options.kills, options.closes, Path(folder), options.seed):
            print(line, flush=True)
    print(json.dumps({"kills": options.kills, "closes": options.closes, "all": "same bits"}))


if __name__ == "__main__":
    main()
