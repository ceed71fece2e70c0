"""Perplexity against epochs on a log axis, with the lines to beat."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static
from textual_plot import AxisFormatter, HiResMode, NumericAxisFormatter, PlotWidget

from lotr_tui.training_view import TrainingView

Floats = npt.NDArray[np.float64]

MOST_POINTS = 400
SMOOTHING = 0.7
"""Of the train curve: the share of the old mean in each new one."""


class LogFormatter(AxisFormatter):
    """Round values for an axis that shows base-10 logarithms: 1, 2, 5 times powers of ten, evenly spaced if few fit."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        """Positions, as logarithms."""
        decades = range(math.floor(min_), math.ceil(max_) + 1)
        values = [step * 10.0**power for power in decades for step in (1, 2, 5)]
        ticks = [tick for tick in map(math.log10, values) if min_ <= tick <= max_]
        if len(ticks) > max_ticks:
            return [tick for tick in ticks if tick == round(tick)]
        if len(ticks) < 4:
            even = NumericAxisFormatter().get_ticks(10**min_, 10**max_, max_ticks)
            ticks = [math.log10(value) for value in even if value > 0 and min_ <= math.log10(value) <= max_]
        return ticks

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """The values themselves."""
        return [f"{10**tick:,.0f}" for tick in ticks]


class _Plot(PlotWidget):
    """A plot with the margins that our labels need and no more."""

    margin_top = reactive(0)
    margin_bottom = reactive(2)
    margin_left = reactive(6)


class PerplexityChart(Vertical):
    """A legend with the latest figures, and the curves under it."""

    DEFAULT_CSS = """
    PerplexityChart { height: 1fr; min-height: 6; }
    PerplexityChart > #legend-line { height: 1; padding: 0 1; }
    PerplexityChart PlotWidget { height: 1fr; }
    PerplexityChart PlotWidget > .plot--axis { color: $border; }
    PerplexityChart PlotWidget:focus > .plot--axis { color: $secondary; }
    PerplexityChart PlotWidget > .plot--tick { color: $text-muted; text-style: none; }
    """

    def __init__(self, *, id: str | None = None, compact: bool = False) -> None:
        super().__init__(id=id)
        self._compact = compact
        self._drawn = (-1, -1)
        self._plot = _Plot(allow_pan_and_zoom=not compact)
        self._plot.can_focus = not compact
        self._plot.set_y_formatter(LogFormatter())
        self._plot.set_x_formatter(NumericAxisFormatter())

    def compose(self) -> ComposeResult:
        """The legend and the plot."""
        yield Static("", id="legend-line", markup=False)
        yield self._plot

    def show(self, view: TrainingView) -> None:
        """Draw `view`, if it has anything new."""
        self.query_one("#legend-line", Static).update(self._legend(view), layout=False)
        drawn = (len(view.steps), len(view.evaluations))
        if drawn == self._drawn or not view.evaluations:
            return
        self._drawn = drawn
        colors = self.app.theme_variables
        plot = self._plot
        plot.clear()
        right = float(max(1, view.epochs if view.active else math.ceil(view.epoch)))
        lowest, highest = [], []
        if view.started:
            for value in (view.started.unigram_perplexity, view.started.kneser_ney_perplexity):
                if math.isfinite(value) and value > 0:
                    level = math.log10(value)
                    across = np.linspace(0.0, right, 2 * max(20, plot.size.width))
                    plot.scatter(across, np.full(len(across), level), marker="┄", marker_style=colors["secondary"])
                    lowest.append(level)
                    highest.append(level)
        for x, y, color in (
            (*_train_curve(view), colors["foreground"]),
            (*_valid_curve(view), colors["accent"]),
        ):
            if len(x):
                plot.plot(x, y, line_style=color, hires_mode=HiResMode.BRAILLE)
        best = view.best
        if best is not None:
            plot.scatter([best.epoch], [math.log10(best.valid_perplexity)], marker="●", marker_style=colors["accent"])
        _, valid = _valid_curve(view)
        lowest.append(float(valid.min()))
        highest.append(min(float(valid.max()), lowest[0] + 0.8))
        margin = 0.04 * max(0.2, max(highest) - min(lowest))
        plot.set_xlimits(0.0, right)
        plot.set_ylimits(min(lowest) - margin, max(highest) + margin)

    def _legend(self, view: TrainingView) -> Content:
        parts: list[Content | tuple[str, str] | str] = []
        if not self._compact:
            parts.append(("perplexity  ", "bold"))
        if view.evaluations and (best := view.best) is not None:
            parts += [("━ valid ", "$accent"), f"{view.evaluations[-1].valid_perplexity:.1f}  "]
            parts += [("● best ", "$accent"), f"{best.valid_perplexity:.1f}  "]
        if view.steps and not self._compact:
            parts += [("━ train ", "$foreground 60%"), f"{view.steps[-1].train_perplexity:.1f}  "]
        if view.started:
            parts += [("┄ Kneser-Ney ", "$secondary"), f"{view.started.kneser_ney_perplexity:.1f}  "]
            if not self._compact:
                parts += [("┄ unigram ", "$secondary"), f"{view.started.unigram_perplexity:.1f}"]
        return Content.assemble(*parts)


def _train_curve(view: TrainingView) -> tuple[Floats, Floats]:
    """The train perplexity, smoothed, thinned out, as logarithms."""
    epochs, levels, mean = [], [], math.nan
    for step in view.steps:
        level = math.log10(step.train_perplexity) if step.train_perplexity > 0 else math.nan
        mean = level if math.isnan(mean) else SMOOTHING * mean + (1 - SMOOTHING) * level
        epochs.append(step.epoch)
        levels.append(mean)
    return thin_out(np.array(epochs), np.array(levels))


def _valid_curve(view: TrainingView) -> tuple[Floats, Floats]:
    epochs = np.array([event.epoch for event in view.evaluations])
    return epochs, np.log10([event.valid_perplexity for event in view.evaluations])


def thin_out(x: Floats, y: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """At most about `most` points, keeping the lowest and highest of each stretch so that spikes stay."""
    if len(x) <= most:
        return x, y
    keep: set[int] = {0, len(x) - 1}
    for stretch in np.array_split(np.arange(len(x)), most // 2):
        keep.add(int(stretch[np.argmin(y[stretch])]))
        keep.add(int(stretch[np.argmax(y[stretch])]))
    chosen = sorted(keep)
    return x[chosen], y[chosen]
