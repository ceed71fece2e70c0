"""The allocator, imports in a thread, and readings of the machine."""

import platform
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from engine.runtime import process
from engine.runtime.process import GpuStats, poll_machine_stats, use_huge_pages
from engine.runtime.worker import Cancellation

MEMORY_PROGRAM = """
import resource, threading
import numpy as np
from pathlib import Path
from engine.runtime.process import disable_heap_trimming, trim_heap
megabytes = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def window():
    arrays = [np.full(size, 1, np.uint8) for size in (26_000_000, 3_000_000, 70_000_000, 40_000_000)]
def work():
    window()
    before = faults()
    window()
    print(faults() - before)
for prepare in (lambda: None, disable_heap_trimming):
    prepare()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
trim_heap()
before = megabytes()
arrays = [np.full(3_000_000 + 1000 * number, 1, np.uint8) for number in range(60)]
del arrays[::2]  # leaves holes between blocks in use
print(megabytes() - before)
trim_heap()
print(megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system's C library is not glibc")
def test_without_heap_trimming_freed_memory_is_reused_and_trim_heap_returns_it():
    completed = subprocess.run([sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, check=True, text=True)
    faults_before, faults, full, trimmed = map(float, completed.stdout.split())
    assert faults < faults_before / 3
    assert faults_before > 1_000  # otherwise the assertion above proves nothing
    assert full > 170
    assert trimmed < 110


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
