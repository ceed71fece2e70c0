"""Threads of this process, its rank in a training, and the machine."""

import importlib
import importlib.util
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from engine.errors import InvalidInputError

# Threads of OpenMP, which reads this when PyTorch is imported, sleep sooner while they wait for each other. Beside one
# busy process, training takes 4 times as long without this limit, and 2 times with it.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
POLL_INTERVAL = 1.0  # seconds between readings of the machine
HUGE_PAGE, MADV_COLLAPSE = 1 << 21, 25  # move memory into huge pages at once, of Linux 6.1 and later
CANCEL_INTERVAL = 0.1  # seconds between two looks at the cancellation of a thread that waits for room

T = TypeVar("T")
EventSource = Callable[["Cancellation"], Iterator[T]]


class Cancellation(threading.Event):
    """Thread-safe request to stop. Calling an instance returns True once `set` was called."""

    __call__ = threading.Event.is_set


class GeneratorThread(threading.Thread, Generic[T]):
    """A thread that runs a generator, which checks a `Cancellation`, and buffers at most `max_pending` events."""

    def __init__(self, name: str, source: EventSource[T], max_pending: int = 4096) -> None:
        super().__init__(name=name, daemon=True)
        self.cancellation = Cancellation()
        self.exception: BaseException | None = None  # that ended the generator; valid once the thread has ended
        self._source, self._pending = source, deque[T]()
        self._room = threading.Semaphore(max_pending)
        self.start()

    def run(self) -> None:
        try:
            for event in self._source(self.cancellation):
                while not self._room.acquire(timeout=CANCEL_INTERVAL) and not self.cancellation():
                    pass
                self._pending.append(event)
        except BaseException as error:
            self.exception = error

    def drain(self) -> list[T]:
        """Return all buffered events, oldest first, without waiting."""
        events = [self._pending.popleft() for _ in range(len(self._pending))]
        if events:
            self._room.release(len(events))
        return events


def throttle(events: Iterator[T], max_per_second: float, cancellation: Cancellation) -> Iterator[T]:
    """Yield `events` evenly, at most `max_per_second`; 0 for no limit. A cancellation ends the waiting."""
    interval = 1 / max_per_second if max_per_second else 0.0
    due = time.perf_counter() - interval
    for event in events:
        if interval:
            due = max(due + interval, time.perf_counter() - interval)
            cancellation.wait(max(0.0, due - time.perf_counter()))
        yield event


@dataclass(frozen=True)
class ProcessInfo:
    """Rank of a process and number of processes, as `torchrun` counts them: in all, and on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def get_process_info() -> ProcessInfo:
    """Return the rank of this process from the environment variables of `torchrun`; without them, a single process."""
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    return ProcessInfo(*map(int, numbers)) if all(number.isdecimal() for number in numbers) else ProcessInfo()


def silence_descriptors() -> None:
    """Drop what libraries write to descriptors 1 and 2, unless Python's standard streams use these descriptors."""
    if {stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream}.isdisjoint((1, 2)):
        with Path(os.devnull).open("wb") as null_device:
            os.dup2(null_device.fileno(), 1)
            os.dup2(null_device.fileno(), 2)


def require_package(name: str, purpose: str = "training") -> None:
    """Raise an InvalidInputError unless the package `name`, which `purpose` needs, is installed."""
    if importlib.util.find_spec(name) is None:
        install = f"pip install {name}"
        if (Path(sys.prefix) / "uv-receipt.toml").is_file():  # the environment has no pip
            install = "uv tool install --reinstall lotr-tui"
        elif (Path(sys.prefix) / "pipx_metadata.json").is_file():
            install = f"pipx inject lotr-tui {name}"
        raise InvalidInputError(f"{purpose} needs {'PyTorch' if name == 'torch' else name}; {install}")


def use_huge_pages(blocks: Iterable[tuple[int, int]]) -> None:
    """Move blocks of memory, each an address and a size in bytes, into huge pages, where a system can do it."""
    import ctypes  # the session starts without it

    for start, size in blocks:  # SmolLM2 reads a token in 6.9 ms instead of 7.7
        first, last = start - start % HUGE_PAGE, start + size + HUGE_PAGE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), MADV_COLLAPSE)


def return_freed_memory() -> None:
    """Return freed memory to the system."""
    import ctypes  # the session starts without it

    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@dataclass(frozen=True)
class GpuStats:
    """Statistics of one GPU, over all processes, memory in bytes; None where the GPU does not report a value."""

    utilization: float | None
    memory_used: int | None
    memory_total: int | None


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

    process, gpus = psutil.Process(), list[Any]()
    process.cpu_percent(None)  # the first call returns 0
    with suppress(Exception):  # a missing package, library, driver or permission raises different errors
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    queries: list[Callable[[Any], Any]] = [
        lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
        lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
        lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ]

    def read(query: Callable[[Any], Any], gpu: Any) -> Any:
        with suppress(Exception):  # some GPUs do not support a query
            return query(gpu)

    while not cancelled.wait(POLL_INTERVAL):
        cores_used = process.cpu_percent(None) / 100
        readings = tuple(GpuStats(*(read(query, gpu) for query in queries)) for gpu in gpus)
        yield MachineStats(process.memory_info().rss, cores_used, psutil.cpu_count() or 1, readings)
