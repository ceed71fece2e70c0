"""Perplexity chart of the dashboard, with zoom and a cursor."""

import math
from collections.abc import Mapping

import numpy as np
from rich.segment import Segment
from textual import events
from textual.strip import Strip

from engine.errors import printable
from lotr_tui.formatting import format_duration
from lotr_tui.widgets import charts

MIN_VISIBLE_STEPS = 8  # in the smallest visible range, about


class TrainingChart(charts.PerplexityChart):
    """Perplexity chart that can be zoomed, and has a cursor at an epoch, which a click moves."""

    def set_cursor(self, epoch: float | None) -> None:
        self.cursor = None if epoch is None else min(epoch, self._view.epoch)  # records may have any
        self.redraw_changes()

    def zoom(self, factor: float) -> None:
        """Multiply the visible width by `factor`; 0.5 zooms in, and 0 shows the whole curve."""
        left, right = self.x_range
        smallest = self.x_end * min(1, MIN_VISIBLE_STEPS / max(1, len(self._view.steps)))
        width = max((right - left) * factor, smallest)
        self.visible_epochs = width if factor and width < self.x_end else None
        self.redraw_changes()

    def epoch_beside(self, columns: int) -> float | None:
        """Return the epoch some columns from the cursor; None for the latest one."""
        left, right = self.x_range
        epoch = self._view.epoch if self.cursor is None else self.cursor
        epoch += columns * (right - left) / max(1, self.size.width - charts.Y_LABEL_WIDTH)
        return max(0.0, epoch) if epoch < self._view.epoch else None

    async def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None and self._view.evaluations:
            left, right = self.x_range
            columns = max(1, self.size.width - charts.Y_LABEL_WIDTH - 1)
            epoch = max(0.0, left + (offset.x - charts.Y_LABEL_WIDTH) / columns * (right - left))
            await self.run_action(f"screen.select_epoch({epoch if epoch < self._view.epoch else None})")

    def _y_range(self, curves: Mapping[str, charts.LogCurve]) -> tuple[float, float]:
        """Return the range, rounded outwards so that it changes rarely; after a zoom, all visible values fit."""
        visible = [bound for curve in curves.values() for bound in charts.perplexity_bounds(curve)]
        (low, high), steps_per_decade = super()._y_range(curves), 40
        if self.visible_epochs is not None and visible:
            low, high, steps_per_decade = min(visible), max(visible), 200
        return (
            10 ** (math.floor(math.log10(low) * steps_per_decade) / steps_per_decade),
            10 ** (math.ceil(math.log10(high) * steps_per_decade) / steps_per_decade),
        )

    def _empty_lines(self) -> list[Strip]:
        """Return the reason why there is no curve."""
        view = self._view
        texts = {"preparing": f"{printable(view.activity)} …", "failed": printable(view.failure)}
        text = texts.get(view.phase, "The curve starts with the first validation.")
        return [Strip([]), Strip([Segment(text, self.get_component_rich_style("chart--axis"))])]

    def _label_curves(self, plot: charts.Plot, cells_by_style: Mapping[str, charts.BrailleCells]) -> None:
        """Draw the name of each curve near its end, for terminals without colour."""
        for name in ("valid", "train"):
            cells = cells_by_style[f"chart--{name}"]
            for column in np.flatnonzero(cells.any(axis=0))[-1:].tolist():
                row, after, before = int(np.flatnonzero(cells[:, column])[0]), column + 2, column - len(name) + 1
                places = ((row, after), (row - 1, before), (row + 1, before), (row - 2, before), (row + 2, before))
                free = (place for place in places if plot.is_free(place[0], place[1] - 1, len(name) + 1))
                if place := next(free, None):
                    plot.draw_text(*place, name, f"chart--{name}")

    def _legend(self) -> list[tuple[str, str, str]]:
        """Return the figures at the cursor, or the latest figures without a cursor."""
        if (cursor := self.cursor) is None:
            return super()._legend()
        steps, unit = self._view.steps, self._view.unit
        count = int(np.searchsorted(steps.column("epoch"), cursor, "right"))
        evaluation = next((event for event in reversed(self._view.evaluations) if event.epoch <= cursor), None)
        step, seconds, train, lr = 0.0, 0.0, math.nan, "-"
        if count:
            step, seconds = (float(steps.column(name)[count - 1]) for name in ("step", "seconds"))
            train = 10.0 ** float(self._smoothed_train.compute(steps)[count - 1])
            lr = f"{steps.column('lr')[count - 1]:.3g}"
        return [
            ("chart--cursor", "│ epoch", f"{cursor:.2f}"),
            ("chart--valid", "━ valid", unit.format(evaluation.valid_perplexity if evaluation else None)),
            ("chart--train", "━ train", unit.format(train)),
            ("chart--axis", "lr", lr),
            ("chart--axis", "step", f"{step:,.0f}"),
            ("chart--axis", "time", format_duration(seconds)),
        ]
