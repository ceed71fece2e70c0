"""Readings of monitor statistics, with a fake of NVIDIA's library."""

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from engine.runtime.hardware import GpuStats, MachineMonitor, poll_machine_stats
from engine.runtime.worker import GeneratorThread


def fake_pynvml(power: int | None) -> ModuleType:
    """Return a fake of pynvml with two GPUs, whose power query raises if `power` is None."""
    module = ModuleType("pynvml")

    def watts(gpu: int) -> int:
        if power is None:
            raise RuntimeError("Not Supported")
        return power

    vars(module).update(
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=3 * 2**30, total=80 * 2**30),
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=97 - gpu),
        nvmlDeviceGetTemperature=lambda gpu, sensor: 67,
        nvmlDeviceGetPowerUsage=watts,
    )
    return module


def test_memory_and_cpu_usage_of_this_process_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if the extra "gpu" were missing
    monitor = MachineMonitor()
    buffer = bytearray(b"x") * 80_000_000
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    reading = monitor.read()
    assert reading.memory_used > len(buffer)
    assert 0 < reading.cpu_cores_used <= reading.cpu_cores * 1.1
    assert reading.gpus == ()
    monitor.close()


@pytest.mark.parametrize(("power", "watts"), [(312_000, 312.0), (None, None)])
def test_a_gpu_without_power_sensor_reports_the_other_values(
    monkeypatch: pytest.MonkeyPatch, power: int | None, watts: float | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(power))
    monitor = MachineMonitor()
    gpus = monitor.read().gpus
    assert gpus[0] == GpuStats(0.97, 3 * 2**30, 80 * 2**30, 67.0, watts)
    assert gpus[1].utilization == 0.96
    monitor.close()


def test_without_a_driver_no_gpus_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_pynvml(1)

    def fail() -> None:
        raise OSError("driver not loaded")

    module.nvmlInit = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert MachineMonitor().read().gpus == ()


def test_polling_ends_when_cancelled() -> None:
    worker = GeneratorThread("machine", poll_machine_stats).start()
    worker.cancel()
    assert worker.join(5)
    assert worker.exception is None
