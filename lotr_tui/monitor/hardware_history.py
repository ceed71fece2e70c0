"""The last minute of what is measured while a training goes on, as the dashboard's tiles show them."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.runtime.hardware import GpuReading, MachineReading
from lotr_tui.formatting import duration
from lotr_tui.monitor.training_view import TrainingView

Floats = npt.NDArray[np.float64]
SECONDS = 60.0
"""How far back a history goes."""
GIB = 2.0**30


@dataclass(frozen=True)
class Tile:
    """A figure and how it was lately."""

    group: str
    """What it belongs to, as "GPU 0"; "" for the training and its process."""
    name: str
    value: str
    width: int
    """Columns kept for the value, so that nothing jumps."""
    times: Floats
    """Seconds, of each value of the history."""
    history: Floats
    top: float | None = None
    """What would be the whole of it; None: the highest of the history."""

    def shape(self, cells: int) -> list[float]:
        """The history in so many equal parts, each its mean; NaN for those of which nothing is known.

        A part begins at whole multiples of its length, so that the picture moves a part at a time.
        """
        shape = [math.nan] * cells
        if len(self.times) and math.isfinite(self.times[-1]):
            parts = np.floor(self.times / (SECONDS / cells))
            places = parts - parts[-1] + cells - 1
            good = (places >= 0) & (places < cells) & np.isfinite(self.history)
            for place in sorted(set(places[good].astype(int).tolist())):
                shape[place] = float(self.history[good & (places == place)].mean())
        return shape


class MachineHistory:
    """The readings of the last minute."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, MachineReading]] = deque()

    def add(self, seconds: float, reading: MachineReading) -> None:
        """Take in one, made at this moment of a clock."""
        self._readings.append((seconds, reading))
        while self._readings[0][0] < seconds - SECONDS:
            self._readings.popleft()

    def tiles(self) -> list[Tile]:
        """A tile for each thing that is read; before the first reading those that there will be."""
        if not self._readings:
            nothing = np.empty(0)
            return [Tile("", name, "-", width, nothing, nothing) for name, width in (("memory", 8), ("CPU", 11))]
        latest = self._readings[-1][1]
        tiles = [
            self._tile("", "memory", size(latest.memory_bytes), 8, lambda reading: reading.memory_bytes),
            self._tile(
                "",
                "CPU",
                f"{latest.cores_used:.1f} of {latest.cores}",
                11,
                lambda reading: reading.cores_used,
                latest.cores,
            ),
        ]
        for number, gpu in enumerate(latest.gpus):
            tiles += self._gpu_tiles(number, gpu)
        return tiles

    def _gpu_tiles(self, number: int, gpu: GpuReading) -> Iterable[Tile]:
        def of(field: str) -> Callable[[MachineReading], float | None]:
            return lambda reading: getattr(reading.gpus[number], field) if number < len(reading.gpus) else None

        group = f"GPU {number}"
        if gpu.used is not None:
            yield self._tile(group, "use", f"{gpu.used:.0%}", 4, of("used"), 1.0)
        if gpu.memory_bytes is not None and gpu.memory_total:
            text = f"{gpu.memory_bytes / GIB:.1f} of {size(gpu.memory_total)}"
            yield self._tile(group, "memory", text, 18, of("memory_bytes"), float(gpu.memory_total))
        if gpu.celsius is not None:
            yield self._tile(group, "heat", f"{gpu.celsius:.0f} °C", 6, of("celsius"), 100.0)
        if gpu.watts is not None:
            yield self._tile(group, "power", f"{gpu.watts:.0f} W", 6, of("watts"))

    def _tile(
        self,
        group: str,
        name: str,
        value: str,
        width: int,
        of: Callable[[MachineReading], float | None],
        top: float | None = None,
    ) -> Tile:
        times = np.array([seconds for seconds, _ in self._readings])
        values = [of(reading) for _, reading in self._readings]
        history = np.array([math.nan if value is None else value for value in values], float)
        return Tile(group, name, value, width, times, history, top)


def training_tiles(view: TrainingView) -> list[Tile]:
    """A tile for each figure that a training tells, with its last minute."""
    steps, last = view.steps, view.steps.last
    seconds = steps.column("seconds")
    first = int(np.searchsorted(seconds, seconds[-1] - SECONDS)) if len(seconds) else 0
    times = seconds[first:]

    def tile(name: str, field: str, text: Callable[[float], str], width: int) -> Tile:
        value = text(getattr(last, field)) if last else "-"
        return Tile("", name, value, width, times, steps.column(field)[first:])

    return [
        tile("lr", "lr", lambda value: f"{value:.3g}", 8),
        tile("gradient", "gradient_norm", lambda value: f"{value:.3g}", 6),
        tile("tokens/s", "tokens_per_second", lambda value: f"{value:,.0f}", 7),
        tile("time left", "eta_seconds", lambda value: duration(value) if view.active else "-", 7),
    ]


def size(count: float) -> str:
    """Bytes as 612 MiB or 1.4 GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"
