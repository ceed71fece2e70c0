"""Generator threads, huge pages, and readings of the machine."""

import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from engine.runtime import process
from tests.support.commands import wait_until

DEADLINE = 10.0  # timeout in seconds, long enough for a busy machine


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


class TestGeneratorThread:
    @pytest.mark.parametrize(("number", "max_pending"), [(40, 1), (5000, 64)])
    def test_all_events_arrive_in_order_through_any_buffer(self, number, max_pending):
        worker = process.GeneratorThread("count", lambda cancelled: iter(range(number)), max_pending=max_pending)
        assert drain_all(worker) == list(range(number))
        assert worker.exception is None

    def test_the_generator_runs_in_a_named_thread_and_waits_while_the_buffer_is_full(self):
        produced = []

        def source(cancelled):
            for number in range(100):
                produced.append(threading.current_thread().name)
                yield number

        worker = process.GeneratorThread("painter", source, max_pending=8)
        wait_until(lambda: len(produced) == 9)  # eight are buffered, the ninth waits for room
        time.sleep(0.05)
        assert produced == ["painter"] * 9
        assert worker.is_alive()
        assert drain_all(worker) == list(range(100))

    def test_cancel_ends_a_generator_also_if_it_waits_for_room(self):
        worker = process.GeneratorThread("endless", count_until, max_pending=4)
        time.sleep(0.05)
        worker.cancellation.set()
        worker.join(DEADLINE)
        assert not worker.is_alive()
        assert worker.exception is None
        events = worker.drain()
        assert events[-1] == -1
        assert events[:4] == [0, 1, 2, 3]

    def test_cancel_ends_a_wait(self):
        def source(cancelled):
            yield cancelled.wait(60)

        worker = process.GeneratorThread("sleeper", source)
        worker.cancellation.set()
        worker.join(DEADLINE)
        assert not worker.is_alive()
        assert worker.drain() == [True]

    def test_an_exception_is_kept_with_the_events_before_it(self):
        def source(cancelled):
            yield 1
            raise ValueError("broken on purpose")

        worker = process.GeneratorThread("breaks", source)
        worker.join(DEADLINE)
        assert not worker.is_alive()
        assert worker.drain() == [1]
        assert repr(worker.exception) == "ValueError('broken on purpose')"

    def test_throttle_is_even_and_makes_up_for_small_delays_without_bursts(self):
        def source():
            for number in range(14):
                if number == 4:
                    time.sleep(0.2)
                yield number

        start = time.perf_counter()
        times = [time.perf_counter() - start for _ in process.throttle(source(), 50, process.Cancellation())]
        assert all(at >= i / 50 - 0.005 for i, at in enumerate(times))
        assert times[-1] - times[4] >= (13 - 4 - 2) / 50 - 0.005  # about two events at once

    def test_throttle_does_not_wait_without_a_limit_or_after_a_cancellation(self):
        cancellation, start = process.Cancellation(), time.perf_counter()
        assert list(process.throttle(iter(range(1000)), 0, cancellation)) == list(range(1000))
        cancellation.set()
        assert list(process.throttle(iter(range(5)), 0.1, cancellation)) == list(range(5))  # would take 50 s
        assert time.perf_counter() - start < DEADLINE


def fake_pynvml(total=1, error=None):
    """Return a fake of pynvml with two GPUs, which do not report their memory if `total` is None."""

    def initialize():
        if error:
            raise error

    def memory(gpu):
        if total is None:
            raise RuntimeError("Not Supported")
        return SimpleNamespace(used=3 * 2**30, total=total)

    module = ModuleType("pynvml")
    vars(module).update(
        nvmlInit=initialize, nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=97 - gpu),
    )  # fmt: skip
    return module


def test_memory_keeps_its_content_in_huge_pages_and_what_is_no_memory_is_left_alone():
    arrays = [np.arange(size) for size in (10, 700_000, 300_000)]
    process.use_huge_pages([*((array.ctypes.data, array.nbytes) for array in arrays), (4096, 1 << 30)])
    assert all(np.array_equal(array, np.arange(len(array))) for array in arrays)


@pytest.mark.parametrize("driver", [None, fake_pynvml(error=OSError("driver not loaded"))])  # None: no extra "gpu"
def test_memory_and_cpu_usage_of_this_process_are_read_without_a_gpu(monkeypatch, driver):
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(process, "POLL_INTERVAL", 0.0)
    readings = process.poll_machine_stats(process.Cancellation())
    next(readings)
    buffer = bytearray(b"x") * 80_000_000
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    reading = next(readings)
    assert reading.memory_used > len(buffer)
    assert 0 < reading.cpu_cores_used <= reading.cpu_cores * 1.1
    assert reading.gpus == ()


@pytest.mark.parametrize(("total", "memory"), [(80 * 2**30, (3 * 2**30, 80 * 2**30)), (None, (None, None))])
def test_a_gpu_that_does_not_tell_its_memory_reports_the_other_values(monkeypatch, total, memory):
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(total))
    monkeypatch.setattr(process, "POLL_INTERVAL", 0.0)
    gpus = next(process.poll_machine_stats(process.Cancellation())).gpus
    assert gpus[0] == process.GpuStats(0.97, *memory)
    assert gpus[1].utilization == 0.96
