"""Where a training stands, in numbers."""

import math

from textual.content import Content
from textual.widget import Widget

from engine.errors import printable
from lotr_tui.log_lines import ended
from lotr_tui.theme import MUTED
from lotr_tui.training_view import TrainingView
from lotr_tui.wording import duration, perplexity


class TrainingFigures(Widget):
    """Progress on one line, under it as many figures as fit; what else is measured is on the tiles."""

    DEFAULT_CSS = "TrainingFigures { height: 2; padding: 0 1; }"

    def __init__(self, view: TrainingView, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = view
        self._told = Content("")

    def show(self, view: TrainingView) -> None:
        """Show how `view` stands now."""
        self._view = view
        if (told := self._content()) != self._told:
            self._told = told
            self.refresh()

    def render(self) -> Content:
        """The progress line, then name and value of each figure."""
        return self._content()

    def _content(self) -> Content:
        width = max(20, self.size.width - 2)
        line = Content("")
        for name, value, room in self._figures():
            cell = Content.assemble((f"{name} ", MUTED), f"{value:<{room}}")
            if line and line.cell_length + 2 + cell.cell_length > width:
                break
            line = Content.assemble(line, "  " if line else "", cell)
        return Content("\n").join([self._progress(width), line])

    def _progress(self, width: int) -> Content:
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
            ("train", perplexity(step.train_perplexity) if step else "-", 6),
            ("valid", perplexity(view.evaluations[-1].valid_perplexity) if view.evaluations else "-", 6),
            ("best", perplexity(best.valid_perplexity) if best else "-", 6),
        ]
        if view.finished:
            test = view.finished.test_perplexity
            figures.append(("test", "not read" if math.isnan(test) else perplexity(test), 8))
        if view.evaluations and not math.isnan(claimed := view.evaluations[-1].notebook_perplexity):
            figures.append(("the notebook prints", f"{claimed:.3f}", 6))
        figures += [
            ("update", f"{view.step:,}", 7),
            ("elapsed", duration(view.seconds), 7),
        ]
        return figures
