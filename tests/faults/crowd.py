"""Sessions and trainers by the dozen in one home: keys, resizes, trainings that are stopped, killed and contended for.

    python -m tests.faults.crowd --sessions 8 --trainers 2 --minutes 10

At the end all are asked to leave, each in one of the ways there are. Each must, and what they leave must be whole.
The suite runs a short form of it.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.faults.players import LEAVING, Session
from tests.faults.residue import check_home, processes_of
from tests.faults.trainers import Trainer, ask_all_to_stop

LEAVE_SECONDS = 20.0
"""After which a process that was asked to end counts as hanging; a training saves before."""
BEAT_SECONDS = 0.02


class Crowd:
    """All who are at work in one home."""

    def __init__(self, home: Path, sessions: int, trainers: int, seed: int, stack: ExitStack) -> None:
        chance = random.Random(seed)
        self.home = home
        self.sessions = [Session(f"session-{n}", home, random.Random(chance.random()), stack) for n in range(sessions)]
        self.trainers = [Trainer(f"trained-{n}", home, random.Random(chance.random())) for n in range(trainers)]

    def work(self, seconds: float) -> None:
        """Let all of them do what they do.

        Raises:
            AssertionError: one of them ended, broke, or said what it should not.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for session in self.sessions:
                session.tick()
            for trainer in self.trainers:
                trainer.tick()
            time.sleep(BEAT_SECONDS)

    def leave(self) -> dict[str, float]:
        """Ask all to end, each session in another way; returns how long it took, the longest of each way.

        Raises:
            AssertionError: one did not, or left another process behind.
        """
        took: dict[str, float] = {}
        for trainer in self.trainers:
            trainer.end(LEAVE_SECONDS)
            took["trainer"] = max(took.get("trainer", 0.0), trainer.ended_after)
        for number, session in enumerate(self.sessions):
            session.leave(LEAVING[number % len(LEAVING)])
        asked = time.monotonic()
        left = set(self.sessions)
        while left:
            assert time.monotonic() < asked + LEAVE_SECONDS, f"they hang: {[each.said() for each in left]}"
            # What was begun in a session whose terminal is gone goes on: it is to be asked as any training is.
            ask_all_to_stop(self.home)
            for session in [each for each in left if each.has_left()]:
                left.remove(session)
                took[session.way] = max(took.get(session.way, 0.0), time.monotonic() - asked)
            time.sleep(BEAT_SECONDS)
        deadline = time.monotonic() + LEAVE_SECONDS
        while orphans := processes_of(self.home):
            assert time.monotonic() < deadline, f"left behind: {orphans}"
            time.sleep(0.1)
        return took


def crowd(home: Path, sessions: int, trainers: int, seconds: float, seed: int) -> Iterator[str]:
    """Let them work so long; says what came of it.

    Raises:
        AssertionError: something broke.
    """
    with ExitStack() as stack:
        together = Crowd(home, sessions, trainers, seed, stack)
        yield f"{sessions} sessions and {trainers} trainers in {home}"
        together.work(seconds)
        yield "done: " + ", ".join(f"{count} {what}" for what, count in together_did(together).items())
        for way, took in together.leave().items():
            yield f"asked to leave by {way}: ended within {took:.1f} s"
    yield f"whole: {check_home(home)}"


def together_did(crowd: Crowd) -> dict[str, int]:
    """How often each thing was done, by all of them."""
    counts: dict[str, int] = {}
    for member in [*crowd.sessions, *crowd.trainers]:
        for what, count in member.did.items():
            counts[what] = counts.get(what, 0) + count
    return dict(sorted(counts.items()))


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--trainers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["LOTR_TUI_DEBUG"] = "1"  # a traceback is shown where there is one
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # a session writes what it exports to where it was started
        for line in crowd(Path(folder), options.sessions, options.trainers, 60 * options.minutes, options.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
