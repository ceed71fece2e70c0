"""A generator that runs in a thread and is read by polling: bounded and cancellable."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

EventSource = Callable[["Cancellation"], Iterator[T]]


class Cancellation(threading.Event):
    """Thread-safe request to stop. Calling an instance returns True once `set` was called."""

    __call__ = threading.Event.is_set


class GeneratorThread(Generic[T]):
    """A thread that runs a generator and buffers at most `max_pending` of its events until `drain` is called.

    The generator receives a `Cancellation`, which it should check regularly.
    """

    def __init__(self, name: str, source: EventSource[T], max_pending: int = 4096) -> None:
        self.cancellation = Cancellation()
        self.exception: BaseException | None = None  # that ended the generator; valid once `is_running` is False
        self._source, self._max_pending = source, max_pending
        self._pending: deque[T] = deque()
        self._not_full = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> "GeneratorThread[T]":
        self._thread.start()
        return self

    def cancel(self) -> None:
        self.cancellation.set()
        with self._not_full:
            self._not_full.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end of the thread, and return True if it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def drain(self) -> list[T]:
        """Return all buffered events, oldest first, without waiting."""
        with self._not_full:
            events = list(self._pending)
            self._pending.clear()
            self._not_full.notify_all()
        return events

    def _run(self) -> None:
        try:
            for event in self._source(self.cancellation):
                with self._not_full:
                    self._not_full.wait_for(lambda: len(self._pending) < self._max_pending or self.cancellation())
                    self._pending.append(event)
        except BaseException as error:
            self.exception = error


def throttle(events: Iterator[T], max_per_second: float, cancellation: Cancellation) -> Iterator[T]:
    """Yield `events` evenly, at most `max_per_second`; 0 for no limit. A cancellation ends the waiting."""
    interval = 1 / max_per_second if max_per_second else 0.0
    due = time.perf_counter() - interval
    for event in events:
        if interval:
            due = max(due + interval, time.perf_counter() - interval)
            cancellation.wait(max(0.0, due - time.perf_counter()))
        yield event
