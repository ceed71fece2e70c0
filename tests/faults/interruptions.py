"""Trainings that are killed, or lose their terminal, at random moments, and must end bit for bit as undisturbed ones.

    python -m tests.faults interruptions --kills 200 --closes 20

Every second kill is aimed at the writing of a file: it comes a few milliseconds after a temporary file has appeared.
After each kill, the last saved model must load, and every printed event must be recorded.
"""

import argparse
import random
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from engine.runs.directory import CONFIG_FILE, METRICS_FILE, MODEL_FILE, lock_owner, summarize_run
from engine.runs.loading import load_model
from tests.faults.trainings import TIMEOUT, ReferenceTraining
from tests.support.terminal import Terminal, TerminalError

SLOWDOWN_PER_KILL = 1.05
"""Factor on the expected duration after each kill, so that a training reaches its end at last."""
MAX_WRITE_SECONDS = 0.002
"""Maximum seconds between the appearance of a temporary file and an aimed kill."""


class InterruptedTrainings(ReferenceTraining):
    def __init__(self, home, seed=0):
        super().__init__(home)
        self.rng = random.Random(seed)

    def kill(self, name):
        """Kill and resume a training at random moments until it reaches its end, and return the number of kills."""
        num_kills, run_dir, process = 0, self.run_dir(name), self.start(name)
        while True:
            has_ended = self._wait_for_random_moment(process, run_dir, aimed=self.rng.random() < 0.5)
            had_model = (run_dir / MODEL_FILE).exists()
            if has_ended:
                assert process.returncode == 0, self.output(name)
            else:
                process.kill()
                num_kills += process.wait() == -signal.SIGKILL  # otherwise the training ended just before
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
                return num_kills
            process = self.start(name, resume=is_created)

    def _wait_for_random_moment(self, process, run_dir, *, aimed):
        """Wait for a random time and, if `aimed`, until a file is being written. Return True if the training ended."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(0, self.duration))
        while aimed and process.poll() is None and not list(run_dir.glob(".*")):
            time.sleep(0.0002)
        time.sleep(self.rng.uniform(0, MAX_WRITE_SECONDS))
        return process.poll() is not None

    def close_terminal(self, name):
        """Close the terminal of a dashboard at a random moment. The training must reach its end without a terminal."""
        run_dir = self.run_dir(name)
        with Terminal(self.command(name), 80, 24, self.home).spawn() as terminal:
            while not (run_dir / METRICS_FILE).exists():  # before that, there is no training to continue
                terminal.read(0.02)
            close_time = time.monotonic() + self.rng.uniform(0, self.duration)
            with suppress(TerminalError):  # the program has ended
                while time.monotonic() < close_time and lock_owner(run_dir):
                    terminal.read(0.02)
            terminal.hang_up()
            terminal.read_until_exit(TIMEOUT)
        assert terminal.exit_status == 0, f"{name} ended with {terminal.exit_status}"
        self.check_equals_reference(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="minimum number of kills")
    parser.add_argument("--closes", type=int, default=20, help="number of closed terminals")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        trainings, num_kills, names = InterruptedTrainings(Path(folder), options.seed), 0, map(str, count())
        while num_kills < options.kills:
            num_kills += trainings.kill(f"killed-{next(names)}")
            print(f"{num_kills} kills: same bits", flush=True)
        for number in range(options.closes):
            trainings.close_terminal(f"closed-{number}")
            print(f"{number + 1} closed terminals: same bits", flush=True)


if __name__ == "__main__":
    main()
