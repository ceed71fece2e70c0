"""Details of the word under the cursor of the lens: the scores of both models and the most probable alternatives."""

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip

from engine.analysis.token_scores import WordScore
from engine.errors import printable
from lotr_tui.formatting import format_lone_token, format_percent, truncate
from lotr_tui.screens.inspect.page import PART_SEPARATOR, visible_part
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget

PROBABILITY_WIDTH = 8
MAX_PART_LINES = 4
"""Maximum number of lines for the tokens of one word."""

Parts = list[tuple[str, str]]
"""Texts and the names of their styles."""


class WordDetails(StripWidget):
    """Two lines about one word, or a table and a bar chart if the widget is higher."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"word-details--{name}" for name in ("bar", "title", "muted")}
    _word = ""
    _location = ""
    _scores: tuple[WordScore | None, WordScore | None] = (None, None)
    _shown: WordScore | None = None

    def show(self, word: str, location: str, scores: tuple[WordScore | None, WordScore | None], shown: int) -> None:
        """Show a word with its scores by the network and by Kneser-Ney; `shown` is whose alternatives are listed."""
        self._word, self._location, self._scores, self._shown = word, location, scores, scores[shown]
        self.redraw_changes()

    def clear(self) -> None:
        self.show("", "", (None, None), 0)

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self._word:
            return []
        styles = {name.removeprefix("word-details--"): style for name, style in self.component_styles().items()}
        lines = self._draw_full(width, height) if height > 2 else self._draw_compact(width)
        return [Strip([Segment(text, styles[name]) for text, name in line]).crop(0, width) for line in lines[:height]]

    def _parts(self) -> list[tuple[str, float]]:
        """Return the text and the bits of each token of the word; none before it is scored."""
        parts = () if self._shown is None else self._shown.parts
        return [(printable(visible_part(text)), bits) for text, bits in parts]

    def _alternatives(self) -> list[tuple[str, float]]:
        tokens = () if self._shown is None else self._shown.top_tokens
        return [(format_lone_token(token), prob) for token, prob in tokens]

    def _draw_compact(self, width: int) -> list[Parts]:
        parts, (network, baseline) = self._parts(), self._scores
        word = PART_SEPARATOR.join(text for text, _ in parts) if len(parts) > 1 else self._word
        word = truncate(word, width // 3)
        available = width - cell_len(word)
        if network is None:
            return [[(word, "title"), ("  not scored yet", "muted")]]
        figures = [f"{network.bits:.1f} bits"]
        if len(parts) > 1:
            figures[0] = truncate(f"{figures[0]} = {_join_bits(parts)}", available - 2)
        figures.append(format_percent(network.model_prob))
        figures += [f"rank {network.rank:,}"] if network.rank is not None else []
        if baseline is not None:
            figures.append(f"Kneser-Ney {baseline.bits:.1f} bits")
            figures += [f"rank {baseline.rank:,}"] if baseline.rank is not None else []
        expected = [f"{name} {format_percent(prob)}" for name, prob in self._alternatives()]
        return [
            [(word, "title"), (_join_fitting(figures, " · ", available), "")],
            [("expected", "muted"), (_join_fitting(expected, "  ", width - len("expected")), "")],
        ]

    def _draw_full(self, width: int, height: int) -> list[Parts]:
        word = truncate(self._word, width - 6)
        lines: list[Parts] = [[(f"WORD  {word}", "title")]]
        if cell_len(f"WORD  {word}  {self._location}") <= width:
            lines[0].append((f"  {self._location}", "muted"))
        lines.append([(f"{'':11}{'surprise':>9}  {'probability':>12}{'rank':>8}", "muted")])
        for name, score in zip(("network", "Kneser-Ney"), self._scores, strict=True):
            values = f"{'-':>9}"
            if score:
                rank = "-" if score.rank is None else f"{score.rank:,}"
                values = f"{score.bits:4.1f} bits  {format_percent(score.model_prob):>12}{rank:>8}"
            lines.append([(f"{name:11}", "muted"), (values, "")])
        network, baseline = self._scores
        difference = ""
        if network and baseline:
            saved = baseline.bits - network.bits
            better = "the network" if saved > 0 else "Kneser-Ney"
            difference = "no difference" if abs(saved) < 0.05 else f"{better} is better by {abs(saved):.1f} bits"
        lines.append([(difference, "")])
        if len(parts := self._parts()) > 1:
            title = "TOKENS  "
            wrapped = _wrap_parts(parts, width - len(title))
            lines += [[(title if not i else " " * len(title), "title"), (each, "")] for i, each in enumerate(wrapped)]
        if (alternatives := self._alternatives()) and height > len(lines) + 2:
            model = "the network" if self._shown is network else "Kneser-Ney"
            lines += [[], [("EXPECTED HERE  ", "title"), (f"by {model}", "muted")]]
            name_width = max(5, min(14, max(len(name) for name, _ in alternatives)))
            bar_width = max(4, width - name_width - PROBABILITY_WIDTH - 1)
            highest = max(alternatives[0][1], 1e-9)
            lines += [
                [
                    (f"{truncate(name, name_width):{name_width}} ", ""),
                    (f"{bar(prob / highest, bar_width):{bar_width}}", "bar"),
                    (f"{format_percent(prob):>{PROBABILITY_WIDTH}}", ""),
                ]
                for name, prob in alternatives
            ]
        return lines


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


def _join_fitting(parts: list[str], separator: str, width: int) -> str:
    """Join as many of the parts as fit `width` cells, each after a separator, the first after two spaces."""
    text = ""
    for part in parts:
        longer = text + (separator if text else "  ") + part
        if cell_len(longer) > width:
            break
        text = longer
    return text
