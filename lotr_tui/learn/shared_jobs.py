"""Long preparations of a class, which continue in the background when the chapter that needs them is left."""

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine.errors import RunError
from engine.runtime.worker import Cancellation

T = TypeVar("T")
POLL_INTERVAL = 0.05
"""Seconds between two looks at the progress of a job."""


@dataclass
class _Job:
    """A job that runs, or waits for its turn, in a thread."""

    has_ended: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None


class SharedJobs:
    """Jobs that run one after the other in threads of their own, each shared by all chapters that wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held while the jobs change."""
        self._turn = threading.Lock()
        """Held by the job that runs."""
        self._jobs: dict[str, _Job] = {}
        self._cancellation = Cancellation()
        self._line = ""
        """Progress of the job that runs."""

    @property
    def is_running(self) -> bool:
        """True while a job runs or waits for its turn."""
        with self._lock:
            return bool(self._jobs)

    def cancel(self) -> None:
        """Stop all jobs; a job that is started later runs."""
        with self._lock:
            self._cancellation.set()
            self._cancellation = Cancellation()

    def wait_for(
        self, name: str, source: Callable[[Cancellation], Generator[str, None, T]], cancelled: Callable[[], bool]
    ) -> Generator[str, None, T]:
        """Start a job unless it runs already, and wait for its end.

        Args:
            name: Name of the job; callers with the same name wait for the same job.
            source: Creates the generator of the job, which yields lines of progress and returns the result.
            cancelled: Returns True once the caller no longer waits; the job continues.

        Yields:
            Progress of the job that runs: this one, or the one before it.

        Raises:
            RunError: If the caller no longer waits.
        """
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                job = self._jobs[name] = _Job()
                arguments = name, job, source, self._cancellation
                threading.Thread(target=self._run, args=arguments, name=f"class-{name}", daemon=True).start()
        shown = ""
        has_ended = False
        while not has_ended:
            has_ended = job.has_ended.wait(POLL_INTERVAL)
            if cancelled() and not has_ended:
                raise RunError("the chapter was left")
            if (line := self._line) and line != shown:
                shown = line
                yield line
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _run(
        self, name: str, job: _Job, source: Callable[[Cancellation], Generator[str, None, Any]], cancelled: Cancellation
    ) -> None:
        try:
            with self._turn:
                self._line = ""
                steps = source(cancelled)
                while True:
                    try:
                        self._line = next(steps)
                    except StopIteration as end:
                        job.result = end.value
                        break
        except BaseException as error:
            job.error = error
        with self._lock:
            del self._jobs[name]
        job.has_ended.set()
