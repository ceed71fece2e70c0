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
from lotr_tui.widgets.charts import Y_LABEL_WIDTH

MIN_VISIBLE_STEPS = 8  # in the smallest visible range, about


class TrainingChart(charts.PerplexityChart):
    """Perplexity chart that can be zoomed, and has a cursor at an update, which a click moves."""

    cursor_step: int | None = None  # None follows the latest update without a cursor line

    def set_cursor(self, step: int | None) -> None:
        self.cursor_step = step
        self.redraw_changes()

    def zoom(self, factor: float) -> None:
        """Multiply the visible width by `factor`; 0.5 zooms in, and 0 shows the whole curve."""
        left, right = self.x_range
        smallest = self.x_end * min(1, MIN_VISIBLE_STEPS / max(1, len(self._view.steps)))
        width = max((right - left) * factor, smallest)
        self.visible_epochs = width if factor and width < self.x_end else None
        self.redraw_changes()

    def step_at_column_offset(self, columns: int) -> int | None:
        """Return the update `columns` columns from the cursor, at least one step away; None for the latest update."""
        steps, epochs = self._view.steps.column("step"), self._view.steps.column("epoch")
        if not len(steps):
            return None
        left, right = self.x_range
        current = len(steps) - 1
        if self.cursor_step is not None:
            current = min(current, int(np.searchsorted(steps, self.cursor_step)))
        epoch = epochs[current] + columns * (right - left) / max(1, self.size.width - Y_LABEL_WIDTH)
        target = int(np.searchsorted(epochs, epoch))
        target = max(target, current + 1) if columns > 0 else min(target, current - 1)
        return None if target >= len(steps) else int(steps[max(0, target)])

    async def on_click(self, event: events.Click) -> None:
        offset, steps = event.get_content_offset(self), self._view.steps.column("step")
        if offset is not None and len(steps):
            left, right = self.x_range
            epoch = left + (offset.x - Y_LABEL_WIDTH) / max(1, self.size.width - Y_LABEL_WIDTH - 1) * (right - left)
            index = int(np.searchsorted(self._view.steps.column("epoch"), epoch))
            await self.run_action(f"screen.select_step({int(steps[index]) if index < len(steps) else None})")

    def _cursor_epoch(self) -> float | None:
        step, steps, epochs = self.cursor_step, self._view.steps.column("step"), self._view.steps.column("epoch")
        if step is None or not len(steps):
            return None
        return float(epochs[0] * step / steps[0] if step < steps[0] else np.interp(step, steps, epochs))

    def _y_range(self, curves: Mapping[str, charts.LogCurve]) -> tuple[float, float]:
        """Return the range, rounded outwards so that it changes rarely; after a zoom, all visible values fit."""
        visible = [bound for curve in curves.values() for bound in charts.perplexity_bounds(curve)]
        if self.visible_epochs is None or not visible:
            low, high, steps_per_decade = *super()._y_range(curves), 40
        else:
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
        for style, name in (("chart--valid", "valid"), ("chart--train", "train")):
            columns = np.flatnonzero(cells_by_style[style].any(axis=0))
            if not len(columns):
                continue
            column = int(columns[-1])
            row = int(np.flatnonzero(cells_by_style[style][:, column])[0])
            after, before = column + 2, column - len(name) + 1
            places = ((row, after), (row - 1, before), (row + 1, before), (row - 2, before), (row + 2, before))
            free = (place for place in places if plot.is_free(place[0], place[1] - 1, len(name) + 1))
            if place := next(free, None):
                plot.draw_text(*place, name, style)

    def _legend(self) -> list[tuple[str, str, str]]:
        """Return the figures at the cursor, or the latest figures without a cursor."""
        if self.cursor_step is None:
            return super()._legend()
        steps, cursor, unit = self._view.steps, self.cursor_step, self._view.unit
        count = int(np.searchsorted(steps.column("step"), cursor, "right"))
        evaluation = next((event for event in reversed(self._view.evaluations) if event.step <= cursor), None)
        train, epoch, seconds, lr = math.nan, 0.0, 0.0, "-"
        if count:
            train = 10.0 ** float(self._smoothed_train.compute(steps)[count - 1])
            epoch, seconds = (float(steps.column(name)[count - 1]) for name in ("epoch", "seconds"))
            lr = f"{steps.column('lr')[count - 1]:.3g}"
        return [
            ("chart--cursor", "│ epoch", f"{epoch:.2f}"),
            ("chart--valid", "━ valid", unit.format(evaluation.valid_perplexity if evaluation else None)),
            ("chart--train", "━ train", unit.format(train)),
            ("chart--axis", "lr", lr),
            ("chart--axis", "step", f"{cursor:,}"),
            ("chart--axis", "time", format_duration(seconds)),
        ]
