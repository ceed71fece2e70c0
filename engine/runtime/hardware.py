"""Memory and CPU usage of this process, and GPU statistics from NVIDIA's library."""

from collections.abc import Callable, Iterator
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


class MachineMonitor:
    """Reader of machine statistics. A reading may take some milliseconds, so use it in a thread."""

    def __init__(self) -> None:
        """Open NVIDIA's library. Without the extra `gpu` or a driver, no GPUs are reported."""
        import psutil

        self._process = psutil.Process()
        self._process.cpu_percent(None)  # the first call returns 0
        self._cpu_cores: int = psutil.cpu_count() or 1
        self._nvml: Any = None
        self._gpus: list[Any] = []
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except Exception:  # a missing package, library, driver or permission raises different errors
            self._gpus = []

    def read(self) -> MachineStats:
        return MachineStats(
            memory_used=int(self._process.memory_info().rss),
            cpu_cores_used=float(self._process.cpu_percent(None)) / 100,
            cpu_cores=self._cpu_cores,
            gpus=tuple(self._read_gpu(gpu) for gpu in self._gpus),
        )

    def _read_gpu(self, gpu: Any) -> GpuStats:
        nvml = self._nvml
        memory = _query_nvml(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
        return GpuStats(
            utilization=_query_nvml(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
            memory_used=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            temperature_celsius=_query_nvml(
                lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
            ),
            power_watts=_query_nvml(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
        )


def poll_machine_stats(cancelled: Cancellation) -> Iterator[MachineStats]:
    """Yield a reading every `POLL_INTERVAL` seconds until cancelled; an event source for a `GeneratorThread`."""
    monitor = MachineMonitor()
    while not cancelled.wait(POLL_INTERVAL):
        yield monitor.read()


def _query_nvml(query: Callable[[], Any]) -> Any:
    try:
        return query()
    except Exception:  # some GPUs do not support a query, as in laptops that for power
        return None
