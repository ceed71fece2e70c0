"""Generator threads: order of events, bounded buffer, cancellation and failures; and the rate of events."""

import threading
import time

import pytest

from engine.runtime.process import Cancellation, GeneratorThread, throttle

DEADLINE = 10.0  # timeout in seconds, long enough for a busy machine


def wait_until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def drain_all(worker):
    events, end = [], time.monotonic() + DEADLINE
    while worker.is_alive() and time.monotonic() < end:
        events += worker.drain()
        time.sleep(0.001)
    assert not worker.is_alive()
    return events + worker.drain()


def count_until(cancelled):
    number = 0
    while not cancelled():
        yield number
        number += 1
    yield -1  # a final event, such as Done or Finished, still arrives


@pytest.mark.parametrize(("number", "max_pending"), [(40, 1), (5000, 64)])
def test_all_events_arrive_in_order_through_any_buffer(number, max_pending):
    worker = GeneratorThread("count", lambda cancelled: iter(range(number)), max_pending=max_pending)
    assert drain_all(worker) == list(range(number))
    assert worker.exception is None


def test_the_generator_runs_in_a_named_thread_and_waits_while_the_buffer_is_full():
    produced = []

    def source(cancelled):
        for number in range(100):
            produced.append(threading.current_thread().name)
            yield number

    worker = GeneratorThread("painter", source, max_pending=8)
    wait_until(lambda: len(produced) == 9)  # eight are buffered, the ninth waits for room
    time.sleep(0.05)
    assert produced == ["painter"] * 9
    assert worker.is_alive()
    assert drain_all(worker) == list(range(100))


def test_cancel_ends_a_generator_within_a_second_also_if_it_waits_for_room():
    worker = GeneratorThread("endless", count_until, max_pending=4)
    time.sleep(0.05)
    worker.cancellation.set()
    worker.join(1.0)
    assert not worker.is_alive()
    assert worker.exception is None
    events = worker.drain()
    assert events[-1] == -1
    assert events[:4] == [0, 1, 2, 3]


def test_cancel_ends_a_wait():
    def source(cancelled):
        yield cancelled.wait(60)

    worker = GeneratorThread("sleeper", source)
    worker.cancellation.set()
    worker.join(1.0)
    assert not worker.is_alive()
    assert worker.drain() == [True]


def test_an_exception_is_kept_with_the_events_before_it():
    def source(cancelled):
        yield 1
        raise ValueError("broken on purpose")

    worker = GeneratorThread("breaks", source)
    worker.join(DEADLINE)
    assert not worker.is_alive()
    assert worker.drain() == [1]
    assert repr(worker.exception) == "ValueError('broken on purpose')"


def test_throttle_is_even_and_makes_up_for_small_delays_without_bursts():
    def source():
        for number in range(14):
            if number == 4:
                time.sleep(0.2)
            yield number

    start = time.perf_counter()
    times = [time.perf_counter() - start for _ in throttle(source(), 50, Cancellation())]
    assert all(at >= i / 50 - 0.005 for i, at in enumerate(times))
    assert times[-1] - times[4] >= (13 - 4 - 2) / 50 - 0.005  # about two events at once


def test_throttle_does_not_wait_without_a_limit_or_after_a_cancellation():
    cancellation, start = Cancellation(), time.perf_counter()
    assert list(throttle(iter(range(1000)), 0, cancellation)) == list(range(1000))
    cancellation.set()
    assert list(throttle(iter(range(5)), 0.1, cancellation)) == list(range(5))  # would take 50 s
    assert time.perf_counter() - start < DEADLINE
