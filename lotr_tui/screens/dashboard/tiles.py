"""Metric tiles: figures of a training and of this machine, each with a sparkline of the last minute."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from textual.geometry import Size
from textual.strip import Strip

from engine.data.arrays import Float64Array
from engine.runtime.process import POLL_INTERVAL, MachineStats, poll_machine_stats
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import format_bytes, format_count, format_duration
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.bars import sparkline
from lotr_tui.widgets.drawing import StripWidget

WINDOW_SECONDS = 60.0  # of a history
YOUNG_WINDOWS = (7.5, 15.0, 30.0)  # seconds that are shown of a history that is younger
MIN_SPARKLINE_WIDTH, MAX_SPARKLINE_WIDTH = 8, 60
VALUE_WIDTH = 18  # if each tile has its own line
TILE_GAP = 3
MAX_LINES = 8  # a machine with many GPUs shows only the first ones


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


def training_tiles(view: TrainingView) -> list[MetricTile]:
    """Return one tile per training metric with its history of the last minute."""
    last, seconds = view.steps.last, view.steps.column("seconds")
    recent = slice(int(np.searchsorted(seconds, seconds[-1] - WINDOW_SECONDS)) if len(seconds) else 0, None)
    figures = [
        ("lr", "lr", f"{last.lr:.3g}" if last else "-", 8),
        ("gradient", "gradient_norm", f"{last.gradient_norm:.3g}" if last else "-", 6),
        ("tokens/s", "tokens_per_second", format_count(last.tokens_per_second) if last else "-", 7),
        ("time left", "eta_seconds", format_duration(last.eta_seconds) if last else "-", 7),
    ]
    return [
        MetricTile("", name, value, width, seconds[recent], view.steps.column(field)[recent])
        for name, field, value, width in figures
        if view.is_active or name != "time left"
    ]


def machine_tiles(readings: Sequence[tuple[float, MachineStats]]) -> list[MetricTile]:
    """Return one tile per metric that can be read, from readings with their times, or tiles without values."""
    if not readings:
        empty = np.empty(0)
        return [MetricTile("", name, "-", width, empty, empty) for name, width in (("memory", 8), ("CPU", 11))]
    times, stats = np.array([seconds for seconds, _ in readings]), [reading for _, reading in readings]
    tiles: list[MetricTile] = []

    def add(name: str, value: str, width: int, field: str, scale: float | None = None, gpu: int = -1) -> None:
        sources = stats if gpu < 0 else [each.gpus[gpu] if gpu < len(each.gpus) else None for each in stats]
        history = np.array([getattr(source, field, None) for source in sources], float)  # None becomes NaN
        tiles.append(MetricTile("" if gpu < 0 else f"GPU {gpu}", name, value, width, times, history, scale))

    latest = stats[-1]
    add("memory", format_bytes(latest.memory_used, binary=True), 8, "memory_used")
    add("CPU", f"{latest.cpu_cores_used:.1f} of {latest.cpu_cores}", 11, "cpu_cores_used", latest.cpu_cores)
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


class MetricTiles(StripWidget):
    """Metrics of a training, and of this machine while it trains.

    The tiles are columns above the curve. On a narrow screen, they are a pane with one tile per line.
    """

    DEFAULT_CSS = """
    MetricTiles { height: auto; padding: 0 1; }
    MetricTiles > .metric-tiles--name { color: $muted; text-style: $muted-style; }
    MetricTiles > .metric-tiles--history { color: $secondary; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"metric-tiles--name", "metric-tiles--history"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._readings: list[tuple[float, MachineStats]] | None = None  # until this process trains
        self._view = TrainingView()
        self._machine_reader: BackgroundTask[MachineStats] = BackgroundTask(
            self,
            "machine",
            on_items=self._add_readings,
            on_error=lambda error: self.log.warning(f"the machine is no longer monitored: {error}"),
            interval=POLL_INTERVAL,
        )
        self._num_lines = 0

    def show(self, view: TrainingView) -> None:
        self._view = view
        if len(self._rows(self.size.width)) != self._num_lines and not self._is_stacked:
            self._lines = []
            self.refresh(layout=True)
        else:
            self.redraw_changes()

    @property
    def is_monitoring(self) -> bool:
        """True while this machine is read."""
        return self._machine_reader.is_running

    def set_machine_monitoring(self, enabled: bool) -> None:
        """Start or stop to read this machine."""
        if enabled and not self.is_monitoring:
            self._readings = self._readings or []
            self._machine_reader.start(poll_machine_stats)
        elif not enabled:
            self._machine_reader.cancel()

    def on_unmount(self) -> None:
        self._machine_reader.cancel()

    def _add_readings(self, readings: list[MachineStats]) -> None:
        now = time.monotonic()
        kept = [each for each in self._readings or () if each[0] >= now - WINDOW_SECONDS]
        self._readings = [*kept, *((now, reading) for reading in readings)]
        self.show(self._view)

    @property
    def _is_stacked(self) -> bool:
        """True if each tile has its own line."""
        return self.screen.has_class("-narrow")

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._num_lines = len(self._rows(width))
        return self._num_lines

    def draw(self, width: int, height: int) -> list[Strip]:
        styles = self.component_styles()
        name_style, history_style = styles["metric-tiles--name"], styles["metric-tiles--history"]
        lines = []
        for columns, row in self._rows(width)[:height]:
            group = f"{row[0].group} " if row[0].group else ""
            segments = [Segment(group, name_style)]
            cell = (width - len(group) + TILE_GAP) // columns - TILE_GAP
            for tile in row:
                room = cell - len(tile.name) - tile.value_width - 2
                history = sparkline(tile.resample(min(MAX_SPARKLINE_WIDTH, max(1, room))), tile.max_value)
                value = Segment(f"{tile.value:>{tile.value_width}} ", styles[""])
                padding = " " * (max(0, room - MAX_SPARKLINE_WIDTH) + TILE_GAP)
                segments += [Segment(f"{tile.name} ", name_style), value]
                segments += [Segment(history, history_style), Segment(padding, styles[""])]
            lines.append(Strip(segments[:-1]))
        if self._is_stacked and 2 * len(lines) <= height + 1:
            return [line for drawn in lines for line in (drawn, Strip([]))]
        return lines

    def _rows(self, width: int) -> list[tuple[int, list[MetricTile]]]:
        """Return the tiles of each line and their columns; the tiles of each GPU are on lines of their own."""
        tiles = [*training_tiles(self._view), *(machine_tiles(self._readings) if self._readings is not None else [])]
        if self._is_stacked:
            names = [f"{tile.group} {tile.name}".strip() for tile in tiles]
            name_width = max(map(len, names))
            return [
                (1, [replace(tile, group="", name=name.ljust(name_width), value_width=VALUE_WIDTH)])
                for name, tile in zip(names, tiles, strict=True)
            ]
        rows = []
        for group, members in groupby(tiles, key=lambda tile: tile.group):
            same = list(members)
            widest = max(len(tile.name) + tile.value_width for tile in same) + 2 + MIN_SPARKLINE_WIDTH + TILE_GAP
            fitting = max(1, (width - len(group) + TILE_GAP) // widest)
            columns = math.ceil(len(same) / math.ceil(len(same) / fitting))  # the lines are about equally long
            rows += [(columns, same[start : start + columns]) for start in range(0, len(same), columns)]
        return rows[:MAX_LINES]
