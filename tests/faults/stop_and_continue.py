"""Programs that are stopped and continued at random moments, and must then quit at once and restore the terminal.

    python -m tests.faults.stop_and_continue --trials 40

The programs are the session, the dashboard of `train` and the dashboard of `attach`. Each is stopped with SIGSTOP, as
by a debugger or a container, with SIGTSTP, as by a shell, or gets SIGTERM followed by SIGCONT, as from systemd. In half
of the trials, the modes of the terminal change while the program is stopped, as a shell with job control changes them.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.disturbed_training import stop_all_trainings
from tests.support.terminal import SESSION_COMMAND, Terminal, TerminalError

RUN = "finished-run"
TRAIN = ["train", "--preset", "tiny", "--set", "threads=1", "--set", "epochs={epochs}"]
PROGRAMS = {"session": list[str](), "train": [part.format(epochs=100_000) for part in TRAIN], "attach": ["attach", RUN]}
QUIT_KEYS = {"session": b"\x11", "train": b"\x11s", "attach": b"\x11"}
"""ctrl+q, and in the dashboard of a training the answer to its question: stop."""
READY_TEXT = "f1"
"""Text of the footer, which every program paints last."""
MAX_QUIT_SECONDS = 2.0
EXIT_TIMEOUT = 20.0
"""Seconds after which a program counts as hanging, and is killed."""


@dataclass
class Outcome:
    """Result of one trial."""

    seconds: float
    """Seconds from the request to quit to the exit."""
    problems: list[str]
    """Everything that was wrong, in a few words each."""


class StoppedProgram:
    """Program in a terminal, whose output is recorded and which is stopped and continued."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.output = b""

    def read(self, seconds: float) -> None:
        """Read the output for `seconds`, or until the program has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._terminal.has_exited():
            try:
                self.output += self._terminal.read(min(left, 0.02))
            except TerminalError:  # the program has ended
                time.sleep(0.01)

    def read_until(self, condition: Callable[[], bool]) -> bool:
        """Read until `condition` holds or the program has ended. Return True if the condition holds."""
        deadline = time.monotonic() + EXIT_TIMEOUT
        while not condition() and not self._terminal.has_exited() and time.monotonic() < deadline:
            self.read(0.02)
        return condition()

    def stop(self, number: signal.Signals) -> bool:
        """Send a signal that stops the program. Return True once it is stopped."""
        os.kill(self._terminal.pid, number)
        return self.read_until(lambda: b"State:\tT" in Path(f"/proc/{self._terminal.pid}/status").read_bytes())

    def press(self, keys: bytes) -> None:
        """Press keys, one after the other, unless the program has ended."""
        for key in keys:
            with suppress(TerminalError):
                self._terminal.write(bytes([key]))
            self.read(0.2)

    def is_repainted(self, start: int) -> bool:
        """Return True if the footer was painted after the first `start` bytes of the output."""
        return READY_TEXT.encode() in self.output[start:]

    def shows_alternate_screen(self) -> bool:
        """Return True if the terminal shows the alternate screen of a full-screen program."""
        return self.output.rfind(b"\x1b[?1049h") > self.output.rfind(b"\x1b[?1049l")


def stop_and_continue(
    name: str, home: Path, number: signal.Signals, rng: random.Random, *, with_shell: bool
) -> Outcome:
    """Stop a program at a random moment, continue it and quit. With `with_shell`, the modes change meanwhile."""
    problems = []
    with Terminal([*SESSION_COMMAND, *PROGRAMS[name]], 80, 24, home).spawn() as terminal:
        program, shell_modes = StoppedProgram(terminal), terminal.modes()
        program.read_until(lambda: program.is_repainted(0))
        program.read(rng.uniform(0, 1))
        if not program.stop(number):
            problems.append("did not stop")
        program.read(0.1)
        if number == signal.SIGTSTP:
            if terminal.modes() != shell_modes:
                problems.append("modes not restored while suspended")
            if program.shows_alternate_screen():
                problems.append("alternate screen left while suspended")
        program_modes = terminal.modes()
        if with_shell:
            terminal.set_modes(shell_modes)
        num_bytes = len(program.output)
        os.kill(terminal.pid, signal.SIGCONT)
        if rng.random() < 0.5:  # otherwise, the keys follow at once
            if not program.read_until(lambda: program.is_repainted(num_bytes)):
                problems.append("not repainted")
            program.read(rng.uniform(0, 0.5))
            if number == signal.SIGSTOP and terminal.modes() != program_modes:
                problems.append("not in raw mode after continuing")
        request_time = time.monotonic()
        program.press(QUIT_KEYS[name])
        return _await_exit(program, terminal, request_time, 0, shell_modes, problems)


def terminate_and_continue(name: str, home: Path, rng: random.Random) -> Outcome:
    """Send SIGTERM and SIGCONT at a random moment."""
    with Terminal([*SESSION_COMMAND, *PROGRAMS[name]], 80, 24, home).spawn() as terminal:
        program, shell_modes = StoppedProgram(terminal), terminal.modes()
        program.read_until(lambda: program.is_repainted(0))
        program.read(rng.uniform(0, 1))
        request_time = time.monotonic()
        os.kill(terminal.pid, signal.SIGTERM)
        time.sleep(rng.choice([0, 0, 0.001, 0.01, 0.1]))
        with suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGCONT)
        return _await_exit(program, terminal, request_time, 128 + signal.SIGTERM, shell_modes, [])


def _await_exit(
    program: StoppedProgram,
    terminal: Terminal,
    request_time: float,
    exit_status: int,
    shell_modes: list[Any],
    problems: list[str],
) -> Outcome:
    """Wait for the exit of a program, and compare the terminal with its state before the start."""
    program.read_until(terminal.has_exited)
    seconds = time.monotonic() - request_time
    modes = terminal.modes()
    if not terminal.has_exited():
        problems.append("hangs")
    else:
        if terminal.exit_status != exit_status:
            problems.append(f"exit status {terminal.exit_status}")
        if seconds > MAX_QUIT_SECONDS:
            problems.append("slow")
    with suppress(TerminalError):
        while output := terminal.read(0.05):
            program.output += output
    if modes != shell_modes:
        problems.append("modes not restored")
    if not modes[3] & termios.ECHO:
        problems.append("no echo")
    if program.shows_alternate_screen():
        problems.append("alternate screen left")
    if b"Traceback" in program.output:
        problems.append("traceback")
    return Outcome(seconds, problems)


def run_trials(home: Path, trials: int, seed: int) -> Iterator[tuple[str, bool]]:
    """Stop and continue each program `trials` times in each way, and yield a line and True if nothing was wrong."""
    finished = [*SESSION_COMMAND, *(part.format(epochs=1) for part in TRAIN), "--no-tui", "--run", RUN]
    subprocess.run(finished, env={**os.environ, "LOTR_TUI_HOME": str(home)}, check=True, capture_output=True)
    for name in PROGRAMS:
        for kind in ("SIGSTOP", "SIGTSTP", "SIGTERM"):
            rng = random.Random(f"{seed} {name} {kind}")
            outcomes = []
            for trial in range(trials):
                if kind == "SIGTERM":
                    outcomes.append(terminate_and_continue(name, home, rng))
                else:
                    number = signal.Signals[kind]
                    outcomes.append(stop_and_continue(name, home, number, rng, with_shell=trial % 2 == 1))
            problems = Counter(problem for outcome in outcomes for problem in outcome.problems)
            slowest = max(outcome.seconds for outcome in outcomes)
            yield (
                f"{name}, {kind} and SIGCONT, {trials} times: slowest exit {slowest:.1f} s; "
                f"{', '.join(f'{problem}: {count}' for problem, count in problems.items()) or 'no problem'}",
                not problems,
            )
    stop_all_trainings(home)


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40, help="number of trials for each program and signal")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    succeeded = True
    with tempfile.TemporaryDirectory() as folder:
        for line, is_right in run_trials(Path(folder), options.trials, options.seed):
            print(line, flush=True)
            succeeded = succeeded and is_right
    if not succeeded:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
