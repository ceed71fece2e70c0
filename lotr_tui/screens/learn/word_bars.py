"""Bars of next words: their probability, and beside it the probability before the sampler chain."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from lotr_tui.formatting import MISSING, SELECTED_MARK, fit_cells, format_percent
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar

MAX_NAME_WIDTH = 12
MIN_BAR_WIDTH = 4
PERCENT_WIDTH = 8
"""Width of a column of probabilities in cells."""
MODEL_SHADE = "░"
"""Shades the part of the model's probability that the sampler chain takes away."""


@dataclass(frozen=True)
class WordBar:
    """A possible next word and its probability."""

    text: str
    prob: float
    """Length of the bar."""
    model_prob: float | None = None
    """Probability before the sampler chain, for a second column; None without a sampler chain."""
    is_marked: bool = False
    """True for the word that the rest of the figure is about."""
    note: str = ""
    """Text in place of the bar where it fits, such as `#812` for the rank of a word that is far below."""


class WordBars(Widget):
    """A heading and one bar per word, as many as there are rows."""

    HELP_LINE = "Most likely next words; ▸ marks the word that the figure is about"
    DEFAULT_CSS = """
    WordBars { height: 1fr; width: 1fr; min-height: 2; padding: 0 1; text-wrap: nowrap; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._title = ""
        self._headings: tuple[str, ...] = ()
        self._bars: tuple[WordBar, ...] = ()
        self._last: WordBar | None = None
        self._scale = 0.0

    def show(
        self,
        title: str,
        headings: Sequence[str],
        bars: Sequence[WordBar],
        last: WordBar | None = None,
        *,
        scale: float = 0.0,
    ) -> None:
        """Show words, likeliest first.

        Args:
            title: Text above the names.
            headings: Heading of each column of probabilities.
            bars: The words.
            last: Word in the last row if the rows end before it; None for no such word.
            scale: Probability of a full bar; 0 for the highest one.
        """
        self._title, self._headings, self._bars, self._last = title, tuple(headings), tuple(bars), last
        self._scale = scale
        self.refresh()

    def render(self) -> Content:
        """Return the heading and the rows."""
        width = self.content_size.width
        num_rows = max(1, self.content_size.height - 1)
        rows = list(self._bars[:num_rows])
        if self._last is not None and not any(row.is_marked for row in rows):
            rows = [*rows[: num_rows - 1], self._last]
        headings = "".join(heading.rjust(PERCENT_WIDTH) for heading in self._headings)
        title_width = max(0, width - cell_len(headings))
        title = fit_cells(self._title, title_width)
        longest = max((cell_len(row.text) for row in rows), default=0)
        name_width = max(4, min(MAX_NAME_WIDTH, longest, title_width - MIN_BAR_WIDTH - 3))
        scale = self._scale or max((max(row.prob, row.model_prob or 0) for row in self._bars), default=0.0) or 1.0
        lines = [Content.styled(title + headings, MUTED)]
        lines += [self._row(row, name_width, title_width - name_width - 3, scale) for row in rows]
        return Content("\n").join(lines)

    def _row(self, row: WordBar, name_width: int, bar_width: int, scale: float) -> Content:
        is_removed = row.model_prob is not None and row.prob == 0
        name_style = "bold $accent" if row.is_marked else MUTED if is_removed else ""
        bar_width = max(1, bar_width)
        note = row.note if cell_len(row.note) <= bar_width else ""
        cells = note if row.note else bar(row.prob / scale, bar_width)
        shade = ""
        if row.model_prob is not None:
            shade = MODEL_SHADE * (round(row.model_prob / scale * bar_width) - cell_len(cells))
        columns = [(format_percent(row.prob) if not is_removed else MISSING, "")]
        if row.model_prob is not None:
            columns.insert(0, (format_percent(row.model_prob), MUTED))
        return Content.assemble(
            (SELECTED_MARK if row.is_marked else " ", "bold $accent"),
            (fit_cells(row.text, name_width), name_style),
            " ",
            (cells, MUTED if row.note else "$accent"),
            (shade, MUTED),
            " " * (bar_width - cell_len(cells + shade) + 1),
            *((text.rjust(PERCENT_WIDTH), style) for text, style in columns),
        )
