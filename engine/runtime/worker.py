"""A generator in a thread, read by polling: bounded, coalescing, cancellable."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

Source = Callable[["Cancellation"], Iterator[T]]


class Cancellation:
    """Asks a worker to end. Calling it tells whether that was asked for."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        """Whether it was asked for."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep so long, or until cancelled; tells whether it was."""
        return self._event.wait(seconds)


class Worker(Generic[T]):
    """Runs a generator in a thread; whoever wants its events calls `drain` now and then.

    The generator is given a `Cancellation` to look at. When `limit` events wait unread, the oldest that
    `droppable` accepts makes room; where there is none, the generator waits, until cancelled.
    """

    def __init__(
        self,
        name: str,
        source: Source[T],
        limit: int = 4096,
        droppable: Callable[[T], bool] = lambda event: False,
    ) -> None:
        self.cancellation = Cancellation()
        self.failure: BaseException | None = None
        """What the generator raised, once no longer `running`."""
        self._source = source
        self._limit = limit
        self._droppable = droppable
        self._events: deque[T] = deque()
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> "Worker[T]":
        """Start the thread."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Ask the generator to end, and stop waiting for room."""
        self.cancellation.set()
        with self._room:
            self._room.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end, at most so long; tells whether it ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the generator may still yield."""
        return self._thread.is_alive()

    def drain(self) -> list[T]:
        """All events since the last call, oldest first; never waits for the generator."""
        with self._room:
            events = list(self._events)
            self._events.clear()
            self._room.notify_all()
        return events

    def _work(self) -> None:
        try:
            for event in self._source(self.cancellation):
                self._put(event)
        except BaseException as error:
            self.failure = error

    def _put(self, event: T) -> None:
        with self._room:
            if len(self._events) >= self._limit:
                oldest = next((i for i, waiting in enumerate(self._events) if self._droppable(waiting)), None)
                if oldest is not None:
                    del self._events[oldest]
                else:
                    self._room.wait_for(lambda: len(self._events) < self._limit or self.cancellation())
            self._events.append(event)


def paced(events: Iterator[T], per_second: float, cancellation: Cancellation) -> Iterator[T]:
    """Hold `events` back to so many a second, evenly; 0 does not hold back."""
    due = time.perf_counter()
    for event in events:
        if per_second:
            due = max(due + 1 / per_second, time.perf_counter() - 1 / per_second)
            cancellation.wait(max(0.0, due - time.perf_counter()))
        yield event
