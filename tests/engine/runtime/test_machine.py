"""Huge pages, and readings of the machine."""

import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from engine.runtime import process
from engine.runtime.process import Cancellation, GpuStats, poll_machine_stats, use_huge_pages


def fake_pynvml(power=1, error=None):
    """Return a fake of pynvml with two GPUs, which have no sensor of power if `power` is None."""

    def initialize():
        if error:
            raise error

    def watts(gpu):
        if power is None:
            raise RuntimeError("Not Supported")
        return power

    module = ModuleType("pynvml")
    vars(module).update(
        NVML_TEMPERATURE_GPU=0, nvmlInit=initialize, nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=3 * 2**30, total=80 * 2**30),
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=97 - gpu),
        nvmlDeviceGetTemperature=lambda gpu, sensor: 67, nvmlDeviceGetPowerUsage=watts,
    )  # fmt: skip
    return module


def test_memory_keeps_its_content_in_huge_pages_and_what_is_no_memory_is_left_alone():
    arrays = [np.arange(size) for size in (10, 700_000, 300_000)]
    use_huge_pages([*((array.ctypes.data, array.nbytes) for array in arrays), (4096, 1 << 30)])
    assert all(np.array_equal(array, np.arange(len(array))) for array in arrays)


@pytest.mark.parametrize("driver", [None, fake_pynvml(error=OSError("driver not loaded"))])  # None: no extra "gpu"
def test_memory_and_cpu_usage_of_this_process_are_read_without_a_gpu(monkeypatch, driver):
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(process, "POLL_INTERVAL", 0.0)
    readings = poll_machine_stats(Cancellation())
    next(readings)
    buffer = bytearray(b"x") * 80_000_000
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    reading = next(readings)
    assert reading.memory_used > len(buffer)
    assert 0 < reading.cpu_cores_used <= reading.cpu_cores * 1.1
    assert reading.gpus == ()


@pytest.mark.parametrize(("power", "watts"), [(312_000, 312.0), (None, None)])
def test_a_gpu_without_power_sensor_reports_the_other_values(monkeypatch, power, watts):
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(power))
    monkeypatch.setattr(process, "POLL_INTERVAL", 0.0)
    gpus = next(poll_machine_stats(Cancellation())).gpus
    assert gpus[0] == GpuStats(0.97, 3 * 2**30, 80 * 2**30, 67.0, watts)
    assert gpus[1].utilization == 0.96
