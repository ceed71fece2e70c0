"""Processes that follow a training for its trackers, started and watched by the process that trains."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from textwrap import shorten

from engine.errors import InvalidInputError, describe_error, printable
from engine.runs.directory import run_word
from engine.runtime.process import get_process_info
from engine.storage.files import open_regular_file
from lotr_tui.trackers.follower import chosen_trackers, state_file
from lotr_tui.trackers.libraries import TrackerName, check_installed, view_command

CALL_TIMEOUT = 60.0
"""Seconds after which a batch that a tracker has not taken is given up."""
MAX_PROBLEM_LENGTH = 300  # the log of the tracker has all of it


class TrackerSupervisor:
    """Tracker processes of one training. They follow its run directory, and end by themselves after the training."""

    def __init__(self, run_dir: Path) -> None:
        """Start one process for each tracker of a run. A failure is a problem, and never an exception."""
        self._run_dir = run_dir
        self._problems: list[str] = []
        self._names: list[TrackerName] = chosen_trackers(run_dir) if get_process_info().rank == 0 else []
        self._processes: dict[TrackerName, subprocess.Popen[bytes]] = {}
        for name in list(self._names):
            try:
                check_installed([name])
                self._processes[name] = _start_process(run_dir, name)
            except (InvalidInputError, OSError) as error:
                self._add_problem(name, describe_error(error))

    @property
    def running(self) -> list[TrackerName]:
        """Names of the trackers whose processes have not ended."""
        self._collect_ended()
        return list(self._processes)

    def take_problems(self) -> list[str]:
        """Return the problems since the last call, at most one per tracker, without waiting."""
        self._collect_ended()
        problems, self._problems = self._problems, []
        return problems

    def wait(self, timeout: float) -> bool:
        """Wait for the end of all processes, at most `timeout` seconds. Return True if all have ended."""
        deadline = time.monotonic() + timeout
        while self.running and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.running

    def closing_lines(self) -> list[str]:
        """Return lines for the end of a training: new problems, unfinished trackers, and how to see the run."""
        lines = [printable(f"warning: {problem}") for problem in self.take_problems()]
        for name in self._names:
            if name in self._processes:
                lines.append(f"{name} receives the rest from a process in the background")
            lines.append(printable(f"{name}: {view_command(name, self._run_dir)}"))
        return lines

    def _collect_ended(self) -> None:
        for name, process in list(self._processes.items()):
            if process.poll() is None or self._processes.pop(name, None) is None:  # another thread was here first
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what the package has started
            text = process.communicate()[0].decode(errors="replace")
            if process.returncode:
                silence = f"it did not answer for {CALL_TIMEOUT:.0f} s, or its process was killed"
                self._add_problem(name, text or silence)

    def _add_problem(self, name: TrackerName, text: str) -> None:
        self._names.remove(name)
        problem = shorten(printable(text).rstrip("."), MAX_PROBLEM_LENGTH, placeholder="…")
        command = f"lotr-tui runs export {run_word(self._run_dir)} --log {name}"
        self._problems.append(
            f"{name} is detached: {problem}; the training continues, and `{command}` sends the missing part later"
        )


def _start_process(run_dir: Path, name: TrackerName) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "lotr_tui.trackers.follower", str(run_dir), name, str(CALL_TIMEOUT)]
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with os.fdopen(open_regular_file(state_file(run_dir, name, ".log"), flags), "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
