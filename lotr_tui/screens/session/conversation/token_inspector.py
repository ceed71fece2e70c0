"""Pane about the token under the cursor: how likely it was, and its alternatives."""

from math import exp, log, nan
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.generation.generate import NUM_TOP_TOKENS
from lotr_tui.formatting import SPECIAL_TOKEN_NAMES, format_lone_token, format_percent
from lotr_tui.screens.session.conversation.inspection import InspectedToken
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget

MIN_COLUMN_WIDTH = 18
"""Width in cells of the narrowest column of alternatives."""
FIGURE_WIDTH = 7
"""Width in cells of a probability, as ` 14.1%`."""
MIN_BAR_WIDTH = 6


class TokenInspector(StripWidget):
    """Figures of one token, and below them its alternatives with the digits that branch to them.

    Each alternative has a bar where there is room; a low pane shows the alternatives in several columns.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"token-inspector--{name}" for name in ("title", "muted", "special", "bar", "highlighted")
    }
    DEFAULT_CSS = """
    TokenInspector {
        height: 3fr;
        padding: 0 1;
        .token-inspector--title { text-style: bold; }
        .token-inspector--muted { color: $muted; text-style: $muted-style; }
        .token-inspector--special { color: $muted; text-style: italic $muted-style; }
        .token-inspector--bar { color: $accent; }
        .token-inspector--highlighted { text-style: reverse; }
    }
    """

    HELP_LINE = "raw: as the model says; after sampling: with temperature; a click branches"

    class AlternativeSelected(Message):
        """Posted when an alternative is clicked."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number
            """Number of the alternative, counted from 1."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._inspected: InspectedToken | None = None
        self._click_targets: dict[tuple[int, int], int] = {}  # number of the alternative by line and column
        self._column_count = 1

    def show(self, inspected: InspectedToken) -> None:
        """Show a token."""
        self._inspected = inspected
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Post the alternative under the mouse."""
        offset = event.get_content_offset(self)
        if offset is not None:
            column = offset.x * self._column_count // max(1, self.size.width)
            if (number := self._click_targets.get((offset.y, column))) is not None:
                self.post_message(self.AlternativeSelected(number))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the lines: title, figures, alternatives, hint."""
        inspected = self._inspected
        self._click_targets = {}
        if inspected is None:
            return []
        title_style = self.get_component_rich_style("token-inspector--title")
        muted = self.get_component_rich_style("token-inspector--muted")
        title = f"{inspected.preview.token_unit.upper()} {inspected.position} of {inspected.token_count}  "
        title += _describe_token(inspected)
        lines = [[Segment(title[:width], title_style)]]
        lines += [[Segment(line, muted)] for line in _wrap_figures(_figures(inspected), width)]
        if height >= len(lines) + NUM_TOP_TOKENS + 3:
            lines.append([Segment(_column_heads(width), muted)])
        room = max(1, height - len(lines))
        alternatives = inspected.alternatives
        num_expected = len(alternatives) if inspected.preview.is_final else NUM_TOP_TOKENS
        self._column_count = min(-(-num_expected // room), max(1, width // MIN_COLUMN_WIDTH)) or 1
        rows = min(room, -(-num_expected // self._column_count))
        cells = width // self._column_count
        for row in range(rows):
            line: list[Segment] = []
            for column in range(self._column_count):
                number = column * rows + row + 1
                if number <= len(alternatives):
                    self._click_targets[len(lines), column] = number
                    line += self._alternative_segments(inspected, number, cells)
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
        text = format_lone_token(candidate.text, ends_text=inspected.ends_text)
        is_special = candidate.text in SPECIAL_TOKEN_NAMES
        text = text if len(text) <= name_width else text[: name_width - 1] + "…"
        name = f"{number}{mark}{text:{name_width}}"
        highlighted = self.get_component_rich_style("token-inspector--highlighted")
        name_style = self.get_component_rich_style("token-inspector--special") if is_special else self.rich_style
        if number == inspected.highlighted:
            name_style = highlighted
        sampled, raw = (f"{prob:{FIGURE_WIDTH}.1%}" for prob in (candidate.sampling_prob, candidate.model_prob))
        segments = [Segment(name, name_style)]
        room = cells - len(name) - 1 - len(sampled) - 1
        if _shows_raw(cells):
            room -= len(raw)
            highest = max(each.sampling_prob for each in inspected.alternatives) or 1.0
            bar_style = self.get_component_rich_style("token-inspector--bar")
            segments += [
                Segment(f" {bar(candidate.sampling_prob / highest, room):{room}}", bar_style),
                Segment(sampled, self.rich_style),
                Segment(f"{raw} ", self.get_component_rich_style("token-inspector--muted")),
            ]
        else:
            segments.append(Segment(f" {sampled}{' ' * max(0, room + 1)}", self.rich_style))
        return segments


def _name_width(cells: int) -> int:
    """Return the width of an alternative's word in a column of `cells`, without its number and mark."""
    return max(4, min(14, cells - 12))


def _shows_raw(cells: int) -> bool:
    """Return True if a column of `cells` has room for a bar and the raw probability."""
    return cells - _name_width(cells) >= FIGURE_WIDTH * 2 + MIN_BAR_WIDTH + 4


def _column_heads(width: int) -> str:
    """Return the names of both probabilities, above their columns; "" if there is only one."""
    return f"{'after sampling':>{width - 1 - FIGURE_WIDTH}}{'raw':>{FIGURE_WIDTH}}" if _shows_raw(width) else ""


def _describe_token(inspected: InspectedToken) -> str:
    """Return `"king"`, or of a part of a word `"·wiz" in "wizard"`."""
    text, word = inspected.token.text, inspected.word
    shown = format_lone_token(text) if text in SPECIAL_TOKEN_NAMES else f'"{format_lone_token(text)}"'
    part = text.strip(" ")
    return shown if part in ("", word) else f'{shown} in "{word}"'  # a lone space is the gap between two words


def _figures(inspected: InspectedToken) -> list[str]:
    token = inspected.token
    logprob, prob, entropy = (
        nan if figure is None else figure for figure in (token.logprob, token.prob, token.entropy)
    )
    return [
        f"raw {format_percent(exp(logprob))}",
        f"after sampling {format_percent(prob)}",
        f"rank {token.rank:,}",
        f"surprise {-logprob / log(2):.1f} bits",
        f"entropy {entropy:.1f} bits",
    ]


def _wrap_figures(figures: list[str], width: int) -> list[str]:
    """Join the figures with two spaces into as few lines of `width` cells as possible."""
    lines = [""]
    for figure in figures:
        longer = f"{lines[-1]}  {figure}" if lines[-1] else figure
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(figure)
    return [line[:width] for line in lines]
