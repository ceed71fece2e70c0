"""Processes that send a training to its trackers, started and watched by the process that trains."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO

from engine.errors import InvalidInputError, printable
from engine.runs.directory import run_word
from engine.runtime.process import get_process_info
from engine.storage.files import open_regular_file
from lotr_tui.trackers.registry import TrackerName, check_installed, view_command
from lotr_tui.trackers.send_state import chosen_trackers, state_file

CALL_TIMEOUT = 60.0
"""Seconds after which a call of a tracker that has not returned is given up."""
MAX_PROBLEM_LENGTH = 300
"""Characters of a problem that are shown; the log of the tracker has all of it."""


class TrackerSupervisor:
    """Tracker processes of one training. They follow its run directory, and end by themselves after the training."""

    def __init__(self, run_dir: Path) -> None:
        """Start one process for each tracker of a run. A failure is a problem, and never an exception."""
        self._run_dir = run_dir
        self._problems: deque[str] = deque()
        self._failed: set[TrackerName] = set()
        self._inputs: list[IO[bytes]] = []
        """Standard inputs of the processes; closing one says that the training has ended."""
        self._has_ended = False
        self._input_lock = threading.Lock()
        self._threads: dict[TrackerName, threading.Thread] = {}
        if not get_process_info().is_main_process:
            return
        for name in chosen_trackers(run_dir):
            thread = threading.Thread(target=self._run_process, args=(name,), name=f"tracker {name}", daemon=True)
            self._threads[name] = thread
            thread.start()

    def end_training(self) -> None:
        """Let the processes send everything recorded so far, and end. The end of this process has the same effect."""
        with self._input_lock:
            self._has_ended = True
            for standard_input in self._inputs:
                standard_input.close()

    def take_problems(self) -> list[str]:
        """Return the problems since the last call, at most one per tracker, without waiting."""
        problems = []
        while self._problems:
            problems.append(self._problems.popleft())
        return problems

    @property
    def running(self) -> list[TrackerName]:
        """Names of the trackers whose processes have not ended."""
        return [name for name, thread in self._threads.items() if thread.is_alive()]

    def wait(self, timeout: float) -> bool:
        """Wait for the end of all processes, at most `timeout` seconds. Return True if all have ended."""
        deadline = time.monotonic() + timeout
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return not self.running

    def closing_lines(self) -> list[str]:
        """Return lines for the end of a training: new problems, unfinished trackers, and how to see the run."""
        lines = [printable(f"warning: {problem}") for problem in self.take_problems()]
        for name in self._threads:
            if name in self.running:
                lines.append(f"{name} receives the rest from a process in the background")
            if name not in self._failed:
                lines.append(printable(f"{name}: {view_command(name, self._run_dir)}"))
        return lines

    def _run_process(self, name: TrackerName) -> None:
        """Start the process of a tracker, wait for its end, and record its problem, if there is one."""
        try:
            check_installed([name])
            problem = self._wait_for_process(name)
        except InvalidInputError as error:
            problem = str(error)
        except OSError as error:
            problem = f"its process cannot be started: {error.strerror}"
        if problem:
            self._failed.add(name)
            command = f"lotr-tui runs export {run_word(self._run_dir)} --log {name}"
            self._problems.append(
                f"{name} is detached: {problem}; the training continues, and `{command}` sends the missing part later"
            )

    def _wait_for_process(self, name: TrackerName) -> str:
        """Run the process of a tracker to its end. Return its problem, or ""."""
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as pipe:
            try:
                process = self._start_process(name, write_end)
            finally:
                os.close(write_end)
            assert process.stdin is not None, "the process has a pipe as its standard input"
            with self._input_lock:
                self._inputs.append(process.stdin)
                if self._has_ended:
                    process.stdin.close()
            problem = _read_result(pipe)  # waits for the end of the process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # also what the package has started
        process.wait()
        if problem is None:
            return f"it did not answer for {CALL_TIMEOUT:.0f} s, or its process was killed"
        return problem

    def _start_process(self, name: TrackerName, pipe: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "lotr_tui.trackers.process"]
        arguments = [str(self._run_dir), name, str(pipe), str(CALL_TIMEOUT)]
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with os.fdopen(open_regular_file(state_file(self._run_dir, name, ".log"), flags), "ab") as log:
            return subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(pipe,),
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )


def _read_result(pipe: IO[bytes]) -> str | None:
    """Return the problem that a tracker process reports, "" for success, or None if it ends without a report."""
    try:
        problem = json.loads(pipe.readline())["problem"]
    except (ValueError, KeyError, TypeError):
        return None
    text = printable(str(problem)).rstrip(".")
    return text if len(text) <= MAX_PROBLEM_LENGTH else f"{text[:MAX_PROBLEM_LENGTH]}…"
