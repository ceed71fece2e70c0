"""Status bar with as many metrics as fit."""

from textual.content import Content

from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

Metric = list[tuple[str, str]]
"""Pairs of text and style, as `Content.assemble` takes them."""
MAX_LISTED_TEXTS = 3
"""Number of unreadable parts of a text that are listed."""


class MetricsBar(StatusBar):
    """One line with as many metrics as fit, the most important first, and a note on the right."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._metrics: list[Metric] = []
        self._note = ""

    def show_metrics(self, metrics: list[Metric], note: str = "") -> None:
        """Show other metrics and another note."""
        self._metrics, self._note = metrics, note
        self._fit_metrics()

    def on_resize(self) -> None:
        """Show as many metrics as fit the new width."""
        self._fit_metrics()

    def _fit_metrics(self) -> None:
        available = self.content_size.width - (len(self._note) + 2 if self._note else 0)
        fitting = Content("")
        for metric in self._metrics:
            longer = Content.assemble(fitting, "   " if fitting else "", *metric)
            if longer.cell_length > available and fitting:
                break
            fitting = longer
        self.show(fitting, Content.styled(self._note, MUTED))


def unreadable_metric(texts: list[str]) -> list[Metric]:
    """Return the metric that lists the parts of a text that the tokenizer cannot read; no metric if there are none."""
    more = ", …" if len(texts) > MAX_LISTED_TEXTS else ""
    return [[(f"cannot read {', '.join(texts[:MAX_LISTED_TEXTS])}{more}", "$warning")]] if texts else []
