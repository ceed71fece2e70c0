"""What a training takes of the machine: this process's memory and CPU, and its GPUs where NVIDIA's library tells."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.runtime.worker import Cancellation

READ_SECONDS = 1.0
"""Between two readings."""


@dataclass(frozen=True)
class GpuReading:
    """One GPU, whoever uses it; None where it does not tell."""

    used: float | None
    """The share of the time in which it computed."""
    memory_bytes: int | None
    memory_total: int | None
    celsius: float | None
    watts: float | None


@dataclass(frozen=True)
class MachineReading:
    """At one moment."""

    memory_bytes: int
    """Of this process."""
    cores_used: float
    """By this process since the reading before; 1 is one core all the time."""
    cores: int
    """That there are."""
    gpus: tuple[GpuReading, ...] = ()


class Machine:
    """Takes readings. Asking a GPU may take some milliseconds, so this belongs in a thread."""

    def __init__(self) -> None:
        """Look what there is; without the extra `gpu`, or a driver, there are no GPUs."""
        import psutil

        self._process = psutil.Process()
        self._process.cpu_percent(None)  # the first call measures nothing
        self._cores: int = psutil.cpu_count() or 1
        self._nvml: Any = None
        self._gpus: list[Any] = []
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        except Exception:  # no such package, no library, no driver, no permission: each has an error of its own
            self._gpus = []

    def read(self) -> MachineReading:
        """How it is now."""
        return MachineReading(
            memory_bytes=int(self._process.memory_info().rss),
            cores_used=float(self._process.cpu_percent(None)) / 100,
            cores=self._cores,
            gpus=tuple(self._read_gpu(gpu) for gpu in self._gpus),
        )

    def _read_gpu(self, gpu: Any) -> GpuReading:
        nvml = self._nvml
        memory = _ask(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
        used = _ask(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
        watts = _ask(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000)
        return GpuReading(
            used=used,
            memory_bytes=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            celsius=_ask(lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))),
            watts=watts,
        )

    def close(self) -> None:
        """Let go of NVIDIA's library."""
        if self._nvml is not None:
            _ask(self._nvml.nvmlShutdown)


def readings(cancelled: Cancellation) -> Iterator[MachineReading]:
    """One reading after the other, until cancelled: a source for a `Worker`."""
    machine = Machine()
    try:
        while not cancelled.wait(READ_SECONDS):
            yield machine.read()
    finally:
        machine.close()


def _ask(question: Callable[[], Any]) -> Any:
    """The answer; None from a GPU that has none, as of power on a laptop."""
    try:
        return question()
    except Exception:
        return None
