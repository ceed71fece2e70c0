"""The curve of the dashboard: it can be looked at in parts, along other axes, and read at a place."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.errors import printable
from lotr_tui.formatting import duration, perplexity
from lotr_tui.monitor.smoothing import Smoothed, log10
from lotr_tui.monitor.step_columns import Floats
from lotr_tui.widgets.charts.axes import FIELDS, Along
from lotr_tui.widgets.charts.canvas import Canvas
from lotr_tui.widgets.charts.perplexity_chart import LABEL_WIDTH, Curve, PerplexityChart, column_of, known
from lotr_tui.widgets.charts.plotting import decimate

SMOOTHINGS = (0.85, 0.97, 0.995)
ALONG: tuple[Along, ...] = ("epoch", "update", "time")
FEWEST_REPORTS = 8
"""About so many are seen at the closest."""


class TrainingChart(PerplexityChart):
    """The train perplexity as it is behind the smoothed one; a cursor at an update."""

    name_within = 40  # it may be another one next

    class Placed(Message):
        """The cursor was put at an update; None: it follows the latest."""

        def __init__(self, place: int | None) -> None:
            super().__init__()
            self.place = place

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._place: int | None = None

    def mark(self, place: int | None) -> None:
        """Put the cursor at this update, in sight; None: it follows the latest, and is not drawn."""
        self._place = place
        if place is not None:
            self.axes = self.axes.showing(self._place_of(place), self.whole, self.latest)
        self.redraw_changes()

    # Looking at it

    def action_zoom(self, factor: float) -> None:
        """See so much of the width: 0.5 is twice as close."""
        whole, reports = self.whole, max(FEWEST_REPORTS, len(self._view.steps))
        about = None if self._place is None else self._place_of(self._place)
        self.axes = self.axes.zoomed(factor, about, whole, self.latest, whole * FEWEST_REPORTS / reports)
        self.redraw_changes()

    def action_pan(self, share: float) -> None:
        """Move what is seen by a share of its width."""
        self.axes = self.axes.panned(share, self.whole, self.latest)
        self.redraw_changes()

    def action_show_all(self) -> None:
        """All of the curve again."""
        self.axes = replace(self.axes, width=None, right=None)
        self.redraw_changes()

    def action_toggle_logarithmic(self) -> None:
        """A linear axis of perplexities, or a logarithmic one."""
        self.axes = replace(self.axes, logarithmic=not self.axes.logarithmic)
        self.redraw_changes()

    def action_next_along(self) -> None:
        """Epochs, updates or time; what is seen stays about the same."""
        left, right = self.part
        ends = np.array([left, min(right, self.latest)])
        old, axes = self._column(self.axes.along), self.axes
        axes = replace(axes, along=ALONG[(ALONG.index(axes.along) + 1) % len(ALONG)])
        if axes.width is not None and len(old):
            start, end = np.interp(ends, old, self._column(axes.along)).tolist()
            axes = replace(axes, width=max(end - start, 1e-9), right=None if axes.right is None else end)
        self.axes = axes
        self.redraw_changes()

    def action_next_smoothing(self) -> None:
        """A smoother train curve; behind the smoothest the first again."""
        share = SMOOTHINGS[(SMOOTHINGS.index(self._smoothed.share) + 1) % len(SMOOTHINGS)]
        self._smoothed = Smoothed(share)
        self.redraw_changes()

    def step_aside(self, columns: int) -> int | None:
        """The update so many columns from the cursor, at least one report away; None: the latest."""
        steps, places = self._view.steps.column("step"), self._column(self.axes.along)
        if not len(steps):
            return None
        left, right = self.part
        here = len(steps) - 1 if self._place is None else int(np.searchsorted(steps, self._place))
        here = min(here, len(steps) - 1)
        target = places[here] + columns * (right - left) / max(1, self.size.width - LABEL_WIDTH)
        there = int(np.searchsorted(places, target))
        there = max(there, here + 1) if columns > 0 else min(there, here - 1)
        return None if there >= len(steps) else int(steps[max(0, there)])

    def on_click(self, event: events.Click) -> None:
        """The cursor goes where the pointer is; behind the latest it follows that."""
        offset = event.get_content_offset(self)
        if offset is None or not len(self._view.steps):
            return
        left, right = self.part
        x = left + (offset.x - LABEL_WIDTH) / max(1, self.size.width - LABEL_WIDTH - 1) * (right - left)
        nearest = int(np.searchsorted(self._column(self.axes.along), x))
        steps = self._view.steps.column("step")
        self.post_message(self.Placed(int(steps[nearest]) if nearest < len(steps) else None))

    # What is seen

    def _column(self, along: Along) -> Floats:
        return self._view.steps.column(FIELDS[along])

    def _place_of(self, step: int) -> float:
        """Where on the axis an update is."""
        steps, places = self._view.steps.column("step"), self._column(self.axes.along)
        if not len(steps):
            return 0.0
        if step < steps[0]:
            return float(places[0] * step / steps[0])
        return float(np.interp(step, steps, places))

    def _raw_curve(self, x_range: tuple[float, float], columns: int) -> Curve:
        """The train perplexity as it is."""
        steps = self._view.steps
        x, y = decimate(self._column(self.axes.along), steps.column("train_perplexity"), x_range, 2 * columns)
        return x, log10(y)

    def _range(self, curves: dict[str, Curve]) -> tuple[float, float]:
        """Rounded outwards, so that it seldom changes; of a part, what is in it, spikes too."""
        seen = [level for curve in curves.values() for level in known(curve)]
        if self.axes.width is None or not seen:
            low, high, grid = *super()._range(curves), 40
        else:
            low, high, grid = min(seen), max(seen), 200
        return 10 ** (math.floor(math.log10(low) * grid) / grid), 10 ** (math.ceil(math.log10(high) * grid) / grid)

    def _nothing_yet(self) -> list[Strip]:
        """Why there is no curve."""
        view = self._view
        text = {"preparing": f"{printable(view.note)} …", "failed": printable(view.failure)}.get(
            view.phase, "The curve begins with the first validation."
        )
        return [Strip([]), Strip([Segment(text, self.get_component_rich_style("chart--axis"))])]

    def _mark_place(self, canvas: Canvas, x_range: tuple[float, float]) -> None:
        """The cursor's line."""
        if self._place is not None and x_range[0] <= (place := self._place_of(self._place)) <= x_range[1]:
            canvas.upright(column_of(place, x_range, canvas.columns), "chart--cursor")

    def _name_curves(self, canvas: Canvas, patterns: dict[str, npt.NDArray[np.uint8]]) -> None:
        """Each curve's name near its end, since there are terminals without colours."""
        for style, name in (("chart--valid", "valid"), ("chart--train", "train")):
            columns = np.flatnonzero(patterns[style].any(axis=0))
            if not len(columns):
                continue
            column = int(columns[-1])
            row = int(np.flatnonzero(patterns[style][:, column])[0])
            behind, before = column + 2, column - len(name) + 1
            for down, place in ((0, behind), (-1, before), (1, before), (-2, before), (2, before)):
                if canvas.is_free(row + down, place - 1, len(name) + 1):
                    canvas.put(row + down, place, name, style)
                    break

    def _figures(self) -> list[tuple[str, str, str]]:
        """The latest figures, or those at the cursor."""
        if self._place is None:
            return super()._figures()
        view, place = self._view, self._place
        reports = int(np.searchsorted(view.steps.column("step"), place, "right"))
        evaluation = next((event for event in reversed(view.evaluations) if event.step <= place), None)

        def at(name: str) -> float:
            return float(view.steps.column(name)[reports - 1]) if reports else math.nan

        smoothed = float(self._smoothed.of(view.steps)[reports - 1]) if reports else math.nan
        valid = evaluation.valid_perplexity if evaluation else math.nan
        where: dict[Along, Callable[[], str]] = {
            "epoch": lambda: f"{at('epoch') if reports else 0.0:.2f}",
            "update": lambda: f"{place:,}",
            "time": lambda: duration(at("seconds") if reports else 0.0),
        }
        first = self.axes.along
        return [
            ("chart--cursor", f"│ {first}", where[first]()),
            ("chart--valid", "━ valid", perplexity(valid)),
            ("chart--train", "━ train", perplexity(10.0**smoothed)),
            ("chart--raw", "raw", perplexity(at("train_perplexity"))),
            ("chart--axis", "lr", f"{at('lr'):.3g}" if reports else "-"),
            *(("chart--axis", name, text()) for name, text in where.items() if name != first),
        ]
