"""Training without a screen that is stopped, killed, and resumed by two processes at once."""

import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from engine.control import ControlCommand
from engine.errors import LotrError
from engine.runs.control_files import send_command
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, is_locked
from tests.faults.train_command import LOTR_TUI, command_environment, resume_command, train_command, write_small_corpus

SETTINGS = {
    "embedding_size": 24,
    "hidden_size": 24,
    "epochs": 100_000,
    "threads": 1,
    "checkpoint_seconds": 0.5,
    "eval_every_steps": 50,
}
COMMAND_TIMEOUT = 60.0
"""Maximum seconds of a command that does not train, on a busy machine."""
REFUSALS = ("is being trained by", "is missing", "exists in", "is neither in", "cannot be", "is finished")
"""Parts of the messages for a run that another process trains, or that was renamed or deleted."""
EXPECTED_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class DisturbedTraining:
    """Endless training of one run, in processes that are stopped, signalled, killed and restarted."""

    def __init__(self, name: str, home: Path, rng: random.Random) -> None:
        """Prepare a training of the run `name` in `home`; the first call of `tick` starts it."""
        self.name = name
        self.action_counts: Counter[str] = Counter()
        self.stop_seconds = 0.0
        """Seconds that `stop` waited for the processes to end."""
        self._home = home
        self._run_dir = home / "runs" / name
        self._rng = rng
        self._corpus = write_small_corpus(home / "lines.csv")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._next_action_time = 0.0

    def tick(self) -> None:
        """Check the processes and, every few seconds, disturb the training.

        Raises:
            AssertionError: If a process failed.
        """
        for process in [process for process in self._processes if process.poll() is not None]:
            self._processes.remove(process)
            self._check_exit(process)
        if time.monotonic() < self._next_action_time:
            return
        self._next_action_time = time.monotonic() + self._rng.uniform(2, 8)
        if not self._processes:
            # If the run is renamed or deleted meanwhile, both processes refuse, and the next tick starts a new run.
            is_resume = (self._run_dir / CONFIG_FILE).exists()
            self._processes = [self._start() for _ in range(2 if is_resume else 1)]
            self.action_counts["resume twice" if is_resume else "start"] += 1
            return
        kind = self._rng.choice(
            ["stop", "SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGKILL", "second process", "checkpoint"]
        )
        self.action_counts[kind] += 1
        match kind:
            case "stop":
                self._run_command("stop", self.name)
            case "second process":
                self._processes.append(self._start(resume=True))
            case "checkpoint":
                with suppress(LotrError):  # the training has ended
                    send_command(self._run_dir, ControlCommand("checkpoint"))
            case _:
                for process in self._processes:
                    process.send_signal(signal.Signals[kind])

    def ensure_running(self) -> None:
        """Start or resume the training if it does not run, and wait until it has written metrics."""
        self._processes = [process for process in self._processes if process.poll() is None]
        if not self._processes:
            self._processes = [self._start()]
        deadline = time.monotonic() + COMMAND_TIMEOUT
        while not ((self._run_dir / METRICS_FILE).exists() and is_locked(self._run_dir)):
            assert time.monotonic() < deadline, f"{self.name} does not start"
            time.sleep(0.1)

    def stop(self, timeout: float) -> None:
        """Ask all processes to save and end.

        Raises:
            AssertionError: If a process failed.
            TimeoutExpired: If a process does not end within `timeout` seconds.
        """
        start_time = time.monotonic()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(max(0.1, start_time + timeout - time.monotonic()))
            self._check_exit(process)
        self.stop_seconds = time.monotonic() - start_time
        self._processes = []

    def _start(self, *, resume: bool = False) -> "subprocess.Popen[bytes]":
        """Start a process that trains the run, or resumes a run that exists."""
        if resume or (self._run_dir / CONFIG_FILE).exists():
            command = resume_command(self.name)
        else:
            command = train_command(self.name, self._corpus, SETTINGS)
        with self._output_file.open("ab") as output:
            return subprocess.Popen(
                [*command, "--no-tui"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=command_environment(self._home, debug=False),
            )

    def _run_command(self, *arguments: str) -> None:
        done = subprocess.run(
            [*LOTR_TUI, *arguments],
            env=command_environment(self._home, debug=False),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
        )
        assert done.returncode in (0, 1, 2), done

    @property
    def _output_file(self) -> Path:
        return self._home / f"{self.name}.txt"

    def _check_exit(self, process: "subprocess.Popen[bytes]") -> None:
        """Check that a process ended as one that was stopped, killed or refused.

        Raises:
            AssertionError: If the process ended in another way.
        """
        expected = (0, 2, 130, 143, *(-number for number in EXPECTED_SIGNALS))
        output = self._output_file.read_text(errors="replace")[-2000:]
        assert process.returncode in expected, f"{self.name} ended with {process.returncode}: {output}"
        assert process.returncode != 2 or any(message in output for message in REFUSALS), output
        # While the modules are imported, Python itself handles ctrl+c, with a traceback.
        assert output.count("Traceback") <= output.count("KeyboardInterrupt"), output


def stop_all_trainings(home: Path) -> None:
    """Ask every process that trains a run in `home` to save and stop."""
    for run_dir in (home / "runs").glob("*/"):
        if is_locked(run_dir):
            with suppress(LotrError):  # the training has ended meanwhile
                send_command(run_dir, ControlCommand("stop"))
