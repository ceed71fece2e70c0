"""Details of the word under the cursor: the scores of both models and the most probable alternatives."""

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.analysis.token_scores import TokenScores, WordScore
from engine.data.speakers import display_name
from engine.errors import printable
from lotr_tui.formatting import format_lone_token, format_percent, truncate
from lotr_tui.screens.text.token_names import PART_SEPARATOR, visible_part
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget

MODEL_NAMES = ("network", "Kneser-Ney")
MIN_BAR_WIDTH = 4
PROBABILITY_WIDTH = 8
PARTS_TITLE = "TOKENS  "
MAX_PART_LINES = 4
"""Maximum number of lines for the tokens of one word."""


class LensTokenInspector(StripWidget):
    """Two lines about one word, or a table and a bar chart if the widget is higher."""

    DEFAULT_CSS = """
    LensTokenInspector { height: 2; padding: 0 1; }
    LensTokenInspector > .lens-token-inspector--bar { color: $accent; }
    LensTokenInspector > .lens-token-inspector--title { text-style: bold; }
    LensTokenInspector > .lens-token-inspector--muted { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lens-token-inspector--{name}" for name in ("bar", "title", "muted")}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._word = ""
        self._location = ""
        self._scores: tuple[WordScore | None, WordScore | None] = (None, None)
        self._model_index = 0

    def show(
        self,
        word: str,
        location: str,
        scores: tuple[WordScore | None, WordScore | None],
        *,
        model_index: int = 0,
    ) -> None:
        """Show a word at a location of the text with its scores by the network and by Kneser-Ney, if computed.

        An empty word shows nothing. `model_index` chooses the model whose tokens and alternatives are shown.
        """
        self._word, self._location = printable(word), location
        self._scores = scores
        self._model_index = model_index
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Draw the two-line form or the full form, depending on the height."""
        if not self._word:
            return []
        lines = self._draw_full(width, height) if height > 2 else self._draw_compact(width)
        return [Strip(line).crop(0, width) for line in lines[:height]]

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"lens-token-inspector--{name}")

    def _draw_compact(self, width: int) -> list[list[Segment]]:
        title, muted = self._style("title"), self._style("muted")
        network, baseline = self._scores
        parts = _visible_parts(self._scores[self._model_index])
        word = PART_SEPARATOR.join(text for text, _ in parts) if len(parts) > 1 else self._word
        first: list[Segment] = [Segment(truncate(word, width // 3), title)]
        second: list[Segment] = []
        if network is None:
            first.append(Segment("  not scored yet", muted))
        else:
            figures = [f"{network.bits:.1f} bits"]
            if len(parts) > 1:
                available = width - first[0].cell_length - 2
                figures[0] = truncate(f"{figures[0]} = {_join_bits(parts)}", available)
            figures += [format_percent(network.model_prob), *_format_rank(network)]
            if baseline is not None:
                figures += [f"Kneser-Ney {baseline.bits:.1f} bits", *_format_rank(baseline)]
            first.append(Segment(_join_fitting(figures, " · ", width - first[0].cell_length), self.rich_style))
        if (shown := self._scores[self._model_index]) is not None:
            second.append(Segment("expected", muted))
            alternatives = [f"{name} {format_percent(prob)}" for name, prob in _alternatives(shown)]
            second.append(Segment(_join_fitting(alternatives, "  ", width - second[0].cell_length), self.rich_style))
        return [first, second]

    def _draw_full(self, width: int, height: int) -> list[list[Segment]]:
        title, muted = self._style("title"), self._style("muted")
        word = truncate(self._word, width - 6)
        lines = [[Segment("WORD  ", title), Segment(word, title)]]
        if cell_len(f"WORD  {word}  {self._location}") <= width:
            lines[0].append(Segment(f"  {self._location}", muted))
        lines.append([Segment(f"{'':11}{'surprise':>9}  {'probability':>12}{'rank':>8}", muted)])
        for name, score in zip(MODEL_NAMES, self._scores, strict=True):
            values = f"{'-':>9}"
            if score:
                rank = "-" if score.rank is None else f"{score.rank:,}"
                values = f"{score.bits:4.1f} bits  {format_percent(score.model_prob):>12}{rank:>8}"
            lines.append([Segment(f"{name:11}", muted), Segment(values, self.rich_style)])
        network, baseline = self._scores
        difference = _describe_difference(network, baseline) if network and baseline else ""
        lines.append([Segment(difference, self.rich_style)])
        shown = self._scores[self._model_index]
        if len(parts := _visible_parts(shown)) > 1:
            wrapped = _wrap_parts(parts, width - len(PARTS_TITLE))
            titles = [PARTS_TITLE, *(" " * len(PARTS_TITLE) for _ in wrapped[1:])]
            lines += [
                [Segment(name, title), Segment(text, self.rich_style)]
                for name, text in zip(titles, wrapped, strict=True)
            ]
        if shown is not None and height > len(lines) + 2:
            lines.append([])
            model_name = ("the network", "Kneser-Ney")[self._model_index]
            lines.append([Segment("EXPECTED HERE  ", title), Segment(f"by {model_name}", muted)])
            lines += self._draw_alternatives(_alternatives(shown), width)
        return lines

    def _draw_alternatives(self, alternatives: list[tuple[str, float]], width: int) -> list[list[Segment]]:
        name_width = max(5, min(14, max(len(name) for name, _ in alternatives)))
        bar_width = max(MIN_BAR_WIDTH, width - name_width - PROBABILITY_WIDTH - 1)
        highest = max(alternatives[0][1], 1e-9)
        bar_style = self._style("bar")
        return [
            [
                Segment(f"{truncate(name, name_width):{name_width}} ", self.rich_style),
                Segment(f"{bar(prob / highest, bar_width):{bar_width}}", bar_style),
                Segment(f"{format_percent(prob):>{PROBABILITY_WIDTH}}", self.rich_style),
            ]
            for name, prob in alternatives
        ]


def _alternatives(score: WordScore) -> list[tuple[str, float]]:
    """Return the names and probabilities of the alternatives to the first token of a word."""
    return [(format_lone_token(token), prob) for token, prob in score.top_tokens]


def _visible_parts(score: WordScore | None) -> list[tuple[str, float]]:
    """Return the text and the bits of each token of a word; none before the word is scored."""
    return [] if score is None else [(printable(visible_part(text)), bits) for text, bits in score.parts]


def _join_bits(parts: list[tuple[str, float]]) -> str:
    return " + ".join(f"{bits:.1f}" for _, bits in parts)


def _wrap_parts(parts: list[tuple[str, float]], width: int) -> list[str]:
    """Return the tokens of a word with their bits, on one line if possible, or else on up to `MAX_PART_LINES` lines."""
    line = f"{PART_SEPARATOR.join(text for text, _ in parts)}  {_join_bits(parts)}"
    if cell_len(line) <= width:
        return [line]
    lines = [""]
    for text, bits in parts:
        part = f"{text} {bits:.1f}"
        if lines[-1] and cell_len(f"{lines[-1]}  {part}") > width:
            lines.append(part)
        else:
            lines[-1] += f"  {part}" if lines[-1] else part
    return lines[:MAX_PART_LINES] if len(lines) <= MAX_PART_LINES else [*lines[: MAX_PART_LINES - 1], "…"]


def _format_rank(score: WordScore) -> list[str]:
    return [] if score.rank is None else [f"rank {score.rank:,}"]


def _describe_difference(network: WordScore, baseline: WordScore) -> str:
    saved_bits = baseline.bits - network.bits
    if abs(saved_bits) < 0.05:
        return "no difference"
    return f"{'the network' if saved_bits > 0 else 'Kneser-Ney'} is better by {abs(saved_bits):.1f} bits"


def _join_fitting(parts: list[str], separator: str, width: int) -> str:
    """Join as many of the parts as fit `width` cells, each after a separator, the first after two spaces."""
    text = ""
    for part in parts:
        longer = text + (separator if text else "  ") + part
        if cell_len(longer) > width:
            break
        text = longer
    return text


def describe_location(scores: TokenScores, word: int) -> str:
    """Return the sentence of a word, for a model with a cast after the name of its speaker."""
    tokens = scores.tokens
    sentence = f"sentence {tokens.sentence_index(word) + 1:,} of {len(tokens.sentence_starts):,}"
    speaker = tokens.speaker_of(int(tokens.word_starts[word]))
    return sentence if speaker is None else f"{display_name(speaker)} · {sentence}"
