"""Many sessions and trainings in one home: keys, resizes, and trainings that are stopped, killed and resumed.

    python -m tests.faults.crowd --sessions 8 --trainings 2 --minutes 10

At the end, all programs are asked to end, each session in another way. All must end, and leave only valid files. The
test suite runs a short form.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.faults.disturbed_training import DisturbedTraining, stop_all_trainings
from tests.faults.leftovers import check_home, processes_of
from tests.faults.session_user import EXIT_METHODS, SessionUser

EXIT_TIMEOUT = 20.0
"""Seconds after which a program that was asked to end counts as hanging. A training saves before it ends."""
TICK_SECONDS = 0.02


class Crowd:
    """Session users and disturbed trainings that share one home."""

    def __init__(self, home: Path, sessions: int, trainings: int, seed: int, stack: ExitStack) -> None:
        rng = random.Random(seed)
        self.home = home
        self.users = [SessionUser(f"session-{n}", home, random.Random(rng.random()), stack) for n in range(sessions)]
        self.trainings = [
            DisturbedTraining(f"trained-{n}", home, random.Random(rng.random())) for n in range(trainings)
        ]
        self.members: list[SessionUser | DisturbedTraining] = [*self.users, *self.trainings]

    def run(self, seconds: float) -> None:
        """Perform random actions for `seconds`.

        Raises:
            AssertionError: If a program ends or shows a traceback.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for member in self.members:
                member.tick()
            time.sleep(TICK_SECONDS)

    def action_counts(self) -> dict[str, int]:
        """Return how often each action was performed, by all members together."""
        counts = Counter[str]()
        for member in self.members:
            counts.update(member.action_counts)
        return dict(sorted(counts.items()))

    def exit(self) -> dict[str, float]:
        """End all programs, and return the seconds that this took at most, by exit method.

        Raises:
            AssertionError: If a program does not end, or leaves a process behind.
        """
        seconds: dict[str, float] = {}
        for training in self.trainings:
            training.stop(EXIT_TIMEOUT)
            seconds["training"] = max(seconds.get("training", 0.0), training.stop_seconds)
        for number, user in enumerate(self.users):
            user.exit(EXIT_METHODS[number % len(EXIT_METHODS)])
        start_time = time.monotonic()
        active = set(self.users)
        while active:
            is_late = time.monotonic() > start_time + EXIT_TIMEOUT
            assert not is_late, f"these sessions hang: {[user.describe() for user in active]}"
            stop_all_trainings(self.home)  # trainings of sessions whose terminal was closed continue without it
            for user in [user for user in active if user.has_exited()]:
                active.remove(user)
                elapsed = time.monotonic() - start_time
                seconds[user.exit_method] = max(seconds.get(user.exit_method, 0.0), elapsed)
            time.sleep(TICK_SECONDS)
        deadline = time.monotonic() + EXIT_TIMEOUT
        while orphans := processes_of(self.home):
            assert time.monotonic() < deadline, f"processes left behind: {orphans}"
            time.sleep(0.1)
        return seconds


def run_crowd(home: Path, sessions: int, trainings: int, seconds: float, seed: int) -> Iterator[str]:
    """Run sessions and trainings for `seconds`, end them, check their files, and yield lines about the results.

    Raises:
        AssertionError: If a program fails, or a file is damaged.
    """
    with ExitStack() as stack:
        crowd = Crowd(home, sessions, trainings, seed, stack)
        yield f"{sessions} sessions and {trainings} trainings in {home}"
        crowd.run(seconds)
        yield "actions: " + ", ".join(f"{count} {action}" for action, count in crowd.action_counts().items())
        for method, elapsed in crowd.exit().items():
            yield f"asked to end by {method}: ended within {elapsed:.1f} s"
    yield f"all files are valid: {check_home(home)}"


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--trainings", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["LOTR_TUI_DEBUG"] = "1"  # shows tracebacks
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # sessions write their exports to the working directory
        for line in run_crowd(Path(folder), options.sessions, options.trainings, 60 * options.minutes, options.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
