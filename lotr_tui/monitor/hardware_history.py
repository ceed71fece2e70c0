"""Metric tiles of the dashboard: training and hardware figures with their history of the last minute."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float64Array
from engine.runtime.process import GpuStats, MachineStats
from lotr_tui.formatting import format_bytes, format_duration
from lotr_tui.monitor.training_view import TrainingView

StatsField = Callable[[MachineStats], float | None]
WINDOW_SECONDS = 60.0
"""Length of a history in seconds."""
YOUNG_WINDOWS = (7.5, 15.0, 30.0)
"""Lengths that are shown of a history that is younger, in seconds."""


@dataclass(frozen=True)
class MetricTile:
    """Current value of a metric and its recent history."""

    group: str
    """Device, as "GPU 0"; "" for the training and its process."""
    name: str
    value: str
    value_width: int
    """Width in cells reserved for the value, so that the layout stays still."""
    times: Float64Array
    """Times `[sample]` of the history in seconds."""
    history: Float64Array
    """Values `[sample]`; NaN if unknown."""
    max_value: float | None = None
    """Upper end of the scale; None for the maximum of the history."""

    def resample(self, num_bins: int) -> list[float]:
        """Return the mean of the history in `num_bins` equal intervals.

        An interval without values has the value before it, and NaN before the first one. Intervals start at multiples
        of their length, so that the chart moves by whole intervals.
        """
        means = [math.nan] * num_bins
        if len(self.times) and math.isfinite(self.times[-1]):
            intervals = np.floor(self.times / (self._window_seconds() / num_bins))
            bins = intervals - intervals[-1] + num_bins - 1
            valid = (bins >= 0) & (bins < num_bins) & np.isfinite(self.history)
            for index in sorted(set(bins[valid].astype(int).tolist())):
                means[index] = float(self.history[valid & (bins == index)].mean())
        for index in range(1, num_bins):
            if math.isnan(means[index]):
                means[index] = means[index - 1]
        return means

    def _window_seconds(self) -> float:
        """Return the part of the last minute to show: more of it the longer the history is, in few steps."""
        span = float(self.times[-1] - self.times[0])
        return next((window for window in YOUNG_WINDOWS if span <= window), WINDOW_SECONDS)


class MachineHistory:
    """Hardware readings of the last minute."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, MachineStats]] = deque()

    def add(self, timestamp: float, reading: MachineStats) -> None:
        """Add a reading at `timestamp` (monotonic clock, in seconds), and drop readings older than the history."""
        self._readings.append((timestamp, reading))
        while self._readings[0][0] < timestamp - WINDOW_SECONDS:
            self._readings.popleft()

    def tiles(self) -> list[MetricTile]:
        """Return one tile per hardware metric; tiles without values before the first reading."""
        if not self._readings:
            empty = np.empty(0)
            return [MetricTile("", name, "-", width, empty, empty) for name, width in (("memory", 8), ("CPU", 11))]
        latest = self._readings[-1][1]
        memory = format_bytes(latest.memory_used, binary=True)
        cpu = f"{latest.cpu_cores_used:.1f} of {latest.cpu_cores}"
        tiles = [
            self._tile("", "memory", memory, 8, lambda reading: reading.memory_used),
            self._tile("", "CPU", cpu, 11, lambda reading: reading.cpu_cores_used, latest.cpu_cores),
        ]
        for index, gpu in enumerate(latest.gpus):
            tiles += self._gpu_tiles(index, gpu)
        return tiles

    def _gpu_tiles(self, index: int, gpu: GpuStats) -> Iterable[MetricTile]:
        def field_getter(field: str) -> StatsField:
            return lambda reading: getattr(reading.gpus[index], field) if index < len(reading.gpus) else None

        group = f"GPU {index}"
        if gpu.utilization is not None:
            yield self._tile(group, "use", f"{gpu.utilization:.0%}", 4, field_getter("utilization"), 1.0)
        if gpu.memory_used is not None and gpu.memory_total:
            text = f"{gpu.memory_used / 2**30:.1f} of {format_bytes(gpu.memory_total, binary=True)}"
            yield self._tile(group, "memory", text, 18, field_getter("memory_used"), float(gpu.memory_total))
        if gpu.temperature_celsius is not None:
            text = f"{gpu.temperature_celsius:.0f} °C"
            yield self._tile(group, "heat", text, 6, field_getter("temperature_celsius"), 100.0)
        if gpu.power_watts is not None:
            yield self._tile(group, "power", f"{gpu.power_watts:.0f} W", 6, field_getter("power_watts"))

    def _tile(
        self, group: str, name: str, value: str, width: int, get: StatsField, max_value: float | None = None
    ) -> MetricTile:
        times = np.array([seconds for seconds, _ in self._readings])
        history = np.array([get(reading) for _, reading in self._readings], float)  # None becomes NaN
        return MetricTile(group, name, value, width, times, history, max_value)


def training_tiles(view: TrainingView) -> list[MetricTile]:
    """Return one tile per training metric with its history of the last minute."""
    steps, last_step = view.steps, view.steps.last
    seconds = steps.column("seconds")
    first = int(np.searchsorted(seconds, seconds[-1] - WINDOW_SECONDS)) if len(seconds) else 0
    times = seconds[first:]

    def tile(name: str, field: str, format_value: Callable[[float], str], width: int) -> MetricTile:
        value = format_value(getattr(last_step, field)) if last_step else "-"
        return MetricTile("", name, value, width, times, steps.column(field)[first:])

    tiles = [
        tile("lr", "lr", lambda value: f"{value:.3g}", 8),
        tile("gradient", "gradient_norm", lambda value: f"{value:.3g}", 6),
        tile("tokens/s", "tokens_per_second", lambda value: f"{value:,.0f}", 7),
    ]
    # A training that has ended has no time left.
    return [*tiles, tile("time left", "eta_seconds", format_duration, 7)] if view.is_active else tiles
