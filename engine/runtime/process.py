"""This process: its rank in a distributed training, its memory, large packages that it imports, and the machine."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InvalidInputError
from engine.runtime.worker import Cancellation

POLL_INTERVAL = 1.0  # seconds between readings of the machine
_HUGE_PAGE, _MADV_COLLAPSE = 1 << 21, 25  # move memory into huge pages at once, of Linux 6.1 and later


@dataclass(frozen=True)
class ProcessInfo:
    """Rank of a process and number of processes, as `torchrun` counts them: in all and, if local, on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main_process(self) -> bool:
        """True for the process that makes decisions, reports and writes files."""
        return self.rank == 0


def get_process_info() -> ProcessInfo:
    """Return the rank of this process from the environment variables of `torchrun`; without them, a single process."""
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    return ProcessInfo(*map(int, numbers)) if all(number.isdecimal() for number in numbers) else ProcessInfo()


def launch_command(num_processes: int) -> list[str]:
    """Return the start of a command that runs a module in `num_processes` processes."""
    if num_processes == 1:
        return [sys.executable, "-m"]
    # The dashes keep torchrun from parsing the module's options.
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes), "-m", "--"]
    return [sys.executable, "-m", *torchrun]


def silence_descriptors() -> None:
    """Drop what libraries write to descriptors 1 and 2, unless Python's standard streams use these descriptors."""
    if {stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream}.isdisjoint((1, 2)):
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, 1)
        os.dup2(null_device, 2)
        os.close(null_device)


def require_package(name: str, purpose: str = "training") -> None:
    """Raise an InvalidInputError unless the package `name`, which `purpose` needs, is installed."""
    if importlib.util.find_spec(name) is None:
        install = f"pip install {name}"
        if (Path(sys.prefix) / "uv-receipt.toml").is_file():  # the environment has no pip
            install = "uv tool install --reinstall lotr-tui"
        elif (Path(sys.prefix) / "pipx_metadata.json").is_file():
            install = f"pipx inject lotr-tui {name}"
        raise InvalidInputError(f"{purpose} needs {'PyTorch' if name == 'torch' else name}; {install}")


def limit_openmp_spinning() -> None:
    """Make OpenMP threads sleep sooner while they wait for each other; call this before importing PyTorch."""
    # Beside one busy process, training takes 4 times as long without this limit, and 2 times with it.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def preload_torch() -> None:
    """Map the largest library of torch in a call without Python's lock; an import would stop all threads for 1.4 s."""
    spec = importlib.util.find_spec("torch")
    library = Path(spec.origin).parent / "lib" / "libtorch_cpu.so" if spec and spec.origin else None
    if "torch" not in sys.modules and library is not None and library.is_file() and (libc := _load_libc("dlopen")):
        libc.dlopen(os.fsencode(library), os.RTLD_NOW)  # a failure is reported by the import


def disable_heap_trimming() -> None:
    """Keep freed memory in this process for reuse; call this before starting the thread of a training."""
    # Returning and requesting it costs a page fault for every 4 KB: 8 % of the time of `train --preset tiny`.
    if (libc := _load_libc("mallopt")) is not None:
        # One arena for all threads (-8): a thread's own arena would still return blocks larger than its heaps.
        for parameter, value in ((-3, 2**30), (-1, 2**31 - 1), (-2, 2**26), (-8, 1)):
            libc.mallopt(parameter, value)


def trim_heap() -> None:
    if (libc := _load_libc("malloc_trim")) is not None:
        libc.malloc_trim(0)


def use_huge_pages(blocks: Iterable[tuple[int, int]]) -> None:
    """Move blocks of memory, each an address and a size in bytes, into huge pages, whose addresses are found sooner."""
    if (libc := _load_libc("mallopt")) is None:
        return
    ranges: list[list[int]] = []
    for start, size in sorted(blocks):
        if ranges and start - ranges[-1][1] < _HUGE_PAGE:  # they share a page
            ranges[-1][1] = start + size
        else:
            ranges.append([start - start % os.sysconf("SC_PAGE_SIZE"), start + size])
    from ctypes import c_size_t, c_void_p

    for start, end in ranges:
        libc.madvise(c_void_p(start), c_size_t(end - start), _MADV_COLLAPSE)


def _load_libc(function: str) -> Any:
    from ctypes import CDLL  # the session starts without ctypes

    libc = CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, function) else None


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
        query(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
        query(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
        query(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total),
        query(lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))),
        query(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    )
