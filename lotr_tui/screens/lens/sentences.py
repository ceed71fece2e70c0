"""List of the sentences of a text with the perplexity of each."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.message import Message

from engine.analysis.token_scores import TokenScores
from engine.data.arrays import Float64Array
from engine.errors import printable
from lotr_tui.formatting import truncate
from lotr_tui.widgets.line_list import LineList, line_bindings

EXCERPT_LENGTH = 200
"""Characters of a sentence that are prepared for display, more than fit on a line."""
FIGURES_WIDTH = 25
"""Width in cells of the perplexities before a sentence."""


class LensSentences(LineList):
    """One line per sentence: perplexity of the network and of Kneser-Ney, and the start of the sentence."""

    DEFAULT_CSS = """
    LensSentences > .lens-sentences--muted { color: $muted; text-style: $muted-style; }
    LensSentences > .lens-sentences--cursor { text-style: bold; }
    LensSentences:focus > .lens-sentences--cursor { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lens-sentences--muted", "lens-sentences--cursor"}
    BINDING_GROUP_TITLE = "Sentences"
    HELP_LINE = "Perplexity: lower is more expected; o: the hardest first"
    BINDINGS: ClassVar[list[BindingType]] = [
        *line_bindings("lens-sentences"),
        Binding("o", "toggle_order", "order", id="lens-sentences.order", tooltip="Sort by perplexity, or as written"),
    ]

    @dataclass
    class SentenceSelected(Message):
        """Posted when the cursor has moved to another sentence."""

        index: int

    class OrderChanged(Message):
        """Posted when the sort order, and with it `heading`, has changed."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._network_scores: TokenScores | None = None
        self._perplexities: list[Float64Array] = []
        self._order = np.empty(0, np.intp)
        self.hardest_first = False
        """True if the sentences are sorted by perplexity, the highest first."""
        self.cursor = 0
        """Index of the selected sentence in the text."""

    def show(self, network_scores: TokenScores, baseline_scores: TokenScores | None = None) -> None:
        """Show the sentences of a text, with the perplexities computed so far."""
        is_same_text = self._network_scores is not None and self._network_scores.tokens is network_scores.tokens
        before = self._visible_values() if is_same_text else None
        self._network_scores = network_scores
        self._perplexities = [
            scores.sentence_perplexities() for scores in (network_scores, baseline_scores) if scores is not None
        ]
        if not is_same_text:
            self.cursor = 0
            self._sort()
            self.update_virtual_size()
        elif self.hardest_first and network_scores.is_complete:
            self._sort()
        if before is None or before != self._visible_values():
            self.refresh()

    def select_sentence(self, index: int) -> None:
        """Move the cursor to a sentence and scroll it into view, without posting a message."""
        if index == self.cursor or not 0 <= index < len(self._order):
            return
        self.cursor = index
        self.scroll_to_line(self._line_of(index))
        self.refresh()

    def heading(self) -> str:
        """Return the column headings."""
        return f"{'perplexity':>11}{'Kneser-Ney':>12}  {'hardest first' if self.hardest_first else 'sentence'}"

    def line_count(self) -> int:
        """Return the number of sentences."""
        return len(self._order)

    @property
    def cursor_line(self) -> int | None:
        """Line of the selected sentence, or None if there is no sentence."""
        return self._line_of(self.cursor) if len(self._order) else None

    def select_line(self, line: int) -> None:
        """Select the sentence on a line and post `SentenceSelected`."""
        index = int(self._order[line])
        if index != self.cursor:
            self.select_sentence(index)
            self.post_message(self.SentenceSelected(index))

    def line_segments(self, line: int) -> list[Segment]:
        """Return both perplexities and the start of the sentence on a line."""
        if self._network_scores is None:
            return []
        index = int(self._order[line])
        tokens = self._network_scores.tokens
        first, last = tokens.sentence_span(index)
        word_starts, _ = tokens.word_spans
        start = int(word_starts[first])
        end = int(word_starts[last]) if last < tokens.num_words else len(tokens.text)
        labels = tokens.label_spans[:, 0]
        if (next_label := int(np.searchsorted(labels, start))) < len(labels):
            end = min(end, int(labels[next_label]))
        room = max(1, self.scrollable_content_region.width - FIGURES_WIDTH)
        excerpt = truncate(printable(tokens.text[start : min(end, start + EXCERPT_LENGTH)]).rstrip(), room)
        values = [_format_sentence_perplexity(float(perplexities[index])) for perplexities in self._perplexities]
        is_selected = index == self.cursor
        style = self.get_component_rich_style("lens-sentences--cursor") if is_selected else self.rich_style
        muted = style if is_selected else self.get_component_rich_style("lens-sentences--muted")
        return [
            Segment(f"{'▸' if is_selected else ' '}{values[0]:>10}", style),
            Segment(f"{values[1] if len(values) > 1 else '-':>12}  ", muted),
            Segment(excerpt, style),
        ]

    def action_toggle_order(self) -> None:
        """Sort the sentences by perplexity, or in the order of the text."""
        self.hardest_first = not self.hardest_first
        self._sort()
        self.scroll_to_line(self._line_of(self.cursor))
        self.refresh()
        self.post_message(self.OrderChanged())

    def _visible_values(self) -> list[bytes]:
        """Return the perplexities of the visible lines in a form that can be compared, NaN included."""
        visible = self._order[self.scroll_offset.y :][: max(1, self.size.height)]
        return [perplexities[visible].tobytes() for perplexities in self._perplexities]

    def _sort(self) -> None:
        perplexities = self._perplexities[0] if self._perplexities else np.empty(0)
        # argsort puts NaN, the sentences without a perplexity yet, last.
        self._order = np.argsort(-perplexities, kind="stable") if self.hardest_first else np.arange(len(perplexities))

    def _line_of(self, index: int) -> int:
        lines = np.flatnonzero(self._order == index)
        return int(lines[0]) if len(lines) else 0


def _format_sentence_perplexity(perplexity: float) -> str:
    if math.isnan(perplexity):
        return "…"  # not computed yet
    return f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.1e}"
