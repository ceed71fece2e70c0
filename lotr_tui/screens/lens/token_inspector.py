"""Details of the token under the cursor: the scores of both models and the most probable alternatives."""

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.analysis.token_scores import TokenScore
from engine.errors import printable
from lotr_tui.formatting import format_percent, format_token, truncate
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget

MODEL_NAMES = ("network", "Kneser-Ney")
MIN_BAR_WIDTH = 4
PROBABILITY_WIDTH = 8


class LensTokenInspector(StripWidget):
    """Two lines about one token, or a table and a bar chart if the widget is higher."""

    DEFAULT_CSS = """
    LensTokenInspector { height: 2; padding: 0 1; }
    LensTokenInspector > .lens-token-inspector--bar { color: $accent; }
    LensTokenInspector > .lens-token-inspector--title { text-style: bold; }
    LensTokenInspector > .lens-token-inspector--muted { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lens-token-inspector--{name}" for name in ("bar", "title", "muted")}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._token = ""
        self._location = ""
        self._scores: tuple[TokenScore | None, TokenScore | None] = (None, None)
        self._model_index = 0

    def show(
        self, token: str, location: str, scores: tuple[TokenScore | None, TokenScore | None], *, model_index: int = 0
    ) -> None:
        """Show a token at a location of the text with its scores by the network and by Kneser-Ney, if computed.

        An empty token shows nothing. `model_index` chooses the model whose alternatives are shown.
        """
        self._token, self._location = printable(token), location
        self._scores = scores
        self._model_index = model_index
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Draw the two-line form or the full form, depending on the height."""
        if not self._token:
            return []
        lines = self._draw_full(width, height) if height > 2 else self._draw_compact(width)
        return [Strip(line).crop(0, width) for line in lines[:height]]

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"lens-token-inspector--{name}")

    def _draw_compact(self, width: int) -> list[list[Segment]]:
        title, muted = self._style("title"), self._style("muted")
        network, baseline = self._scores
        first: list[Segment] = [Segment(truncate(self._token, width // 3), title)]
        second: list[Segment] = []
        if network is None:
            first.append(Segment("  not scored yet", muted))
        else:
            parts = [f"{network.bits:.1f} bits", format_percent(network.model_prob), f"rank {network.rank:,}"]
            if baseline is not None:
                parts += [f"Kneser-Ney {baseline.bits:.1f} bits", f"rank {baseline.rank:,}"]
            first.append(Segment(_join_fitting(parts, " · ", width - first[0].cell_length), self.rich_style))
        if (shown := self._scores[self._model_index]) is not None:
            second.append(Segment("expected", muted))
            alternatives = [f"{format_token(token)} {format_percent(prob)}" for token, prob in shown.top_tokens]
            second.append(Segment(_join_fitting(alternatives, "  ", width - second[0].cell_length), self.rich_style))
        return [first, second]

    def _draw_full(self, width: int, height: int) -> list[list[Segment]]:
        title, muted = self._style("title"), self._style("muted")
        token = truncate(self._token, width - 6)
        lines = [[Segment("WORD  ", title), Segment(token, title)]]
        if cell_len(f"WORD  {token}  {self._location}") <= width:
            lines[0].append(Segment(f"  {self._location}", muted))
        lines.append([Segment(f"{'':11}{'surprise':>9}  {'probability':>12}{'rank':>8}", muted)])
        for name, score in zip(MODEL_NAMES, self._scores, strict=True):
            values = f"{'-':>9}"
            if score:
                values = f"{score.bits:4.1f} bits  {format_percent(score.model_prob):>12}{score.rank:8,}"
            lines.append([Segment(f"{name:11}", muted), Segment(values, self.rich_style)])
        network, baseline = self._scores
        difference = _describe_difference(network, baseline) if network and baseline else ""
        lines.append([Segment(difference, self.rich_style)])
        shown = self._scores[self._model_index]
        if shown is not None and height > len(lines) + 2:
            lines.append([])
            model_name = ("the network", "Kneser-Ney")[self._model_index]
            lines.append([Segment("EXPECTED HERE  ", title), Segment(f"by {model_name}", muted)])
            lines += self._draw_alternatives(shown.top_tokens, width)
        return lines

    def _draw_alternatives(self, top_tokens: tuple[tuple[str, float], ...], width: int) -> list[list[Segment]]:
        names = [format_token(token) for token, _ in top_tokens]
        name_width = max(5, min(14, max(map(len, names))))
        bar_width = max(MIN_BAR_WIDTH, width - name_width - PROBABILITY_WIDTH - 1)
        highest = max(top_tokens[0][1], 1e-9)
        bar_style = self._style("bar")
        return [
            [
                Segment(f"{truncate(name, name_width):{name_width}} ", self.rich_style),
                Segment(f"{bar(prob / highest, bar_width):{bar_width}}", bar_style),
                Segment(f"{format_percent(prob):>{PROBABILITY_WIDTH}}", self.rich_style),
            ]
            for name, (_, prob) in zip(names, top_tokens, strict=True)
        ]


def _describe_difference(network: TokenScore, baseline: TokenScore) -> str:
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
