"""Trainings without a screen that are stopped, ended, killed, and gone on with by two processes at once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.control import Command
from engine.errors import LotrError
from engine.runs.control_files import ask
from engine.runs.store import CONFIG, METRICS, is_written
from engine.storage.files import assets_folder

LINES = 300
"""Of the bundled dialogues, so that much happens in a short time."""
SETTINGS = {
    "embedding_size": 24,
    "hidden_size": 24,
    "epochs": 100_000,
    "threads": 1,
    "checkpoint_seconds": 0.5,
    "evaluate_updates": 50,
}
ONE_LINE_SECONDS = 60.0
"""No plain command takes longer, on the busiest machine."""

REFUSALS = ("is being trained by", "is missing", "exists in", "is neither in", "cannot be", "nothing is left")
"""Of a run that another one has, or that was renamed or deleted meanwhile."""

Process = subprocess.Popen[bytes]


class Trainer:
    """Who trains one run for ever, and is disturbed at it."""

    def __init__(self, name: str, home: Path, chance: random.Random) -> None:
        self.name = name
        self.did: Counter[str] = Counter()
        self.ended_after = 0.0
        """Seconds from being asked to end until it did, at the end."""
        self._home = home
        self._path = home / "runs" / name
        self._chance = chance
        self._corpus = home / "lines.csv"
        lines = (assets_folder() / "dialogues.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        self._corpus.write_text("".join(lines[:LINES]), encoding="utf-8")
        self._processes: list[Process] = []
        self._due = 0.0

    def tick(self) -> None:
        """Do to it what is due.

        Raises:
            AssertionError: two train one run, or one of them broke.
        """
        for process in [each for each in self._processes if each.poll() is not None]:
            self._processes.remove(process)
            self._check(process)
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._chance.uniform(2, 8)
        if not self._processes:
            # Where the run was renamed or deleted meanwhile, both refuse, and the next time it begins anew.
            again = (self._path / CONFIG).exists()
            count = 2 if again else 1
            self._processes = [self._start("--resume" if again else "--run") for _ in range(count)]
            self.did["two resume at once" if again else "begun"] += 1
            return
        kind = self._chance.choice(["stop", "SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGKILL", "another", "ask"])
        self.did[kind] += 1
        match kind:
            case "stop":
                self._plain("stop", self.name)
            case "another":
                self._processes.append(self._start("--resume"))
            case "ask":
                with suppress(LotrError):
                    ask(self._path, Command("checkpoint"))
            case _:
                for process in self._processes:
                    process.send_signal(signal.Signals[kind])

    def keep_going(self) -> None:
        """See that it goes on, and has a record."""
        self._processes = [each for each in self._processes if each.poll() is None]
        if not self._processes:
            self._processes = [self._start("--resume" if (self._path / CONFIG).exists() else "--run")]
        deadline = time.monotonic() + ONE_LINE_SECONDS
        while not ((self._path / METRICS).exists() and is_written(self._path)):
            assert time.monotonic() < deadline, f"{self.name} does not begin"
            time.sleep(0.1)

    def end(self, seconds: float) -> None:
        """Ask it to save and end.

        Raises:
            AssertionError: it does not, in time.
        """
        asked = time.monotonic()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(max(0.1, asked + seconds - time.monotonic()))
            self._check(process)
        self.ended_after = time.monotonic() - asked
        self._processes = []

    def _start(self, option: str) -> Process:
        command = [sys.executable, "-m", "lotr_tui", "train", "--no-tui", option, self.name]
        if option == "--run":
            changes = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
            command += ["--preset", "tiny", "--csv", str(self._corpus), *changes]
        with (self._home / f"{self.name}.txt").open("ab") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._env())

    def _plain(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "lotr_tui", *arguments]
        done = subprocess.run(command, env=self._env(), capture_output=True, text=True, timeout=ONE_LINE_SECONDS)
        assert done.returncode in (0, 1, 2), (command, done)

    def _env(self) -> dict[str, str]:
        # Here an error is expected, as of a run that another process trains: it is one line.
        return {**os.environ, "LOTR_TUI_HOME": str(self._home), "LOTR_TUI_DEBUG": "0"}

    def _check(self, process: Process) -> None:
        """It ended as one can that was asked, killed or refused."""
        expected = (0, 2, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGUSR1, -signal.SIGHUP)
        said = (self._home / f"{self.name}.txt").read_text(errors="replace")[-2000:]
        assert process.returncode in expected, f"{self.name} ended with {process.returncode}: {said}"
        assert process.returncode != 2 or any(words in said for words in REFUSALS), said
        # Where its modules are being imported, nothing hears ctrl+c but Python itself, which says so.
        assert said.count("Traceback") <= said.count("KeyboardInterrupt"), said


def ask_all_to_stop(home: Path) -> None:
    """Ask whoever trains a run of this home to save and stop."""
    runs: Sequence[Path] = list((home / "runs").glob("*/"))
    for run in runs:
        if is_written(run):
            with suppress(LotrError):  # it has ended in the meantime
                ask(run, Command("stop"))
