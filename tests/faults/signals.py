"""Signals at random moments: a program ends at once without a traceback, also after it was stopped and continued.

    python -m tests.faults.signals --trials 40

The programs are the session, the dashboard of `train` and the dashboard of `attach`. Each gets SIGTERM, SIGHUP or
ctrl+c during its start-up. Each is also stopped with SIGSTOP, as by a debugger or a container, or with SIGTSTP, as by a
shell, and then quits after SIGCONT; in half of these trials, a shell changes the modes of the terminal meanwhile.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.faults.trainings import stop_all_trainings
from tests.support.terminal import SESSION_COMMAND, Terminal, strip_control_sequences

RUN = "finished-run"
TRAIN = ["train", "--preset", "tiny", "--set", "threads=1", "--set"]
PROGRAMS = {"session": [], "train": [*TRAIN, "epochs=100000"], "attach": ["attach", RUN]}
QUIT_KEYS = {"session": b"\x11", "train": b"\x11s", "attach": b"\x11"}
"""ctrl+q, and in the dashboard of a training the answer to its question: stop."""
READY_TEXT = b"f1"
"""Text of the footer, which every program paints last."""
STARTUP_SECONDS = 3.0
EXIT_TIMEOUT = 30.0


class Program:
    def __init__(self, terminal):
        self.terminal, self.output, self.shell_modes = terminal, b"", terminal.modes()

    def read(self, seconds):
        """Read the output for `seconds`, or until the program has ended."""
        end = time.monotonic() + seconds
        self.read_until(lambda: time.monotonic() >= end or self.terminal.has_exited())

    def read_until(self, condition):
        self.output += self.terminal.output_until(lambda _: condition(), EXIT_TIMEOUT)

    def read_until_ready(self):
        self.output += self.terminal.output_until(lambda output: READY_TEXT in output, EXIT_TIMEOUT)

    def is_stopped(self):
        return b"State:\tT" in Path(f"/proc/{self.terminal.pid}/status").read_bytes()

    def check_end(self, statuses):
        """Wait for the exit, and compare the terminal with its state before the start."""
        self.output += self.terminal.read_until_exit(EXIT_TIMEOUT)
        shown = strip_control_sequences(self.output)[-3000:]
        assert self.terminal.exit_status in statuses, f"status {self.terminal.exit_status}: {shown}"
        assert b"Traceback" not in self.output or shown.rstrip().endswith("KeyboardInterrupt"), shown
        if b"\x1b[?1049h" in self.output:
            assert self.terminal.modes() == self.shell_modes, "the modes are not restored"
            assert self.output.rfind(b"\x1b[?1049l") > self.output.rfind(b"\x1b[?1049h"), "alternate screen left"


def signal_at_startup(name, home, number, delay):
    """Send a signal `delay` seconds after the start. Another training stops first, or goes on after SIGHUP."""
    with Terminal([*SESSION_COMMAND, *PROGRAMS[name]], 80, 24, home).spawn() as terminal:
        program = Program(terminal)
        program.read(delay)
        os.kill(terminal.pid, number)
        time.sleep(random.choice([0, 0.001, 0.1]))
        with suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGCONT)  # as systemd does after SIGTERM
        if name == "train" and number == signal.SIGHUP:
            program.read(2.0)
            stop_all_trainings(home)
        # Without its handler, while modules are imported, the signal ends the process.
        program.check_end({128 + number, -number, *([0] if name == "train" else [])})


def stop_and_continue(name, home, number, delay, *, with_shell):
    """Stop a program, continue it and quit. With `with_shell`, the modes of the terminal change meanwhile."""
    with Terminal([*SESSION_COMMAND, *PROGRAMS[name]], 80, 24, home).spawn() as terminal:
        program = Program(terminal)
        program.read_until_ready()
        program.read(delay)
        os.kill(terminal.pid, number)
        program.read_until(program.is_stopped)
        if number == signal.SIGTSTP:
            assert terminal.modes() == program.shell_modes, "the modes are not restored while suspended"
        program_modes = terminal.modes()
        if with_shell:
            terminal.set_modes(program.shell_modes)
        program.output = b"\x1b[?1049h"
        os.kill(terminal.pid, signal.SIGCONT)
        program.read_until_ready()
        assert number == signal.SIGTSTP or terminal.modes() == program_modes, "not in raw mode after continuing"
        for key in QUIT_KEYS[name]:
            terminal.write(bytes([key]))
            program.read(0.3)
        program.check_end({0})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40, help="number of trials for each program and signal")
    options = parser.parse_args()
    os.environ["LOTR_TUI_DEBUG"] = "1"
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):  # a process started by nohup ignores signals
        signal.signal(number, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        home, finished = Path(folder), [*SESSION_COMMAND, *TRAIN, "epochs=1", "--no-tui", "--run", RUN]
        subprocess.run(finished, env={**os.environ, "LOTR_TUI_HOME": folder}, check=True, capture_output=True)
        for name in PROGRAMS:
            for trial in range(options.trials):
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal_at_startup(name, home, number, STARTUP_SECONDS * trial / options.trials)
                for number in (signal.SIGSTOP, signal.SIGTSTP):
                    stop_and_continue(name, home, number, random.random(), with_shell=trial % 2 == 1)
            print(f"{name}: {options.trials} trials of each signal, no problem", flush=True)


if __name__ == "__main__":
    main()
