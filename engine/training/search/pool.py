"""Worker processes of a search, started as they are needed, and the messages that they send."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from engine.training.search.worker import Assignment, Message, TrialEnd, run_worker

EXIT_TIMEOUT = 10.0
"""Seconds that an idle worker has to end before it is killed."""


class WorkerPool:
    """At most `size` worker processes, each with at most one trial."""

    def __init__(self, size: int, runs_dir: Path) -> None:
        """Prepare to start workers that write runs in `runs_dir`."""
        self.size = size
        self._runs_dir = runs_dir
        self._context = multiprocessing.get_context("spawn")  # not forked: torch's threads do not survive a fork
        self._stop = self._context.Event()
        self._processes: dict[Connection, BaseProcess] = {}
        self._numbers: dict[Connection, int] = {}

    @property
    def num_busy(self) -> int:
        """Number of workers that train a trial."""
        return len(self._numbers)

    def start(self, assignment: Assignment) -> None:
        """Give a trial to an idle worker, which is started if there is none yet."""
        idle = (item for item in self._processes if item not in self._numbers)
        connection = next(idle, None) or self._start_worker()
        self._numbers[connection] = assignment.number
        _send(connection, assignment)

    def messages(self, timeout: float) -> Iterator[tuple[int, Message]]:
        """Wait for messages, at most `timeout` seconds, and yield them with the numbers of their trials.

        A worker that has died, for example because memory was short, yields a failure.
        """
        for connection in wait(list(self._numbers), timeout):
            assert isinstance(connection, Connection)
            number = self._numbers[connection]
            try:
                message: Message = connection.recv()
            except (EOFError, OSError):
                message = TrialEnd("failed", self._describe_death(connection))
            if isinstance(message, TrialEnd):
                del self._numbers[connection]
            yield number, message

    def answer(self, number: int, *, may_continue: bool) -> None:
        """Answer the progress of a trial: True to continue, False to prune it."""
        connection = next(connection for connection, busy in self._numbers.items() if busy == number)
        _send(connection, may_continue)

    def stop(self) -> None:
        """Ask all workers to save and stop their trials at the next optimizer step."""
        self._stop.set()

    def close(self) -> None:
        """End all workers. One that still trains is killed, as its run can be resumed."""
        for connection, process in self._processes.items():
            if connection in self._numbers:
                process.kill()
            else:
                _send(connection, None)
        for connection, process in self._processes.items():
            process.join(EXIT_TIMEOUT)
            process.kill()
            process.join()
            connection.close()
        self._processes.clear()
        self._numbers.clear()

    def _start_worker(self) -> Connection:
        connection, other_end = self._context.Pipe()
        process = self._context.Process(
            target=run_worker, args=(other_end, self._stop, self._runs_dir), name="lotr-tui search", daemon=True
        )
        # A ctrl+c while the worker still imports would end it with a traceback; an ignored signal stays ignored.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        other_end.close()
        self._processes[connection] = process
        return connection

    def _describe_death(self, connection: Connection) -> str:
        process = self._processes.pop(connection)
        process.join()
        connection.close()
        code = process.exitcode or 0
        end = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"its process ended {end}; fewer --jobs need less memory"


def _send(connection: Connection, message: object) -> None:
    """Send a message. A worker that has died is noticed when its answer is read."""
    with suppress(OSError):
        connection.send(message)
