"""Where a training stands, in numbers."""

import math
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip

from engine.errors import printable
from lotr_tui.formatting import duration, perplexity
from lotr_tui.monitor.log_lines import ended
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.drawing import Drawing

LONGEST_BAR = 60


class TrainingFigures(Drawing):
    """Progress on one line, under it as many figures as fit; what else is measured is on the tiles."""

    DEFAULT_CSS = """
    TrainingFigures { height: 2; padding: 0 1; }
    TrainingFigures > .figures--done { color: $accent; }
    TrainingFigures > .figures--name { color: $foreground 60%; }
    TrainingFigures > .figures--state { text-style: bold; }
    TrainingFigures > .figures--failed { color: $text-error; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"figures--done", "figures--name", "figures--state", "figures--failed"}

    def __init__(self, view: TrainingView, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = view

    def show(self, view: TrainingView) -> None:
        """Show how `view` stands now."""
        self._view = view
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        """The progress line, then name and value of each figure."""
        name_style = self.get_component_rich_style("figures--name")
        segments: list[Segment] = []
        used = 0
        for name, value, room in self._figures():
            used += len(name) + 1 + max(room, len(value))
            if used > width:
                break
            segments += [Segment(f"{name} ", name_style), Segment(f"{value:<{room}}  ", self.rich_style)]
            used += 2
        return [Strip(self._progress(width)), Strip(segments)]

    def _progress(self, width: int) -> list[Segment]:
        view = self._view
        share = view.epoch / view.epochs if view.epochs else 0.0
        if view.phase == "preparing":
            text = f" {printable(view.note)} …"
        elif view.phase == "failed":
            text = f" failed: {printable(view.failure)}"
        elif view.finished:
            text = f" {ended(view.finished)} after {duration(view.finished.seconds)}"
        else:
            left = duration(view.steps.last.eta_seconds) if view.steps.last else "-"
            text = f" epoch {view.epoch:.1f}/{view.epochs} · " + ("paused" if view.paused else f"{left} left")
        room = max(5, min(LONGEST_BAR, width - len(text)))
        done = round(min(max(share, 0.0), 1.0) * room)
        if room + len(text) > width:
            text = text[: max(0, width - room - 1)] + "…"
        styles = {
            name: self.get_component_rich_style(f"figures--{name}") for name in ("done", "name", "state", "failed")
        }
        return [
            Segment("━" * done, styles["done"]),
            Segment("─" * (room - done), styles["name"]),
            Segment(text, styles["failed" if view.phase == "failed" else "state"]),
        ]

    def _figures(self) -> list[tuple[str, str, int]]:
        """Name, value and width of each figure; widths are fixed so that nothing jumps."""
        view = self._view
        step = view.steps.last
        best = view.best
        figures = [
            ("train", perplexity(step.train_perplexity) if step else "-", 6),
            ("valid", perplexity(view.evaluations[-1].valid_perplexity) if view.evaluations else "-", 6),
            ("best", perplexity(best.valid_perplexity) if best else "-", 6),
        ]
        if view.finished:
            test = view.finished.test_perplexity
            figures.append(("test", "not read" if math.isnan(test) else perplexity(test), 8))
        if view.evaluations and not math.isnan(claimed := view.evaluations[-1].notebook_perplexity):
            figures.append(("the notebook prints", f"{claimed:.3f}", 6))
        return [*figures, ("update", f"{view.step:,}", 7), ("elapsed", duration(view.seconds), 7)]
