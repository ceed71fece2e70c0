"""Metric tiles: current values with sparklines of the last minute."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from textual.geometry import Size
from textual.strip import Strip

from engine.runtime.process import POLL_INTERVAL, MachineStats, poll_machine_stats
from lotr_tui.background_task import BackgroundTask
from lotr_tui.monitor.hardware_history import MachineHistory, MetricTile, training_tiles
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.bars import sparkline
from lotr_tui.widgets.drawing import StripWidget

MIN_SPARKLINE_WIDTH = 8
MAX_SPARKLINE_WIDTH = 60
VALUE_WIDTH = 18
"""Width of a value if each tile has its own line."""
TILE_GAP = 3
MAX_LINES = 8
"""Maximum number of lines of tiles side by side."""


class MetricTiles(StripWidget):
    """Metrics of a training, and of this machine while it trains.

    The tiles are side by side above the curve. On a narrow screen, they are a pane with one tile per line.
    """

    DEFAULT_CSS = """
    MetricTiles { height: auto; padding: 0 1; }
    MetricTiles > .metric-tiles--name { color: $muted; text-style: $muted-style; }
    MetricTiles > .metric-tiles--history { color: $secondary; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"metric-tiles--name", "metric-tiles--history"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.machine_history: MachineHistory | None = None
        """Readings of this machine; None before the first training in this process."""
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
        """Show the metrics of `view`."""
        self._view = view
        self._redraw_or_relayout()

    @property
    def is_monitoring(self) -> bool:
        """True while this machine is read."""
        return self._machine_reader.is_running

    def set_machine_monitoring(self, enabled: bool) -> None:
        """Start or stop to read this machine."""
        if enabled and not self.is_monitoring:
            self.machine_history = self.machine_history or MachineHistory()
            self._machine_reader.start(poll_machine_stats)
        elif not enabled:
            self._machine_reader.cancel()

    def on_unmount(self) -> None:
        self._machine_reader.cancel()

    def _add_readings(self, readings: list[MachineStats]) -> None:
        assert self.machine_history is not None
        for reading in readings:
            self.machine_history.add(time.monotonic(), reading)
        self._redraw_or_relayout()

    def _redraw_or_relayout(self) -> None:
        if len(self._tile_rows(self.size.width)) != self._num_lines and not self._is_stacked:
            self._lines = []
            self.refresh(layout=True)
        else:
            self.redraw_changes()

    @property
    def _is_stacked(self) -> bool:
        """True if each tile has its own line."""
        return self.screen.has_class("-narrow")

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._num_lines = len(self._tile_rows(width))
        return self._num_lines

    def draw(self, width: int, height: int) -> list[Strip]:
        rows = self._tile_rows(width)
        sparkline_width = _sparkline_width(rows, width)
        name_style = self.get_component_rich_style("metric-tiles--name")
        history_style = self.get_component_rich_style("metric-tiles--history")
        lines = []
        for row in rows[:height]:
            segments = [Segment(f"{row[0].group} ", name_style)] if row[0].group else []
            for tile in row:
                segments += [
                    Segment(f"{tile.name} ", name_style),
                    Segment(f"{tile.value:>{tile.value_width}} ", self.rich_style),
                    Segment(sparkline(tile.resample(sparkline_width), tile.max_value), history_style),
                    Segment(" " * TILE_GAP, self.rich_style),
                ]
            lines.append(Strip(segments[:-1]))
        if self._is_stacked and 2 * len(lines) <= height + 1:
            return [line for drawn in lines for line in (drawn, Strip([]))]
        return lines

    def _tile_rows(self, width: int) -> list[list[MetricTile]]:
        """Return the tiles of each line: as many as fit, and the tiles of each GPU on lines of their own."""
        tiles = [*training_tiles(self._view), *(self.machine_history.tiles() if self.machine_history else [])]
        if self._is_stacked:
            names = [f"{tile.group} {tile.name}".strip() for tile in tiles]
            name_width = max(map(len, names), default=0)
            return [
                [replace(tile, group="", name=f"{name:<{name_width}}", value_width=VALUE_WIDTH)]
                for name, tile in zip(names, tiles, strict=True)
            ]
        rows = [row for _, members in groupby(tiles, key=lambda tile: tile.group) for row in _balance(members, width)]
        return rows[:MAX_LINES]  # a machine with many GPUs shows only the first ones


def _balance(tiles: Iterable[MetricTile], width: int) -> list[list[MetricTile]]:
    """Divide the tiles of a group into as few lines as possible, with about the same number of tiles each."""
    tiles = list(tiles)
    for num_rows in range(1, len(tiles) + 1):
        size = math.ceil(len(tiles) / num_rows)
        rows = [tiles[start : start + size] for start in range(0, len(tiles), size)]
        if all(_row_width(row, MIN_SPARKLINE_WIDTH) <= width for row in rows):
            return rows
    return [[tile] for tile in tiles]


def _row_width(row: Sequence[MetricTile], sparkline_width: int) -> int:
    """Return the width of tiles side by side."""
    group_width = len(row[0].group) + 1 if row[0].group else 0
    widths = (len(tile.name) + tile.value_width + sparkline_width + 2 for tile in row)
    return group_width + sum(widths) + TILE_GAP * (len(row) - 1)


def _sparkline_width(rows: Iterable[Sequence[MetricTile]], width: int) -> int:
    """Return the width of sparklines with which the fullest line ends at the right edge."""
    room = min(((width - _row_width(row, 0)) // len(row) for row in rows), default=0)
    return max(MIN_SPARKLINE_WIDTH, min(MAX_SPARKLINE_WIDTH, room))
