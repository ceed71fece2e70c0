"""Texts side by side as they come, each marked where it parts from another."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from engine.generation.columns import first_difference, mean_surprise, share_differing, words_of
from engine.generation.generate import Done, TokenEvent
from lotr_tui.formatting import ending
from lotr_tui.widgets.drawing import Drawing

MARK = "▸"
"""Before the first word that differs, which is underlined too."""
GAP = 2
ROOMY = 25
"""Cells from which a column has its figures on one line."""

Word = tuple[str, Style]
Against = Literal["left", "first"]
"""Which column the others are compared with: the one to the left, or the first."""


class ColumnText:
    """What a column shows: its heading, and what came of it so far."""

    def __init__(self, title: str, about: str = "", waiting: str = "") -> None:
        self.title = title
        self.about = about
        """What is known of who writes it; may take some lines."""
        self.waiting = waiting
        """Shown while no word has come."""
        self.events: list[TokenEvent | Done] = []
        self.failure = ""

    @property
    def blank(self) -> bool:
        """Whether nothing was made of it yet."""
        return not self.events and not self.failure

    @property
    def done(self) -> Done | None:
        """How it ended; None while words may come."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Done) else None

    def clear(self) -> None:
        """Begin anew."""
        self.events, self.failure = [], ""


class Columns(Drawing, can_focus=True):
    """As many columns as fit, the one chosen always among them; all scroll up and down together.

    Drawn as a whole, but only the lines that changed are painted again: those are few for each word.
    """

    DEFAULT_CSS = """
    Columns { height: 1fr; padding: 0 1; }
    Columns > .columns--title { text-style: bold; }
    Columns > .columns--chosen { color: $accent; text-style: bold; }
    Columns > .columns--rule { color: $border; }
    Columns > .columns--muted { color: $foreground 60%; }
    Columns > .columns--mark { color: $accent; text-style: bold underline; }
    Columns > .columns--failure { color: $warning; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "columns--title",
        "columns--chosen",
        "columns--rule",
        "columns--muted",
        "columns--mark",
        "columns--failure",
    }

    class Chosen(Message):
        """A column was clicked."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, narrowest: int, against: Against, *, id: str | None = None) -> None:
        """Columns of at least `narrowest` cells, where the terminal has them, each compared with `against`."""
        super().__init__(id=id)
        self.texts: list[ColumnText] = []
        self.chosen = 0
        self._narrowest = narrowest
        self._against = against
        self._first = 0
        self._top: int | None = None  # the first line seen; None follows the end
        self._highest_top = 0
        self._body_height = 1

    def show(self, texts: Sequence[ColumnText], chosen: int) -> None:
        """Show these texts from now on, the column `chosen` among them."""
        self.texts, self.chosen = list(texts), max(0, min(chosen, len(texts) - 1))
        self.changed()

    def changed(self) -> None:
        """Something of the texts has changed: paint the lines that are not as before."""
        before = self._lines
        if not before:
            self.refresh()
            return
        width, plain = self.size.width, self.rich_style
        self._lines = [line.adjust_cell_length(width, plain) for line in self.draw(width, len(before))]
        for y, (old, new) in enumerate(zip(before, self._lines, strict=True)):
            if old != new:
                self.refresh(Region(0, y, width, 1))

    def scroll_lines(self, lines: int) -> None:
        """Up or down; at the end it follows the words again."""
        top = (self._highest_top if self._top is None else self._top) + lines
        self._top = None if top >= self._highest_top else max(0, top)
        self.changed()

    def scroll_pages(self, pages: int) -> None:
        """A page of text up or down, less a line to find the place again."""
        self.scroll_lines(pages * max(1, self._body_height - 1))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel."""
        event.stop()
        self.scroll_lines(-2)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel."""
        event.stop()
        self.scroll_lines(2)

    def on_click(self, event: events.Click) -> None:
        """Choose the column there."""
        number, width = self._room(self.size.width)
        place = self._first + min(event.x // (width + GAP), number - 1)
        if place < len(self.texts):
            self.post_message(self.Chosen(place))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Headings, a rule, then the texts; exactly `height` lines."""
        if not self.texts or width < 1:
            return [Strip.blank(width, self.rich_style)] * height
        number, column = self._room(width)
        self._first = min(max(self._first, self.chosen - number + 1), self.chosen, len(self.texts) - number)
        shown = range(self._first, self._first + number)
        headings = self._headings(shown, column)
        if height < len(headings) + 3:  # hardly any room: what it is, and its words
            headings = headings[:1]
        bodies = [self._body(place, column) for place in shown]
        self._body_height = height - len(headings)
        self._highest_top = max(0, max(len(body) for body in bodies) - self._body_height)
        top = self._highest_top if self._top is None else min(self._top, self._highest_top)
        rows = headings + [
            [body[y] if y < len(body) else [] for body in bodies] for y in range(top, top + self._body_height)
        ]
        plain = self.rich_style  # looked up once: that takes longer than drawing a line
        return [self._row(cells, column, plain) for cells in rows[:height]]

    def _room(self, width: int) -> tuple[int, int]:
        """How many columns are seen, and how wide each is."""
        number = max(1, min(len(self.texts), (width + GAP) // (self._narrowest + GAP)))
        return number, max(1, (width + GAP) // number - GAP)

    def _row(self, cells: Sequence[list[Segment]], width: int, plain: Style) -> Strip:
        """A line of every column, each filled up to its width."""
        gap = Strip.blank(GAP, plain)
        strips: list[Strip] = []
        for segments in cells:
            strips += [Strip(segments).adjust_cell_length(width, plain), gap]
        return Strip.join(strips[:-1]).simplify()

    def _headings(self, shown: range, width: int) -> list[list[list[Segment]]]:
        """Title, what is known of the writer, figures, where it parts, rule: lines of as many cells as columns."""
        plain, muted = self.rich_style, self.get_component_rich_style("columns--muted")
        title, chosen, rule = (
            self.get_component_rich_style(f"columns--{name}") for name in ("title", "chosen", "rule")
        )
        texts = [self.texts[place] for place in shown]
        abouts = [_wrap([(word, muted) for word in text.about.split()], width, plain)[:3] for text in texts]
        lines = [[[Segment(_cut(text.title, width), title)] for text in texts]]
        for y in range(max(len(about) for about in abouts)):
            lines.append([about[y] if y < len(about) else [] for about in abouts])
        figures = [_figures(text) for text in texts]
        if width >= ROOMY:
            figures = [[" · ".join(part for part in parts if part)] for parts in figures]
        for y in range(len(figures[0])):
            lines.append([[Segment(_cut(parts[y], width), plain)] for parts in figures])
        lines.append([[Segment(_cut(self._difference(place, width), width), plain)] for place in shown])
        lines.append(
            [[Segment("━" * width, chosen) if place == self.chosen else Segment("─" * width, rule)] for place in shown]
        )
        if len(texts) < len(self.texts):  # some are out of sight: say so on the last rule
            more = f" {shown[0] + 1}–{shown[-1] + 1} of {len(self.texts)} "
            line = "━" if shown[-1] == self.chosen else "─"
            style = chosen if shown[-1] == self.chosen else rule
            lines[-1][-1] = [Segment(line * max(0, width - len(more)), style), Segment(more, muted)]
        return lines

    def _other(self, place: int) -> ColumnText | None:
        """The column that the one at `place` is compared with."""
        if place == 0:
            return None
        return self.texts[0] if self._against == "first" else self.texts[place - 1]

    def _difference(self, place: int, width: int) -> str:
        """Where it parts from the column it is compared with, in words."""
        text, other = self.texts[place], self._other(place)
        if other is None or not text.events or not other.events:
            return ""
        words, others = words_of(text.events), words_of(other.events)
        first = first_difference(words, others)
        ended = text.done and other.done
        if first is None:
            return "= same words" if ended else "= same so far"
        short = f"≠ at word {first + 1}"
        long = f"{short} · {share_differing(words, others):.0%} differ"
        return long if ended and cell_len(long) <= width else short

    def _body(self, place: int, width: int) -> list[list[Segment]]:
        """The words, what differs first marked, and why they ended."""
        text = self.texts[place]
        plain, muted = self.rich_style, self.get_component_rich_style("columns--muted")
        mark, failure = (self.get_component_rich_style(f"columns--{name}") for name in ("mark", "failure"))
        if text.blank:
            return _wrap([(word, muted) for word in text.waiting.split()], width, plain)
        other = self._other(place)
        first = first_difference(words_of(text.events), words_of(other.events)) if other else None
        words: list[Word] = [(event.text, plain) for event in text.events if isinstance(event, TokenEvent)]
        end: list[Word] = []
        if text.done:
            end = [(word, muted) for word in ending(text.done).split()]
        elif not text.failure:
            words.append(("▌", self.get_component_rich_style("columns--chosen")))
        if first is not None:  # at the words' end it is that this text ended where the other went on
            marked = words if first < len(words) else end
            at = first if marked is words else 0
            marked[at] = (MARK + marked[at][0], mark)
        broken_off = [(word, failure) for word in text.failure.split()]
        return [line for part in (words, end, broken_off) for line in _wrap(part, width, plain)]


def _figures(text: ColumnText) -> list[str]:
    surprise = mean_surprise(text.events)
    words = sum(isinstance(event, TokenEvent) for event in text.events)
    if surprise is None:
        return ["", ""]
    return [f"{words} word" if words == 1 else f"{words} words", f"{surprise:.2f} bits/word"]


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def _wrap(words: Sequence[Word], width: int, space: Style) -> list[list[Segment]]:
    """Break `words` into lines of at most `width` cells; one that is longer is broken itself."""
    lines: list[list[Segment]] = []
    room = 0
    for word, style in words:
        for number, piece in enumerate([word] if cell_len(word) <= width else chop_cells(word, width)):
            needed = cell_len(piece)
            if lines and number == 0 and needed < room:
                lines[-1] += [Segment(" ", space), Segment(piece, style)]
                room -= needed + 1
            else:
                lines.append([Segment(piece, style)])
                room = width - needed
    return lines
