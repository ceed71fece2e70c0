"""Trainings that are killed, or lose their terminal, at random moments, and must end bit for bit as undisturbed ones.

    python -m tests.faults.interruptions --kills 200 --closes 20

Every second kill is aimed at the writing of a file: it comes a few milliseconds after a temporary file has appeared.
After each kill, the last saved model must load, and every printed event must be recorded. The test suite runs a short
form.
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

from engine.runs.directory import CONFIG_FILE, METRICS_FILE, MODEL_FILE, is_locked
from engine.runs.loading import load_model
from engine.runs.summary import summarize_run
from tests.faults.reference_training import TIMEOUT, ReferenceTraining
from tests.support.terminal import Terminal, TerminalError

SLOWDOWN_PER_KILL = 1.05
"""Factor on the expected duration after each kill, so that a training reaches its end at last."""
MAX_WRITE_SECONDS = 0.002
"""Maximum seconds between the appearance of a temporary file and an aimed kill."""
RESUMED_FROM_PREVIOUS = "resuming from the previous checkpoint"
"""Part of the warning that the last checkpoint is damaged or missing."""


@dataclass(frozen=True)
class KillCounts:
    """Number of kills, by the state in which they left the run."""

    kills: int = 0
    while_writing: int = 0
    """Kills that left a temporary file behind."""
    from_previous: int = 0
    """Resumes from the checkpoint before the last one."""

    def __add__(self, other: "KillCounts") -> "KillCounts":
        return KillCounts(
            self.kills + other.kills,
            self.while_writing + other.while_writing,
            self.from_previous + other.from_previous,
        )

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.while_writing} while a file was written, "
            f"{self.from_previous} resumes from the previous checkpoint"
        )


class InterruptedTrainings(ReferenceTraining):
    """Trainings that are interrupted, and compared with the reference."""

    def __init__(self, home: Path, seed: int = 0) -> None:
        """Train the reference. Its duration is corrected later, since it depends on the load of the machine."""
        super().__init__(home, home)
        self.rng = random.Random(seed)

    def kill(self, name: str) -> KillCounts:
        """Kill and resume a training at random moments until it reaches its end.

        Raises:
            AssertionError: If a kill has damaged the model or lost events, or the result differs from the reference.
        """
        counts, start_time = KillCounts(), time.monotonic()
        process, run_dir = self.start(name), self.run_dir(name)
        while True:
            has_ended = self._wait_for_random_moment(process, run_dir, aimed=self.rng.random() < 0.5)
            had_model = (run_dir / MODEL_FILE).exists()
            if has_ended:
                assert process.returncode == 0, self.output(name)
                if not counts.kills:
                    self.duration = time.monotonic() - start_time
            else:
                process.kill()
                if process.wait() == -signal.SIGKILL:  # otherwise the training ended just before
                    counts += KillCounts(1, int(bool(_temporary_files(run_dir))))
                    self.duration *= SLOWDOWN_PER_KILL
            is_created = (run_dir / CONFIG_FILE).exists()
            if had_model:
                load_model(run_dir)
            if is_created:
                self.check_no_event_is_lost(name)
            if is_created and summarize_run(run_dir).state == "finished":
                if not has_ended:
                    # A training removes its checkpoints between the last row and its exit; a kill may leave them.
                    for checkpoint in run_dir.glob("resume*"):
                        checkpoint.unlink()
                self.check_equals_reference(name)
                return counts + KillCounts(from_previous=self.output(name).count(RESUMED_FROM_PREVIOUS))
            process = self.start(name, resume=is_created)

    def _wait_for_random_moment(self, process: "subprocess.Popen[bytes]", run_dir: Path, *, aimed: bool) -> bool:
        """Wait for a random time and, if `aimed`, until a file is being written. Return True if the training ended."""
        try:
            process.wait(self.rng.uniform(0, self.duration))
        except subprocess.TimeoutExpired:
            while aimed and process.poll() is None and not _temporary_files(run_dir):
                time.sleep(0.0002)
            if aimed:
                time.sleep(self.rng.uniform(0, MAX_WRITE_SECONDS))
            return process.poll() is not None
        return True

    def close_terminal(self, name: str) -> None:
        """Close the terminal of a dashboard at a random moment. The training must reach its end without a terminal.

        Raises:
            AssertionError: If the training hangs or fails, or the result differs from the reference.
        """
        run_dir = self.run_dir(name)
        with Terminal(self.command(name), 80, 24, self.home).spawn() as terminal:
            while not (run_dir / METRICS_FILE).exists():  # before that, there is no training to continue
                terminal.read(0.02)
            close_time = time.monotonic() + self.rng.uniform(0, self.duration)
            with suppress(TerminalError):  # the program has ended
                while time.monotonic() < close_time and is_locked(run_dir):
                    terminal.read(0.02)
            terminal.hang_up()
            deadline = time.monotonic() + TIMEOUT
            while not terminal.has_exited():
                assert time.monotonic() < deadline, f"{name} does not end after its terminal was closed"
                time.sleep(0.05)
        assert terminal.exit_status == 0, f"{name} ended with {terminal.exit_status}"
        self.check_equals_reference(name)


def _temporary_files(run_dir: Path) -> list[Path]:
    try:
        return [item for item in run_dir.iterdir() if item.name.startswith(".")]
    except FileNotFoundError:
        return []


def run_trials(kills: int, closes: int, home: Path, seed: int) -> Iterator[str]:
    """Kill trainings and close terminals that many times, and yield a line for each training.

    Raises:
        AssertionError: If a training did not end as it should.
    """
    trainings = InterruptedTrainings(home, seed)
    yield f"undisturbed: {trainings.duration:.1f} s, {len(trainings.evaluations)} evaluations"
    total = KillCounts()
    for number in count():
        if total.kills >= kills:
            break
        counts = trainings.kill(f"killed-{number}")
        total += counts
        yield f"{counts}; same bits (in all: {total})"
    for number in range(closes):
        trainings.close_terminal(f"closed-{number}")
        yield f"terminal closed; same bits ({number + 1} of {closes})"


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="minimum number of kills")
    parser.add_argument("--closes", type=int, default=20, help="number of closed terminals")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        for line in run_trials(options.kills, options.closes, Path(folder), options.seed):
            print(line, flush=True)
    print(json.dumps({"kills": options.kills, "closes": options.closes, "all": "same bits"}))


if __name__ == "__main__":
    main()
