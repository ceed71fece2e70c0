"""Trainings killed, or left without a terminal, at random moments; each must end with the bits of an undisturbed one.

    python -m tests.faults.interruptions --kills 200 --closes 20

Every second kill is aimed at the writing of a file: it comes a few milliseconds after a temporary file has appeared.
After each kill the model that was there is still there and loads, and every row that was told is in the record.
The suite runs a short form of it.
"""

import argparse
import json
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from engine.runs.store import CONFIG, METRICS, MODEL, is_written, load, summarize
from lotr_tui.bench.terminal import BenchError, Terminal
from tests.faults.trainings import SECONDS, Trainings

LONGER = 1.05
"""By this factor it is thought to take longer after each kill, so that one gets to its end at last."""
WRITING_SECONDS = 0.002
"""After a temporary file has appeared, a kill comes within this time."""


@dataclass
class Kills:
    """How often a training was killed, and in which state the kills left it."""

    number: int = 0
    while_writing: int = 0
    """Those that left a temporary file, so that something was being written."""
    from_previous: int = 0
    """Trainings that went on from the saving before."""


class Interrupted(Trainings):
    """Trains in a folder of runs, and interrupts."""

    def __init__(self, home: Path, seed: int = 0) -> None:
        """Train undisturbed, to know the end, and again, to know how long it takes: the first has files to find."""
        super().__init__(home, home)
        self.chance = random.Random(seed)
        self.seconds = self.finish("again")
        """That one takes just now: it depends on what else the machine does."""
        self.compare("again")

    def kill(self, name: str) -> Kills:
        """Kill a training at random moments until it gets to its end.

        Raises:
            AssertionError: a kill has cost the model or rows, or it did not end as the undisturbed one.
        """
        kills, began = Kills(), time.monotonic()
        process, path = self.start(name), self.path(name)
        while True:
            aimed = self.chance.random() < 0.5
            has_ended = self._ends_before(process, path, aimed=aimed)
            had_model = (path / MODEL).exists()
            if has_ended:
                assert process.returncode == 0, self.printed(name)
                if not kills.number:
                    self.seconds = time.monotonic() - began
            else:
                process.kill()
                if process.wait() == -signal.SIGKILL:  # else it came to its end just before
                    kills.number += 1
                    self.seconds *= LONGER
                    kills.while_writing += bool(_unfinished(path))
            begun = (path / CONFIG).exists()
            if had_model:
                load(path)
            if begun:
                self.check_nothing_is_lost(name)
            if begun and summarize(path).state == "finished":  # it may have been killed after its end
                kills.from_previous = self.printed(name).count("goes on from the saving before")
                if has_ended:
                    self.compare(name)
                    return kills
                self._compare_killed_at_its_end(name)
                return kills
            process = self.start(name, resume=begun)

    def _ends_before(self, process: "subprocess.Popen[bytes]", path: Path, *, aimed: bool) -> bool:
        """Wait for a random time and, for an aimed kill, until something is written; whether the training has ended."""
        try:
            process.wait(self.chance.uniform(0, self.seconds))
        except subprocess.TimeoutExpired:
            while aimed and process.poll() is None and not _unfinished(path):
                time.sleep(0.0002)
            if aimed:
                time.sleep(self.chance.uniform(0, WRITING_SECONDS))
            return process.poll() is not None
        return True

    def _compare_killed_at_its_end(self, name: str) -> None:
        """Between its last row and its exit a training removes what a resume needs: a kill may leave that."""
        for left in self.path(name).glob("resume*"):
            left.unlink()
        self.compare(name)

    def close_terminal(self, name: str) -> None:
        """Close the terminal of a dashboard at a random moment; the training must get to its end by itself.

        Raises:
            AssertionError: it did not.
        """
        path = self.path(name)
        with Terminal(self.command(name), 80, 24, self.home).opened() as terminal:
            while not (path / METRICS).exists():  # before that there is nothing to outlive
                terminal.read(0.02)
            deadline = time.monotonic() + self.chance.uniform(0, self.seconds)
            with suppress(BenchError):  # it has ended
                while time.monotonic() < deadline and is_written(path):
                    terminal.read(0.02)
            terminal.hang_up()
            deadline = time.monotonic() + SECONDS
            while not terminal.ended():
                assert time.monotonic() < deadline, "it goes on for ever"
                time.sleep(0.05)
        assert terminal.status == 0, f"{name} ended with {terminal.status}"
        self.compare(name)


def _unfinished(path: Path) -> list[Path]:
    """The temporary files in a run directory."""
    try:
        return [item for item in path.iterdir() if item.name.startswith(".")]
    except FileNotFoundError:
        return []


def trials(kills: int, closes: int, home: Path, seed: int) -> Iterator[str]:
    """As many of both; says what came of each."""
    interrupted = Interrupted(home, seed)
    yield f"undisturbed: {interrupted.seconds:.1f} s, {len(interrupted.whole[1])} evaluations"
    done = Kills()
    for run in count():
        if done.number >= kills:
            break
        its = interrupted.kill(f"killed-{run}")
        done = Kills(
            done.number + its.number,
            done.while_writing + its.while_writing,
            done.from_previous + its.from_previous,
        )
        yield (
            f"killed {its.number} times, {its.while_writing} while a file was written, {its.from_previous} times from "
            f"the saving before; then the same bits ({done.number}, {done.while_writing}, {done.from_previous})"
        )
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
