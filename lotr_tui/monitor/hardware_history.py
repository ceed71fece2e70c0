"""Metric tiles of the dashboard: training and hardware figures with their history of the last minute."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float64Array
from engine.runtime.process import MachineStats
from lotr_tui.formatting import format_bytes, format_duration
from lotr_tui.monitor.training_view import TrainingView

WINDOW_SECONDS = 60.0
"""Length of a history in seconds."""
YOUNG_WINDOWS = (7.5, 15.0, 30.0)  # seconds that are shown of a history that is younger


@dataclass(frozen=True)
class MetricTile:
    """Current value of a metric and its recent history."""

    group: str  # device, as "GPU 0"; "" for the training and its process
    name: str
    value: str
    value_width: int  # cells reserved for the value, so that the layout stays still
    times: Float64Array  # [sample], in seconds
    history: Float64Array  # [sample]; NaN if unknown
    max_value: float | None = None  # upper end of the scale; None for the maximum of the history

    def resample(self, num_bins: int) -> list[float]:
        """Return the mean of the history in `num_bins` equal intervals.

        An interval without values has the value before it, and NaN before the first one. Intervals start at multiples
        of their length, so that the chart moves by whole intervals.
        """
        means = [math.nan] * num_bins
        if len(self.times) and math.isfinite(self.times[-1]):
            span = float(self.times[-1] - self.times[0])
            window = next((window for window in YOUNG_WINDOWS if span <= window), WINDOW_SECONDS)
            intervals = np.floor(self.times / (window / num_bins))
            bins = intervals - intervals[-1] + num_bins - 1
            valid = (bins >= 0) & (bins < num_bins) & np.isfinite(self.history)
            for index in sorted(set(bins[valid].astype(int).tolist())):
                means[index] = float(self.history[valid & (bins == index)].mean())
        for index in range(1, num_bins):
            if math.isnan(means[index]):
                means[index] = means[index - 1]
        return means


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
        """Return one tile per hardware metric that can be read; before the first reading, tiles without values."""
        if not self._readings:
            empty = np.empty(0)
            return [MetricTile("", name, "-", width, empty, empty) for name, width in (("memory", 8), ("CPU", 11))]
        times = np.array([seconds for seconds, _ in self._readings])
        readings = [reading for _, reading in self._readings]
        latest = readings[-1]
        tiles: list[MetricTile] = []

        def add(name: str, value: str, width: int, field: str, scale: float | None = None, gpu: int = -1) -> None:
            sources = readings if gpu < 0 else [each.gpus[gpu] if gpu < len(each.gpus) else None for each in readings]
            history = np.array([getattr(source, field, None) for source in sources], float)  # None becomes NaN
            tiles.append(MetricTile("" if gpu < 0 else f"GPU {gpu}", name, value, width, times, history, scale))

        add("memory", format_bytes(latest.memory_used, binary=True), 8, "memory_used")
        cpu = f"{latest.cpu_cores_used:.1f} of {latest.cpu_cores}"
        add("CPU", cpu, 11, "cpu_cores_used", latest.cpu_cores)
        for index, gpu in enumerate(latest.gpus):
            if gpu.utilization is not None:
                add("use", f"{gpu.utilization:.0%}", 4, "utilization", 1.0, index)
            if gpu.memory_used is not None and gpu.memory_total:
                text = f"{gpu.memory_used / 2**30:.1f} of {format_bytes(gpu.memory_total, binary=True)}"
                add("memory", text, 18, "memory_used", float(gpu.memory_total), index)
            if gpu.temperature_celsius is not None:
                add("heat", f"{gpu.temperature_celsius:.0f} °C", 6, "temperature_celsius", 100.0, index)
            if gpu.power_watts is not None:
                add("power", f"{gpu.power_watts:.0f} W", 6, "power_watts", None, index)
        return tiles


def training_tiles(view: TrainingView) -> list[MetricTile]:
    """Return one tile per training metric with its history of the last minute."""
    steps, last_step = view.steps, view.steps.last
    seconds = steps.column("seconds")
    first = int(np.searchsorted(seconds, seconds[-1] - WINDOW_SECONDS)) if len(seconds) else 0

    def tile(name: str, field: str, format_value: Callable[[float], str], width: int) -> MetricTile:
        value = format_value(getattr(last_step, field)) if last_step else "-"
        return MetricTile("", name, value, width, seconds[first:], steps.column(field)[first:])

    tiles = [
        tile("lr", "lr", lambda value: f"{value:.3g}", 8),
        tile("gradient", "gradient_norm", lambda value: f"{value:.3g}", 6),
        tile("tokens/s", "tokens_per_second", lambda value: f"{value:,.0f}", 7),
    ]
    # A training that has ended has no time left.
    return [*tiles, tile("time left", "eta_seconds", format_duration, 7)] if view.is_active else tiles
