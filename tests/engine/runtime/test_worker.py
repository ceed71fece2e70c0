"""Generator threads: order of events, bounded buffer, cancellation and failures."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from engine.runtime.worker import Cancellation, GeneratorThread, throttle

T = TypeVar("T")

DEADLINE = 10.0
"""Timeout in seconds, long enough for a busy machine."""


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition, at most `DEADLINE` seconds. Return True if it became true."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def drain_all(worker: GeneratorThread[T]) -> list[T]:
    events: list[T] = []
    end = time.monotonic() + DEADLINE
    while worker.is_running and time.monotonic() < end:
        events += worker.drain()
        time.sleep(0.001)
    assert not worker.is_running
    return events + worker.drain()


def test_all_events_arrive_in_order() -> None:
    worker = GeneratorThread("count", lambda cancelled: iter(range(5000)), max_pending=64).start()
    assert drain_all(worker) == list(range(5000))
    assert worker.exception is None
    assert not worker.is_running


def test_the_generator_runs_in_a_named_thread() -> None:
    def source(cancelled: Cancellation) -> Iterator[str]:
        yield threading.current_thread().name

    worker = GeneratorThread("painter", source).start()
    assert worker.join(DEADLINE)
    assert worker.drain() == ["painter"]
    assert threading.current_thread().name != "painter"


def test_the_generator_waits_while_the_buffer_is_full() -> None:
    produced = []

    def source(cancelled: Cancellation) -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            yield number

    worker = GeneratorThread("bounded", source, max_pending=8).start()
    assert wait_until(lambda: len(produced) == 9)  # eight are buffered, the ninth waits for room
    time.sleep(0.1)
    assert len(produced) == 9
    assert worker.is_running
    assert drain_all(worker) == list(range(100))


def test_the_oldest_droppable_event_is_dropped() -> None:
    def source(cancelled: Cancellation) -> Iterator[tuple[str, int]]:
        yield ("keep", 0)
        for number in range(50):
            yield ("step", number)
        yield ("keep", 1)

    worker = GeneratorThread("coalescing", source, max_pending=4, is_droppable=lambda event: event[0] == "step").start()
    assert worker.join(DEADLINE)  # ends without a drain
    assert worker.drain() == [("keep", 0), ("step", 48), ("step", 49), ("keep", 1)]


def test_only_droppable_events_are_dropped() -> None:
    def source(cancelled: Cancellation) -> Iterator[tuple[str, int]]:
        for number in range(200):
            yield ("step" if number % 2 else "keep", number)

    worker = GeneratorThread("mixed", source, max_pending=4, is_droppable=lambda event: event[0] == "step").start()
    events = drain_all(worker)
    assert [number for kind, number in events if kind == "keep"] == list(range(0, 200, 2))
    assert [number for _, number in events] == sorted(number for _, number in events)


def test_cancel_ends_a_generator_within_a_second() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        number = 0
        while not cancelled():
            yield number
            number += 1

    worker = GeneratorThread("endless", source, max_pending=16, is_droppable=lambda event: True).start()
    assert wait_until(lambda: bool(worker.drain()))
    worker.cancel()
    assert worker.join(1.0)
    assert worker.exception is None


def test_cancel_wakes_a_generator_that_waits_for_room() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        number = 0
        while not cancelled():
            yield number
            number += 1
        yield -1  # a final event, such as Done or Finished, still arrives

    worker = GeneratorThread("full", source, max_pending=4).start()
    time.sleep(0.05)
    worker.cancel()
    assert worker.join(1.0)
    events = worker.drain()
    assert events[:4] == [0, 1, 2, 3]
    assert events[-1] == -1


def test_cancel_ends_a_wait() -> None:
    def source(cancelled: Cancellation) -> Iterator[bool]:
        yield cancelled.wait(60)

    worker = GeneratorThread("sleeper", source).start()
    worker.cancel()
    assert worker.join(1.0)
    assert worker.drain() == [True]


def test_an_exception_is_kept_with_the_events_before_it() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        yield 1
        raise ValueError("broken on purpose")

    worker = GeneratorThread("breaks", source).start()
    assert worker.join(DEADLINE)
    assert worker.drain() == [1]
    assert not worker.is_running
    assert isinstance(worker.exception, ValueError)
    assert str(worker.exception) == "broken on purpose"


def test_an_exception_before_the_first_event_is_kept() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        raise RuntimeError("at once")

    worker = GeneratorThread("stillborn", source).start()
    assert worker.join(DEADLINE)
    assert isinstance(worker.exception, RuntimeError)
    assert not worker.is_running


def test_throttle_is_even() -> None:
    """No event but the first comes too early, even on a slow machine."""
    start = time.perf_counter()
    times = []
    for _ in throttle(iter(range(20)), 100, Cancellation()):
        times.append(time.perf_counter() - start)
    assert all(at >= i / 100 - 0.005 for i, at in enumerate(times))


def test_throttle_makes_up_for_small_delays_without_bursts() -> None:
    """After a pause of the source, at most about two events come at once."""

    def source() -> Iterator[int]:
        for number in range(12):
            if number == 4:
                time.sleep(0.3)
            yield number

    times = []
    for _ in throttle(source(), 50, Cancellation()):
        times.append(time.perf_counter())
    assert times[-1] - times[4] >= (11 - 4 - 2) / 50 - 0.005


def test_throttle_without_a_limit_passes_all_events_at_once() -> None:
    start = time.perf_counter()
    assert list(throttle(iter(range(1000)), 0, Cancellation())) == list(range(1000))
    assert time.perf_counter() - start < DEADLINE


def test_throttle_stops_waiting_when_cancelled() -> None:
    cancellation = Cancellation()
    cancellation.set()
    start = time.perf_counter()
    assert list(throttle(iter(range(5)), 0.1, cancellation)) == list(
        range(5)
    )  # would take 50 s without the cancellation
    assert time.perf_counter() - start < DEADLINE


@pytest.mark.parametrize("max_pending", [1, 3])
def test_small_buffers_lose_nothing(max_pending: int) -> None:
    worker = GeneratorThread("narrow", lambda cancelled: iter(range(40)), max_pending=max_pending).start()
    assert drain_all(worker) == list(range(40))
