"""Readings of this machine; NVIDIA's library is played by a module that says what one would."""

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from engine.runtime.hardware import GpuReading, Machine, readings
from engine.runtime.worker import Worker


def nvidia(power: int | None) -> ModuleType:
    """Two GPUs; one that does not tell its power raises, as the library does."""
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


def test_this_process_uses_memory_and_a_core_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as without the extra
    machine = Machine()
    held = bytearray(b"x") * 80_000_000
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    reading = machine.read()
    assert reading.memory_bytes > len(held)
    assert 0 < reading.cores_used <= reading.cores * 1.1
    assert reading.gpus == ()
    machine.close()


@pytest.mark.parametrize(("power", "watts"), [(312_000, 312.0), (None, None)])
def test_each_gpu_tells_what_it_can(monkeypatch: pytest.MonkeyPatch, power: int | None, watts: float | None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvidia(power))
    machine = Machine()
    gpus = machine.read().gpus
    assert gpus[0] == GpuReading(0.97, 3 * 2**30, 80 * 2**30, 67.0, watts)
    assert gpus[1].used == 0.96
    machine.close()


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nvidia(1)

    def fail() -> None:
        raise OSError("driver not loaded")

    module.nvmlInit = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert Machine().read().gpus == ()


def test_readings_end_when_cancelled() -> None:
    worker = Worker("machine", readings).start()
    worker.cancel()
    assert worker.join(5)
    assert worker.failure is None
