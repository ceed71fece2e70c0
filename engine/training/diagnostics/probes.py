"""Readings of the machine for the detectors: free disk space, and utilization of the GPU that trains."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.runtime.worker import Cancellation, GeneratorThread
from engine.training.diagnostics.detector import DiskReading, GpuReading

DISK_INTERVAL = 10.0
"""Seconds between two readings of the free space; checkpoints are 30 seconds apart by default."""
GPU_INTERVAL = 1.0
MAX_PENDING_READINGS = 600

Clock = Callable[[], float]


class DiskProbe:
    """Reader of the free space where a run is kept, at most every `DISK_INTERVAL` seconds."""

    def __init__(self, folder: Path, clock: Clock = time.monotonic) -> None:
        """Prepare to read the file system of `folder`."""
        self._folder = folder
        self._clock = clock
        self._read_at = -DISK_INTERVAL

    def read(self) -> list[DiskReading]:
        """Return a reading if one is due and the free space is known; otherwise an empty list."""
        now = self._clock()
        if now - self._read_at < DISK_INTERVAL:
            return []
        self._read_at = now
        try:
            return [DiskReading(shutil.disk_usage(self._folder).free)]
        except OSError:  # the folder was deleted, or its file system reports no space
            return []


class GpuProbe:
    """Thread that reads the utilization of a GPU every second, without waiting for its computations."""

    def __init__(self, device: str) -> None:
        """Start to read the GPU with the PyTorch name `device`."""
        self._thread: GeneratorThread[GpuReading] = GeneratorThread(
            "gpu", lambda cancelled: _poll_gpu(device, cancelled), MAX_PENDING_READINGS, lambda reading: True
        ).start()

    def read(self) -> list[GpuReading]:
        """Return the readings since the last call."""
        return self._thread.drain()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.cancel()


def _poll_gpu(device: str, cancelled: Cancellation) -> Iterator[GpuReading]:
    """Yield a reading every `GPU_INTERVAL` seconds, until cancelled or the GPU does not report its utilization."""
    while not cancelled.wait(GPU_INTERVAL):
        if (utilization := read_gpu_utilization(device)) is None:
            return
        yield GpuReading(utilization)


def read_gpu_utilization(device: str) -> float | None:
    """Return the fraction of the last second in which a GPU computed; None without the extra `gpu`, or on a MIG slice.

    PyTorch finds the GPU of `device` in the list of NVIDIA's library, and starts no computation for it.
    """
    import torch

    try:
        return torch.cuda.utilization(torch.device(device)) / 100
    except Exception:  # a missing package, driver, permission or feature raises different errors
        return None


def is_gpu(device: str) -> bool:
    """Return True for a device whose utilization NVIDIA's or AMD's library reports."""
    return device.startswith("cuda")
