"""Where a training stands, in numbers."""

import math

from textual.content import Content
from textual.widget import Widget

from lotr_tui.theme import MUTED
from lotr_tui.training_view import TrainingView
from lotr_tui.wording import duration

LOW = 30
"""Rows of a terminal under which the curve needs the room of all but the first line of figures."""


class TrainingFigures(Widget):
    """Progress on one line, the figures under it on as many as the width asks for."""

    DEFAULT_CSS = "TrainingFigures { height: auto; padding: 0 1; }"

    def __init__(self, view: TrainingView, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = view

    def show(self, view: TrainingView) -> None:
        """Show how `view` stands now."""
        self._view = view
        self.refresh(layout=True)

    def render(self) -> Content:
        """The progress line, then name and value of each figure."""
        width = max(20, self.size.width - 2)
        figures = self._figures()
        cells = [Content.assemble((f"{name} ", MUTED), f"{value:<{room}}") for name, value, room in figures]
        lines, line = [], Content("")
        for cell in cells:
            if line and line.cell_length + 2 + cell.cell_length > width:
                lines.append(line)
                line = Content("")
            line = Content.assemble(line, "  " if line else "", cell)
        lines.append(line)
        most = 1 if self.screen.size.height < LOW else len(lines)
        return Content("\n").join([self._progress(width), *lines[:most]])

    def _progress(self, width: int) -> Content:
        view = self._view
        share = view.epoch / view.epochs if view.epochs else 0.0
        if view.phase == "preparing":
            text = f" {view.note} …"
        elif view.phase == "failed":
            text = f" failed: {view.failure}"
        elif view.finished:
            text = f" {view.finished.reason} after {duration(view.finished.seconds)}"
        else:
            left = duration(view.steps.last.eta_seconds) if view.steps.last else "-"
            text = f" epoch {view.epoch:.1f}/{view.epochs} · {left} left"
        room = max(5, min(60, width - len(text)))
        done = round(share * room)
        color = "$error" if view.phase == "failed" else "bold"
        return Content.assemble(("━" * done, "$accent"), ("─" * (room - done), MUTED), (text, color)).truncate(
            width, ellipsis=True
        )

    def _figures(self) -> list[tuple[str, str, int]]:
        """Name, value and width of each figure; widths are fixed so that nothing jumps."""
        view = self._view
        step = view.steps.last
        best = view.best
        figures = [
            ("train", f"{step.train_perplexity:.1f}" if step else "-", 6),
            ("valid", f"{view.evaluations[-1].valid_perplexity:.1f}" if view.evaluations else "-", 6),
            ("best", f"{best.valid_perplexity:.1f}" if best else "-", 6),
        ]
        if view.finished:
            test = view.finished.test_perplexity
            figures.append(("test", "not read" if math.isnan(test) else f"{test:.1f}", 8))
        if view.evaluations and not math.isnan(claimed := view.evaluations[-1].notebook_perplexity):
            figures.append(("the notebook prints", f"{claimed:.3f}", 6))
        figures += [
            ("update", f"{step.step:,}" if step else "-", 7),
            ("lr", f"{step.lr:.5f}" if step else "-", 8),
            ("gradient", f"{step.gradient_norm:.2f}" if step else "-", 6),
            ("words/s", f"{step.tokens_per_second:,.0f}" if step else "-", 8),
            ("elapsed", duration(step.seconds) if step else "-", 7),
        ]
        return figures
