"""The worker thread: order, bounds, cancelling, failures."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from engine.runtime.worker import Cancellation, Worker, paced

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds within which anything must have happened, however busy the machine."""


def until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition; tells whether it came true."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def drain_all(worker: Worker[T]) -> list[T]:
    found: list[T] = []
    end = time.monotonic() + DEADLINE
    while worker.running and time.monotonic() < end:
        found += worker.drain()
        time.sleep(0.001)
    assert not worker.running
    return found + worker.drain()


def test_every_event_in_order() -> None:
    worker = Worker("count", lambda cancelled: iter(range(5000)), limit=64).start()
    assert drain_all(worker) == list(range(5000))
    assert worker.failure is None
    assert not worker.running


def test_the_generator_runs_in_another_thread_of_that_name() -> None:
    def source(cancelled: Cancellation) -> Iterator[str]:
        yield threading.current_thread().name

    worker = Worker("painter", source).start()
    assert worker.join(DEADLINE)
    assert worker.drain() == ["painter"]
    assert threading.current_thread().name != "painter"


def test_the_generator_waits_when_nobody_reads() -> None:
    made = []

    def source(cancelled: Cancellation) -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    worker = Worker("bounded", source, limit=8).start()
    assert until(lambda: len(made) == 9)  # eight wait, the ninth looks for room
    time.sleep(0.1)
    assert len(made) == 9
    assert worker.running
    assert drain_all(worker) == list(range(100))


def test_the_oldest_droppable_event_makes_room() -> None:
    def source(cancelled: Cancellation) -> Iterator[tuple[str, int]]:
        yield ("keep", 0)
        for number in range(50):
            yield ("step", number)
        yield ("keep", 1)

    worker = Worker("coalescing", source, limit=4, droppable=lambda event: event[0] == "step").start()
    assert worker.join(DEADLINE)  # nobody drains, and yet it does not wait
    assert worker.drain() == [("keep", 0), ("step", 48), ("step", 49), ("keep", 1)]


def test_only_droppable_events_are_dropped() -> None:
    def source(cancelled: Cancellation) -> Iterator[tuple[str, int]]:
        for number in range(200):
            yield ("step" if number % 2 else "keep", number)

    worker = Worker("mixed", source, limit=4, droppable=lambda event: event[0] == "step").start()
    found = drain_all(worker)
    assert [number for kind, number in found if kind == "keep"] == list(range(0, 200, 2))
    assert [number for _, number in found] == sorted(number for _, number in found)


def test_cancel_ends_a_generator_that_looks_within_a_second() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        number = 0
        while not cancelled():
            yield number
            number += 1

    worker = Worker("endless", source, limit=16, droppable=lambda event: True).start()
    assert until(lambda: bool(worker.drain()))
    worker.cancel()
    assert worker.join(1.0)
    assert worker.failure is None


def test_cancel_frees_a_generator_that_waits_for_room() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        number = 0
        while not cancelled():
            yield number
            number += 1
        yield -1  # the last word, as Done and Finished are, still arrives

    worker = Worker("full", source, limit=4).start()
    time.sleep(0.05)
    worker.cancel()
    assert worker.join(1.0)
    events = worker.drain()
    assert events[:4] == [0, 1, 2, 3]
    assert events[-1] == -1


def test_cancel_ends_a_wait() -> None:
    def source(cancelled: Cancellation) -> Iterator[bool]:
        yield cancelled.wait(60)

    worker = Worker("sleeper", source).start()
    worker.cancel()
    assert worker.join(1.0)
    assert worker.drain() == [True]


def test_a_failure_is_kept_and_what_came_before_it_too() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        yield 1
        raise ValueError("broken on purpose")

    worker = Worker("breaks", source).start()
    assert worker.join(DEADLINE)
    assert worker.drain() == [1]
    assert not worker.running
    assert isinstance(worker.failure, ValueError)
    assert str(worker.failure) == "broken on purpose"


def test_a_source_that_fails_before_its_first_event() -> None:
    def source(cancelled: Cancellation) -> Iterator[int]:
        raise RuntimeError("at once")

    worker = Worker("stillborn", source).start()
    assert worker.join(DEADLINE)
    assert isinstance(worker.failure, RuntimeError)
    assert not worker.running


def test_paced_is_even() -> None:
    """However late the machine is, the first does not come too early and no burst follows the wait."""
    began = time.perf_counter()
    times = []
    for _ in paced(iter(range(20)), 100, Cancellation()):
        times.append(time.perf_counter() - began)
    assert all(at >= (i + 1) / 100 - 0.005 for i, at in enumerate(times))


def test_paced_makes_up_for_little_lateness_but_never_bursts() -> None:
    """After a pause of its source at most about two events come at once."""

    def source() -> Iterator[int]:
        for number in range(12):
            if number == 4:
                time.sleep(0.3)
            yield number

    times = []
    for _ in paced(source(), 50, Cancellation()):
        times.append(time.perf_counter())
    assert times[-1] - times[4] >= (11 - 4 - 2) / 50 - 0.005


def test_paced_zero_does_not_hold_back_and_loses_nothing() -> None:
    began = time.perf_counter()
    assert list(paced(iter(range(1000)), 0, Cancellation())) == list(range(1000))
    assert time.perf_counter() - began < DEADLINE


def test_paced_stops_waiting_when_cancelled() -> None:
    cancellation = Cancellation()
    cancellation.set()
    began = time.perf_counter()
    assert list(paced(iter(range(5)), 0.1, cancellation)) == list(range(5))  # 50 s if it waited
    assert time.perf_counter() - began < DEADLINE


@pytest.mark.parametrize("limit", [1, 3])
def test_small_limits_lose_nothing(limit: int) -> None:
    worker = Worker("narrow", lambda cancelled: iter(range(40)), limit=limit).start()
    assert drain_all(worker) == list(range(40))
