"""Tiles: a figure each, with its last minute."""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from textual.geometry import Size
from textual.strip import Strip
from textual.timer import Timer

from engine.runtime.hardware import READ_SECONDS, MachineReading, readings
from engine.runtime.worker import Worker
from lotr_tui.monitor.hardware_history import MachineHistory, Tile, training_tiles
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.bars import sparkline
from lotr_tui.widgets.drawing import Drawing

SHORT = 8
"""Cells of a history where tiles stand side by side."""
LONG = 60
"""The most that it has where each tile has a line."""
WIDEST = 18
"""Columns of a value there."""
GAP = 3
MOST_LINES = 8
"""Where they stand above the curve."""


class Tiles(Drawing):
    """What a training tells of itself; what it takes of this machine, read while one of this process goes on.

    Side by side above the curve, or on a narrow screen in a pane of their own, with a line each.
    """

    DEFAULT_CSS = """
    Tiles { height: auto; padding: 0 1; }
    Tiles > .tiles--name { color: $foreground 60%; }
    Tiles > .tiles--history { color: $secondary; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"tiles--name", "tiles--history"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = TrainingView()
        self._machine: MachineHistory | None = None
        self._reader: Worker[MachineReading] | None = None
        self._timer: Timer | None = None
        self._height = 0

    def show(self, view: TrainingView) -> None:
        """Show what is known now."""
        self._view = view
        self._changed()

    def read_machine(self, wanted: bool) -> None:
        """Take readings of this machine from now on, or no more."""
        if wanted and self._reader is None:
            self._machine = self._machine or MachineHistory()
            self._reader = Worker("machine", readings).start()
            self._timer = self.set_interval(READ_SECONDS, self._take_readings)
        elif not wanted and self._reader is not None:
            self._reader.cancel()
            self._reader = None
            if self._timer is not None:
                self._timer.stop()

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        self.read_machine(False)

    def _take_readings(self) -> None:
        if self._reader is not None and self._machine is not None and (new := self._reader.drain()):
            for reading in new:
                self._machine.add(time.monotonic(), reading)
            self._changed()

    def _changed(self) -> None:
        if len(self._arranged(self.size.width)) != self._height and not self._listed:
            self._lines = []
            self.refresh(layout=True)
        else:
            self.redraw_changes()

    @property
    def _listed(self) -> bool:
        return self.screen.has_class("-narrow")

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the tiles take."""
        self._height = len(self._arranged(width))
        return self._height

    def draw(self, width: int, height: int) -> list[Strip]:
        """A line of tiles after the other."""
        listed = self._listed
        rows = self._arranged(width)
        group_width = max((len(row[0].group) + 1 for row in rows if row[0].group), default=0)
        name_width = max((len(_named(row[0])) for row in rows), default=0) if listed else 0
        cells = max(SHORT, min(LONG, width - name_width - WIDEST - 5)) if listed else SHORT
        lines = [Strip(self._line(row, group_width, name_width, cells)) for row in rows[:height]]
        if listed and 2 * len(lines) <= height + 1:
            return [part for line in lines for part in (line, Strip([]))]
        return lines

    def _line(self, row: Sequence[Tile], group_width: int, name_width: int, cells: int) -> list[Segment]:
        names, histories = (self.get_component_rich_style(f"tiles--{part}") for part in ("name", "history"))
        segments: list[Segment] = []
        if not name_width and row[0].group:
            segments.append(Segment(f"{row[0].group:<{group_width}}", names))
        for tile in row:
            room = WIDEST if name_width else tile.width
            name = f"{_named(tile):<{name_width}} " if name_width else f"{tile.name} "
            segments += [
                Segment(name, names),
                Segment(f"{tile.value:>{room}} ", self.rich_style),
                Segment(sparkline(tile.shape(cells), tile.top), histories),
                Segment(" " * GAP, self.rich_style),
            ]
        return segments[:-1]

    def _arranged(self, width: int) -> list[list[Tile]]:
        """The tiles of each line: as many as fit, those of a GPU on lines of their own."""
        tiles = [*training_tiles(self._view), *(self._machine.tiles() if self._machine else [])]
        if self._listed:
            return [[tile] for tile in tiles]
        rows: list[list[Tile]] = []
        for group, members in groupby(tiles, key=lambda tile: tile.group):
            used = width + 1
            for tile in members:
                taken = len(tile.name) + tile.width + SHORT + 2 + GAP
                if used + taken - GAP > width:
                    rows.append([])
                    used = len(group) + 1 if group else 0
                rows[-1].append(tile)
                used += taken
        return rows[:MOST_LINES]  # without the last GPUs of many


def _named(tile: Tile) -> str:
    return f"{tile.group} {tile.name}".strip()
