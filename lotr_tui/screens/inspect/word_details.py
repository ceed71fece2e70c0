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
from lotr_tui.widgets.drawing import StripWidget, join_fitting

PROBABILITY_WIDTH = 8
Parts = list[tuple[str, str]]  # texts and the names of their styles


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
        parts = [] if self._shown is None else [(printable(visible_part(t)), bits) for t, bits in self._shown.parts]
        tokens = () if self._shown is None else self._shown.top_tokens
        alternatives = [(format_lone_token(token), prob) for token, prob in tokens]
        joined, bits = PART_SEPARATOR.join(text for text, _ in parts), " + ".join(f"{bits:.1f}" for _, bits in parts)
        if len(parts) < 2:
            joined = bits = ""
        if height > 2:
            lines = self._table(joined and f"{joined}  {bits}", width)
            if alternatives and height > len(lines) + 2:
                lines += self._bars(alternatives, width)
        else:
            lines = self._summary(joined or self._word, bits, alternatives, width)
        styles = {name.removeprefix("word-details--"): style for name, style in self.component_styles().items()}
        return [Strip([Segment(text, styles[name]) for text, name in line]).crop(0, width) for line in lines[:height]]

    def _summary(self, word: str, bits: str, alternatives: list[tuple[str, float]], width: int) -> list[Parts]:
        (network, baseline), word = self._scores, truncate(word, width // 3)
        if network is None:
            return [[(word, "title"), ("  not scored yet", "muted")]]
        available = width - cell_len(word) - 2
        figures = [truncate(f"{network.bits:.1f} bits{bits and f' = {bits}'}", available)]
        for score, name in ((network, ""), (baseline, "Kneser-Ney ")):
            if score is not None:
                figures.append(f"{name}{score.bits:.1f} bits" if name else format_percent(score.model_prob))
                figures += [f"rank {score.rank:,}"] if score.rank is not None else []
        expected = [f"{name} {format_percent(prob)}" for name, prob in alternatives]
        return [
            [(word, "title"), (f"  {join_fitting(figures, available)}", "")],
            # A token begins with a dot in place of its space, so none stands between two of them.
            [("expected", "muted"), (f"  {join_fitting(expected, width - 10, '  ')}" if expected else "", "")],
        ]

    def _table(self, tokens: str, width: int) -> list[Parts]:
        lines: list[Parts] = [[(f"WORD  {truncate(self._word, width - 6)}", "title")]]
        if cell_len(f"WORD  {self._word}  {self._location}") <= width:
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
        return [*lines, *[[("TOKENS  ", "title"), (truncate(tokens, width - 8), "")]] * bool(tokens)]

    def _bars(self, alternatives: list[tuple[str, float]], width: int) -> list[Parts]:
        model = "the network" if self._shown is self._scores[0] else "Kneser-Ney"
        name_width = max(5, min(14, max(len(name) for name, _ in alternatives)))
        bar_width = max(4, width - name_width - PROBABILITY_WIDTH - 1)
        highest = max(alternatives[0][1], 1e-9)
        rows: list[Parts] = [
            [
                (f"{truncate(name, name_width):{name_width}} ", ""),
                (f"{bar(prob / highest, bar_width):{bar_width}}", "bar"),
                (f"{format_percent(prob):>{PROBABILITY_WIDTH}}", ""),
            ]
            for name, prob in alternatives
        ]
        return [[], [("EXPECTED HERE  ", "title"), (f"by {model}", "muted")], *rows]
