"""What may come next, before and after the sampler chain, as bars that follow every control."""

from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.generation.preview import Candidate, NextWords
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import Drawing

_LOST, _MARK = "░", "│"
"""The part of the model's own probability that the chain has taken away; and where the model's own ends, where it
has given more."""
_HEADINGS = "  drawn  model"


class _Styles(NamedTuple):
    """Looked up once for all lines."""

    plain: Style
    bar: Style
    title: Style
    muted: Style


class NextWordBars(Drawing):
    """The likeliest words after the chain; behind the cut line the likeliest of those it dropped.

    A full bar is the probability to be drawn with; the model's own is where the shade `░` ends, or the mark `│`
    in the bar stands. Both are written beside it.
    """

    DEFAULT_CSS = """
    NextWordBars { height: 1fr; min-height: 5; padding: 0 1; }
    NextWordBars > .next-word--bar { color: $accent; }
    NextWordBars > .next-word--title { text-style: bold; }
    NextWordBars > .next-word--muted { color: $foreground 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"next-word--bar", "next-word--title", "next-word--muted"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._next: NextWords | None = None
        self._after = ""
        self._chain = ""

    def show(self, next_words: NextWords, after: str, chain: str) -> None:
        """Show `next_words`, the distribution after the word `after` under `chain`."""
        self._next, self._after, self._chain = next_words, after, chain
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """A title, a bar a word, and the cut line under the words that are kept."""
        next_words = self._next
        if next_words is None:
            return []
        self._styles = _Styles(
            self.rich_style,
            *(self.get_component_rich_style(f"next-word--{name}") for name in ("bar", "title", "muted")),
        )
        candidates = next_words.candidates[: max(1, height - 2)]
        name_width = max(5, min(14, max((cell_len(candidate.text) for candidate in candidates), default=5)))
        highest = max((max(candidate.after, candidate.before) for candidate in candidates), default=1.0) or 1.0
        bars = [self._bar(candidate, name_width, highest, width) for candidate in candidates]
        kept = sum(candidate.after > 0 for candidate in candidates)
        lines = [self._title(next_words, width), *bars[:kept], self._cut(next_words, kept, width), *bars[kept:]]
        return [Strip(line) for line in lines]

    def _title(self, next_words: NextWords, width: int) -> list[Segment]:
        name = "NEXT WORD  "
        where = f'after "{self._after}"' if self._after else "at the start"
        entropy = f" · {next_words.entropy:.1f} bits"
        room = max(0, width - len(name) - len(_HEADINGS))
        if cell_len(where) > room - len(entropy):  # of the two the word can be seen elsewhere too
            where = where.removeprefix("after ")
        if cell_len(where) > room - len(entropy):
            where = set_cell_size(where, max(0, room - len(entropy) - 1)) + "…"
        where = set_cell_size(where + entropy, room)
        return [
            Segment(name, self._styles.title),
            Segment(f"{where}{_HEADINGS}", self._styles.muted),
        ]

    def _bar(self, candidate: Candidate, name_width: int, highest: float, width: int) -> list[Segment]:
        kept = candidate.after > 0
        drawn, model = f"{candidate.after:7.1%}" if kept else " " * 7, f"{candidate.before:7.1%}"
        room = max(4, width - name_width - len(drawn) - len(model) - 1)
        return [
            Segment(
                f"{set_cell_size(candidate.text, name_width)} ", self._styles.plain if kept else self._styles.muted
            ),
            *self._cells(candidate.after / highest * room, candidate.before / highest * room, room),
            Segment(drawn, self._styles.plain),
            Segment(model, self._styles.muted),
        ]

    def _cells(self, after: float, before: float, room: int) -> list[Segment]:
        """A bar `after` cells long, and how long it was `before`."""
        style = self._styles
        drawn = bar(after / room, room)
        whole = drawn.count("█")
        lost = max(0, round(before) - len(drawn))
        behind = [Segment(_LOST * lost, style.muted), Segment(" " * (room - len(drawn) - lost), style.plain)]
        place = int(before)
        if after - before < 1 or place >= whole:  # what differs by less, the numbers tell
            return [Segment(drawn, style.bar), *behind]
        mark = Segment(_MARK, style.bar + Style(reverse=True))
        return [Segment(drawn[:place], style.bar), mark, Segment(drawn[place + 1 :], style.bar), *behind]

    def _cut(self, next_words: NextWords, shown: int, width: int) -> list[Segment]:
        """Where the words end that are kept; those there was no room for are below it."""
        more = next_words.kept - shown
        text = f" keeps {next_words.kept:,} of {next_words.vocabulary:,} "
        if more > 0:
            text = f" {more:,} more ·{text}"
        if len(self._chain) + len(text) < width - 4:
            text = f" {self._chain} ·{text}" if more > 0 else f" {self._chain}{text}"
        return [Segment(f"{text:─^{width}}"[:width], self._styles.muted)]
