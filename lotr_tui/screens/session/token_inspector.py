"""Pane about the token under the cursor: how likely it was, and its alternatives."""

from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.generation.complete_words import word_around
from engine.generation.generate import NUM_TOP_TOKENS, Candidate, NextTokenProbs
from lotr_tui.formatting import SPECIAL_TOKEN_NAMES, format_lone_token, format_percent, truncate
from lotr_tui.session.reply import Reply, Token
from lotr_tui.session.session_model import reads_line_ends
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget

MIN_COLUMN_WIDTH = 18  # cells of a column of alternatives
FIGURE_WIDTH = 7  # of a probability, as ` 14.1%`
MIN_BAR_WIDTH = 6


@dataclass(frozen=True)
class InspectedToken:
    """Token of a reply, and the distribution it was sampled from, whose candidates may not be known yet."""

    reply: Reply
    index: int
    preview: NextTokenProbs

    @classmethod
    def before_reading(cls, reply: Reply, index: int) -> "InspectedToken":
        size, entropy = len(reply.session_model.model.tokenizer), reply.tokens[index].entropy or 0.0
        return cls(reply, index, NextTokenProbs((), 0, size, entropy, "token", "token", is_final=False))

    @property
    def token(self) -> Token:
        return self.reply.tokens[self.index]

    @cached_property
    def word(self) -> str:
        """Word that the token belongs to."""
        if self.reply.read_only_reason:  # the token ids belong to another model
            return self.token.text
        ids = [*self.reply.context_ids, *self.reply.ids]
        return word_around(self.reply.session_model.model.tokenizer, ids, len(self.reply.context_ids) + self.index)

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The likeliest tokens or words, to branch to; the one in the reply may be among them."""
        return self.preview.candidates[:NUM_TOP_TOKENS]

    @property
    def written_text(self) -> str:
        return self.word if self.preview.candidate_unit == "word" else self.token.text

    @property
    def marked(self) -> int:
        """Number, counted from 1, of the alternative that enter branches to: the first that is not in the reply."""
        texts = [each.text for each in self.alternatives]
        return next((number for number, text in enumerate(texts, 1) if text != self.written_text), 1)


class TokenInspector(StripWidget):
    """Figures of one token, and below them its alternatives with the digits that branch to them.

    Each alternative has a bar where there is room; a low pane shows the alternatives in several columns.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"token-inspector--{name}" for name in ("title", "muted", "special", "bar", "marked")
    }
    DEFAULT_CSS = """
    TokenInspector {
        height: 3fr;
        padding: 0 1;
        .token-inspector--title { text-style: bold; }
        .token-inspector--muted { color: $muted; text-style: $muted-style; }
        .token-inspector--special { color: $muted; text-style: italic $muted-style; }
        .token-inspector--bar { color: $accent; }
        .token-inspector--marked { text-style: reverse; }
    }
    """
    HELP_LINE = "raw: as the model says; after sampling: with temperature; a click branches"

    class AlternativeSelected(Message):
        """Posted when an alternative is clicked; numbers count from 1."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._inspected: InspectedToken | None = None
        self._click_targets: dict[tuple[int, int], int] = {}  # number of the alternative by line and column
        self._column_count = 1

    def show(self, inspected: InspectedToken) -> None:
        self._inspected = inspected
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None:
            column = offset.x * self._column_count // max(1, self.size.width)
            if (number := self._click_targets.get((offset.y, column))) is not None:
                self.post_message(self.AlternativeSelected(number))

    def draw(self, width: int, height: int) -> list[Strip]:
        inspected = self._inspected
        self._click_targets = {}
        if inspected is None:
            return []
        muted = self.get_component_rich_style("token-inspector--muted")
        title = f"{inspected.preview.token_unit.upper()} {inspected.index + 1} of {len(inspected.reply.tokens)}  "
        title += _describe_token(inspected)
        lines = [[Segment(title[:width], self.get_component_rich_style("token-inspector--title"))]]
        lines += [[Segment(line, muted)] for line in _wrap_figures(inspected.token, width)]
        alternatives = inspected.alternatives
        if height >= len(lines) + NUM_TOP_TOKENS + 3 and _shows_raw(width):
            heads = f"{'after sampling':>{width - 1 - FIGURE_WIDTH}}{'raw':>{FIGURE_WIDTH}}"
            lines.append([Segment(heads, muted)])
        room = max(1, height - len(lines))
        num_expected = len(alternatives) if inspected.preview.is_final else NUM_TOP_TOKENS
        self._column_count = min(-(-num_expected // room), max(1, width // MIN_COLUMN_WIDTH)) or 1
        rows = min(room, -(-num_expected // self._column_count))
        for row in range(rows):
            line: list[Segment] = []
            for column in range(self._column_count):
                number = column * rows + row + 1
                if number <= len(alternatives):
                    self._click_targets[len(lines), column] = number
                    line += self._alternative_segments(inspected, number, width // self._column_count)
            lines.append(line)
        if room > rows + 1:
            hint = f"1-8 or a click: branch to that {inspected.preview.candidate_unit}"
            lines += [[], [Segment(hint[:width], muted)]]
        return [Strip(line) for line in lines]

    def _alternative_segments(self, inspected: InspectedToken, number: int, cells: int) -> list[Segment]:
        """Return `1 word  ████  14.1%   9.3%`; the bar and the raw probability only where there is room."""
        candidate = inspected.alternatives[number - 1]
        mark = "●" if candidate.text == inspected.written_text else " "
        name_width = _name_width(cells)
        ends_text = reads_line_ends(inspected.reply.session_model.model)
        text = truncate(format_lone_token(candidate.text, ends_text=ends_text), name_width)
        style = self.rich_style
        if number == inspected.marked:
            style = self.get_component_rich_style("token-inspector--marked")
        elif candidate.text in SPECIAL_TOKEN_NAMES:
            style = self.get_component_rich_style("token-inspector--special")
        name = f"{number}{mark}{text:{name_width}}"
        sampled, raw = (f"{prob:{FIGURE_WIDTH}.1%}" for prob in (candidate.sampling_prob, candidate.model_prob))
        room = cells - len(name) - 1 - len(sampled) - 1
        if not _shows_raw(cells):
            return [Segment(name, style), Segment(f" {sampled}{' ' * max(0, room + 1)}", self.rich_style)]
        room -= len(raw)
        highest = max(each.sampling_prob for each in inspected.alternatives) or 1.0
        drawn = f" {bar(candidate.sampling_prob / highest, room):{room}}"
        return [
            Segment(name, style),
            Segment(drawn, self.get_component_rich_style("token-inspector--bar")),
            Segment(sampled, self.rich_style),
            Segment(f"{raw} ", self.get_component_rich_style("token-inspector--muted")),
        ]


def _name_width(cells: int) -> int:
    """Return the width of an alternative's word in a column of `cells`, without its number and mark."""
    return max(4, min(14, cells - 12))


def _shows_raw(cells: int) -> bool:
    """Return True if a column of `cells` has room for a bar and the raw probability."""
    return cells - _name_width(cells) >= FIGURE_WIDTH * 2 + MIN_BAR_WIDTH + 4


def _describe_token(inspected: InspectedToken) -> str:
    """Return `"king"`, or of a part of a word `"·wiz" in "wizard"`."""
    text, word = inspected.token.text, inspected.word
    shown = format_lone_token(text) if text in SPECIAL_TOKEN_NAMES else f'"{format_lone_token(text)}"'
    part = text.strip(" ")
    return shown if part in ("", word) else f'{shown} in "{word}"'  # a lone space is the gap between two words


def _wrap_figures(token: Token, width: int) -> list[str]:
    """Return the figures of a token, with two spaces between them, in as few lines of `width` cells as possible."""
    figures = [f"rank {token.rank:,}"]
    if token.prob is not None:
        figures.insert(0, f"after sampling {format_percent(token.prob)}")
    if token.logprob is not None:
        figures.insert(0, f"raw {format_percent(exp(token.logprob))}")
        figures.append(f"surprise {-token.logprob / log(2):.1f} bits")
    if token.entropy is not None:
        figures.append(f"entropy {token.entropy:.1f} bits")
    lines = [""]
    for figure in figures:
        longer = f"{lines[-1]}  {figure}" if lines[-1] else figure
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(figure)
    return [line[:width] for line in lines]
