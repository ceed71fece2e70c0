"""Progress and figures of a training."""

import math
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip

from engine.errors import printable
from lotr_tui.formatting import format_duration
from lotr_tui.monitor.log_lines import describe_training_end
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.drawing import StripWidget, fit_groups


class TrainingMetrics(StripWidget):
    """Progress bar, and below it as many figures as fit; the metric tiles show the other measurements."""

    DEFAULT_CSS = """
    TrainingMetrics { height: 2; padding: 0 1; }
    TrainingMetrics > .training-metrics--done { color: $accent; }
    TrainingMetrics > .training-metrics--name { color: $muted; text-style: $muted-style; }
    TrainingMetrics > .training-metrics--state { text-style: bold; }
    TrainingMetrics > .training-metrics--failed { color: $text-error; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "training-metrics--done",
        "training-metrics--name",
        "training-metrics--state",
        "training-metrics--failed",
    }

    def __init__(self, view: TrainingView, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = view

    def show(self, view: TrainingView) -> None:
        """Show the figures of `view`."""
        self._view = view
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the progress line and the line of figures."""
        name_style = self.get_component_rich_style("training-metrics--name")
        groups = (
            [Segment(f"{name} ", name_style), Segment(f"{value:<{value_width}}", self.rich_style)]
            for name, value, value_width in self._metrics()
        )
        return [Strip(self._progress_segments(width)), fit_groups(groups, width, self.rich_style, gap=2)]

    def _progress_segments(self, width: int) -> list[Segment]:
        view = self._view
        if view.phase == "preparing":
            text = f" {printable(view.activity)} …"
        elif view.phase == "failed":
            text = f" failed: {printable(view.failure)}"
        elif view.finished:
            text = f" {describe_training_end(view.finished)} after {format_duration(view.finished.seconds)}"
        else:
            left = format_duration(view.steps.last.eta_seconds) if view.steps.last else "-"
            text = f" epoch {view.epoch:.1f}/{view.epochs} · " + ("paused" if view.paused else f"{left} left")
            longest = f" epoch {view.epochs}.0/{view.epochs} · 0:00:00 left"
            text = f"{text:<{len(longest)}}"  # the bar then keeps its length
        bar_width = max(5, width - len(text))
        progress = view.epoch / view.epochs if view.epochs else 0.0
        done_width = round(min(max(progress, 0.0), 1.0) * bar_width)
        if bar_width + len(text) > width:
            text = text[: max(0, width - bar_width - 1)] + "…"
        styles = self.component_styles()
        return [
            Segment("━" * done_width, styles["training-metrics--done"]),
            Segment("─" * (bar_width - done_width), styles["training-metrics--name"]),
            Segment(text, styles[f"training-metrics--{'failed' if view.phase == 'failed' else 'state'}"]),
        ]

    def _metrics(self) -> list[tuple[str, str, int]]:
        """Return name, value and width of each figure; the width is fixed so that the line does not move."""
        view = self._view
        step, best, unit = view.steps.last, view.best, view.unit
        metrics = [
            ("train", unit.format(step.train_perplexity if step else None), 6),
            ("valid", unit.format(view.evaluations[-1].valid_perplexity if view.evaluations else None), 6),
            ("best", unit.format(best.valid_perplexity if best else None), 6),
        ]
        if view.finished:
            test = view.finished.test_perplexity
            metrics.append(("test", "not read" if math.isnan(test) else unit.format(test), 8))
        if view.evaluations and not math.isnan(printed := view.evaluations[-1].notebook_perplexity):
            metrics.append(("the notebook prints", f"{printed:.3f}", 6))
        return [*metrics, ("step", f"{view.step:,}", 7), ("elapsed", format_duration(view.seconds), 7)]
