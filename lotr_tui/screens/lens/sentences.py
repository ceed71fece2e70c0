"""The sentences of a text, each with its perplexity."""

from typing import ClassVar

import numpy as np
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from engine.analysis.token_scores import Floats, Reading
from engine.errors import printable
from lotr_tui.widgets.line_list import LineList

EXCERPT = 200
"""Characters of a sentence that are looked at; more than a line shows."""


class LensSentences(LineList):
    """A line a sentence: perplexity by the network and by Kneser-Ney, and how it begins. One is the cursor's."""

    DEFAULT_CSS = """
    LensSentences > .lens-sentences--muted { color: $foreground 60%; }
    LensSentences > .lens-sentences--cursor { text-style: bold; }
    LensSentences:focus > .lens-sentences--cursor { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lens-sentences--muted", "lens-sentences--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1)", "sentence before", id="lens-sentences.up", show=False, tooltip="The line above"),
        Binding("down", "step(1)", "next sentence", id="lens-sentences.down", show=False, tooltip="The line below"),
        Binding("pageup", "page(-1)", "page up", id="lens-sentences.page-up", show=False, tooltip="A page up"),
        Binding("pagedown", "page(1)", "page down", id="lens-sentences.page-down", show=False, tooltip="A page down"),
        Binding(
            "home", "step(-999999999)", "first", id="lens-sentences.first", show=False, tooltip="The first sentence"
        ),
        Binding("end", "step(999999999)", "last", id="lens-sentences.last", show=False, tooltip="The last sentence"),
        Binding("o", "order", "order", id="lens-sentences.order", tooltip="In the text's order, or the hardest first"),
    ]

    class SentenceChosen(Message):
        """The cursor has gone to this sentence."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    class OrderChanged(Message):
        """The lines stand in another order, and the heading says so."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._reading: Reading | None = None
        self._perplexities: list[Floats] = []
        self._order = np.empty(0, np.intp)
        self._hardest_first = False
        self._cursor = 0

    def show(self, network: Reading, kneser_ney: Reading | None = None) -> None:
        """Show the sentences as far as the readings have come."""
        same = self._reading is not None and self._reading.words is network.words
        before = self._seen_figures() if same else None
        self._reading = network
        self._perplexities = [reading.by_sentence() for reading in (network, kneser_ney) if reading is not None]
        if not same:
            self._cursor = 0
            self._sort()
            self.measure()
        elif self._hardest_first and network.complete:
            self._sort()
        if before is None or before != self._seen_figures():
            self.refresh()

    def point(self, number: int) -> None:
        """Mark a sentence, and bring it into sight."""
        if number == self._cursor or not 0 <= number < len(self._order):
            return
        self._cursor = number
        self._into_sight()
        self.refresh()

    def heading(self) -> str:
        """What the columns are."""
        order = "hardest first" if self._hardest_first else "sentence"
        return f"{'perplexity':>11}{'Kneser-Ney':>12}  {order}"

    def line_count(self) -> int:
        """How many there are."""
        return len(self._order)

    def render_line(self, y: int) -> Strip:
        """The sentence at `y` of what is seen."""
        width, line = self.size.width, y + self.scroll_offset.y
        if self._reading is None or line >= len(self._order):
            return Strip.blank(width, self.rich_style)
        number = int(self._order[line])
        words = self._reading.words
        first, last = words.sentence(number)
        begin = int(words.starts[first])
        end = int(words.starts[last]) if last < len(words) else len(words.text)
        excerpt = printable(words.text[begin : min(end, begin + EXCERPT)])
        values = [_figure(float(of[number])) for of in self._perplexities]
        here = number == self._cursor
        style = self.get_component_rich_style("lens-sentences--cursor") if here else self.rich_style
        muted = self.get_component_rich_style("lens-sentences--muted") if not here else style
        figures = [
            Segment(f"{'▸' if here else ' '}{values[0]:>10}", style),
            Segment(f"{values[1] if len(values) > 1 else '-':>12}  ", muted),
            Segment(excerpt, style),
        ]
        return Strip(figures).adjust_cell_length(width, self.rich_style)

    def action_step(self, lines: int) -> None:
        """So many lines down, or up."""
        if len(self._order):
            line = self._line() + lines
            self._choose(max(0, min(line, len(self._order) - 1)))

    def action_order(self) -> None:
        """In the order of the text, or the hardest first."""
        self._hardest_first = not self._hardest_first
        self._sort()
        self._into_sight()
        self.refresh()
        self.post_message(self.OrderChanged())

    def on_click(self, event: events.Click) -> None:
        """Choose the sentence under the pointer."""
        place = event.get_content_offset(self)
        if place is not None and (line := place.y + self.scroll_offset.y) < len(self._order):
            self._choose(line)

    def _choose(self, line: int) -> None:
        number = int(self._order[line])
        if number != self._cursor:
            self.point(number)
            self.post_message(self.SentenceChosen(number))

    def _seen_figures(self) -> list[bytes]:
        """All figures of the lines that are seen, to tell whether they have changed."""
        seen = self._order[self.scroll_offset.y :][: max(1, self.size.height)]
        return [of[seen].tobytes() for of in self._perplexities]

    def _sort(self) -> None:
        perplexities = self._perplexities[0] if self._perplexities else np.empty(0)
        # What was not read yet, NaN, comes last.
        self._order = np.argsort(-perplexities, kind="stable") if self._hardest_first else np.arange(len(perplexities))

    def _line(self) -> int:
        found = np.flatnonzero(self._order == self._cursor)
        return int(found[0]) if len(found) else 0

    def _into_sight(self) -> None:
        self.bring_into_sight(self._line())


def _figure(perplexity: float) -> str:
    if np.isnan(perplexity):
        return "…"
    return f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.1e}"
