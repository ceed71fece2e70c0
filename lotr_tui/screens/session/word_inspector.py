"""A word of a reply: how likely it was, and what else might have stood there."""

from dataclasses import dataclass
from math import exp, log
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.generation.generate import ALTERNATIVES, TokenEvent
from engine.generation.preview import Candidate, NextWords
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import Drawing


@dataclass(frozen=True)
class Inspected:
    """A word, and the distribution it was drawn from."""

    word: TokenEvent
    number: int
    """Counted from 1 in the reply."""
    words: int
    next_words: NextWords
    """What the chain in effect made of the place."""

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The likeliest, to branch to; the word itself may be among them."""
        return self.next_words.candidates[:ALTERNATIVES]


class WordInspector(Drawing):
    """Figures of the word under the cursor; below them the likeliest words there, by the digit that chooses them.

    Where there is room for it, each has a bar; where there is little height, they stand in several columns.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"inspector--{name}" for name in ("title", "muted", "bar", "marked")}
    DEFAULT_CSS = """
    WordInspector {
        height: 3fr;
        padding: 0 1;
        .inspector--title { text-style: bold; }
        .inspector--muted { color: $foreground 60%; }
        .inspector--bar { color: $accent; }
        .inspector--marked { text-style: reverse; }
    }
    """

    class Chosen(Message):
        """An alternative was clicked on: its number from 1."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._inspected: Inspected | None = None
        self._places: dict[tuple[int, int], int] = {}  # line and column of what can be clicked on
        self._columns = 1
        self.marked = 1
        """The alternative that enter chooses."""

    def show(self, inspected: Inspected) -> None:
        """Show a word; its likeliest alternative is marked."""
        same = self._inspected is not None and self._inspected.word is inspected.word
        self._inspected = inspected
        if same:
            self.redraw()
            return
        others = [i for i, c in enumerate(inspected.alternatives, 1) if c.text != inspected.word.text]
        self.marked = others[0] if others else 1
        self.redraw()

    def mark(self, step: int) -> None:
        """Mark another alternative."""
        if self._inspected is not None:
            self.marked = (self.marked - 1 + step) % max(1, len(self._inspected.alternatives)) + 1
            self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Choose what was clicked on."""
        place = event.get_content_offset(self)
        if place is not None:
            column = place.x * self._columns // max(1, self.size.width)
            if (number := self._places.get((place.y, column))) is not None:
                self.post_message(self.Chosen(number))

    def draw(self, width: int, height: int) -> list[Strip]:
        """The figures, then the alternatives."""
        inspected = self._inspected
        self._places = {}
        if inspected is None:
            return []
        style = self.get_component_rich_style
        word = inspected.word
        title = f'WORD {inspected.number} of {inspected.words}  "{word.text}"'
        lines = [[Segment(title[:width], style("inspector--title"))]]
        figures = [
            f"model {word_percent(_probability(word))}",
            f"drawn with {word_percent(word.prob)}",
            f"rank {word.rank:,}",
            f"surprise {-word.logprob / log(2):.1f} bits",
            f"entropy {word.entropy:.1f} bits",
        ]
        lines += [[Segment(line, style("inspector--muted"))] for line in _lines_of(figures, width)]
        if height >= len(lines) + ALTERNATIVES + 3:
            lines.append([])
        room = max(1, height - len(lines))
        alternatives = inspected.alternatives
        self._columns = min(-(-len(alternatives) // room), max(1, width // 18)) or 1
        rows = min(room, -(-len(alternatives) // self._columns))
        cells = width // self._columns
        for row in range(rows):
            line: list[Segment] = []
            for column in range(self._columns):
                number = column * rows + row + 1
                if number <= len(alternatives):
                    self._places[len(lines), column] = number
                    line += self._alternative(number, alternatives[number - 1], cells)
            lines.append(line)
        if room > rows + 1:
            lines.append([])
            lines.append([Segment("1-8 or a click: branch there"[:width], style("inspector--muted"))])
        return [Strip(line) for line in lines]

    def _alternative(self, number: int, candidate: Candidate, cells: int) -> list[Segment]:
        """`1 word  ████  14.1%   9.3%`: the bar and the second figure, the model's, only where there is room."""
        assert self._inspected is not None
        style = self.get_component_rich_style
        here = candidate.text == self._inspected.word.text
        name_width = max(4, min(14, cells - 12))
        text = candidate.text if len(candidate.text) <= name_width else candidate.text[: name_width - 1] + "…"
        drawn, model = f"{candidate.after:7.1%}", f"{candidate.before:7.1%}"
        name = f"{number}{'●' if here else ' '}{text:{name_width}}"
        segments = [Segment(name, style("inspector--marked") if number == self.marked else self.rich_style)]
        room = cells - len(name) - 1 - len(drawn) - 1
        if room >= len(model) + 6:
            room -= len(model)
            highest = max(c.after for c in self._inspected.alternatives) or 1.0
            segments.append(Segment(f" {bar(candidate.after / highest, room):{room}}", style("inspector--bar")))
            segments.append(Segment(drawn, self.rich_style))
            segments.append(Segment(f"{model} ", style("inspector--muted")))
        else:
            segments.append(Segment(f" {drawn}{' ' * max(0, room + 1)}", self.rich_style))
        return segments


def word_percent(share: float) -> str:
    """A share with as many decimals as tell something."""
    return f"{share:.1%}" if share >= 0.001 or share == 0 else f"{share:.4%}"


def _probability(word: TokenEvent) -> float:
    return exp(word.logprob)


def _lines_of(parts: list[str], width: int) -> list[str]:
    """The parts, two spaces between them, on as many lines as they need."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(part)
    return [line[:width] for line in lines]
