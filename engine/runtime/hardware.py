"""Memory and CPU usage of this process, and GPU statistics from NVIDIA's library."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine.runtime.worker import Cancellation

POLL_INTERVAL = 1.0


@dataclass(frozen=True)
class GpuStats:
    """Statistics of one GPU, over all processes, memory in bytes; None where the GPU does not report a value."""

    utilization: float | None
    memory_used: int | None
    memory_total: int | None
    temperature_celsius: float | None
    power_watts: float | None


@dataclass(frozen=True)
class MachineStats:
    """One reading: resident memory in bytes and CPU usage of this process (1 is one fully used core), and all GPUs."""

    memory_used: int
    cpu_cores_used: float
    cpu_cores: int
    gpus: tuple[GpuStats, ...] = ()


def poll_machine_stats(cancelled: Cancellation) -> Iterator[MachineStats]:
    """Yield a reading every `POLL_INTERVAL` seconds until cancelled. GPUs need the extra `gpu` and a driver."""
    import psutil

    process = psutil.Process()
    nvml: Any = None
    gpus: list[Any] = []
    process.cpu_percent(None)  # the first call returns 0
    with suppress(Exception):  # a missing package, library, driver or permission raises different errors
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        gpus += [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    while not cancelled.wait(POLL_INTERVAL):
        cores_used = process.cpu_percent(None) / 100
        readings = tuple(_read_gpu(nvml, gpu) for gpu in gpus)
        yield MachineStats(process.memory_info().rss, cores_used, psutil.cpu_count() or 1, readings)


def _read_gpu(nvml: Any, gpu: Any) -> GpuStats:
    def query(read: Callable[[], float]) -> Any:
        try:
            return read()
        except Exception:  # some GPUs do not support a query, as in laptops that for power
            return None

    return GpuStats(
        utilization=query(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
        memory_used=query(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
        memory_total=query(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total),
        temperature_celsius=query(lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))),
        power_watts=query(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    )
