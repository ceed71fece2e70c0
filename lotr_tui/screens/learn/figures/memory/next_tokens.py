"""Bars of the next token after a line, with the state kept and with the state reset."""

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from engine.analysis.activations import NextTokenComparison
from lotr_tui.formatting import SELECTED_MARK, fit_cells
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar

NAME_WIDTH = 11
PERCENT_WIDTH = 7
"""Width of a probability, with the mark of the likeliest token before it and a gap after it."""
MAX_BAR_WIDTH = 24
NUM_OTHER_LINES = 3
"""Lines that show no token: the heading, the divergence and the verdict."""


class NextTokens(Widget, can_focus=False):
    """One row for each of the likeliest tokens: its probability with the state kept, and with the state reset."""

    DEFAULT_CSS = """
    NextTokens { height: 1fr; }
    """
    ALLOW_SELECT = False
    HELP_LINE = "The likeliest next words; ▸ marks the likeliest one"

    def __init__(self) -> None:
        super().__init__(id="next-tokens")
        self._comparison: NextTokenComparison | None = None
        self._names: Sequence[str] = ()
        self._best = ("", "")
        self._noun, self._last_word = "word", ""
        self._shows_both = False

    def show(
        self,
        comparison: NextTokenComparison | None,
        names: Sequence[str] = (),
        best: tuple[str, str] = ("", ""),
        *,
        noun: str = "word",
        last_word: str = "",
        shows_both: bool = False,
    ) -> None:
        """Show a comparison, or a hint to type if it is None.

        Args:
            comparison: Distributions with the state kept and with the state reset.
            names: Names of the tokens of `comparison`.
            best: Names of the likeliest token of each distribution.
            noun: Noun for a token.
            last_word: Word before which the state is reset.
            shows_both: True to show the distribution with the state reset too.
        """
        self._comparison, self._names, self._best = comparison, names, best
        self._noun, self._last_word, self._shows_both = noun, last_word, shows_both
        self.refresh()

    def render(self) -> Content:
        """Return the heading, the rows, the divergence and the verdict."""
        comparison = self._comparison
        if comparison is None:
            return Content.styled("No word yet: type a line.", MUTED)
        column_width = (self.size.width - NAME_WIDTH) // 2
        bar_width = max(1, min(MAX_BAR_WIDTH, column_width - PERCENT_WIDTH - 1))
        column_width = PERCENT_WIDTH + bar_width + 1
        count = max(1, min(len(self._names), self.size.height - NUM_OTHER_LINES))
        scale = float(comparison.probs[: 1 + self._shows_both, :count].max())
        first, second = ("state kept", "state reset") if column_width > len("state reset") else ("kept", "reset")
        lines = [
            Content.assemble(
                (f"next {self._noun}".ljust(NAME_WIDTH), MUTED),
                (f" {first:<{column_width - 1}}", "bold $accent"),
                (f" {second}" if self._shows_both else "", "bold"),
            )
        ]
        for row, name in enumerate(self._names[:count]):
            parts: list[tuple[str, str]] = [(fit_cells(name, NAME_WIDTH), "")]
            for column in range(1 + self._shows_both):
                prob = float(comparison.probs[column, row])
                is_best = comparison.ids[row] == comparison.best[column]
                parts += [
                    (SELECTED_MARK if is_best else " ", "bold $accent"),
                    (f"{_format_percent(prob)} ", "bold" if is_best else ""),
                    (bar(prob / scale, bar_width).ljust(bar_width + 1), "" if column else "$accent"),
                ]
            lines.append(Content.assemble(*parts))
        return Content("\n").join([*lines, *self._verdict(comparison)])

    def _verdict(self, comparison: NextTokenComparison) -> list[Content]:
        """Return how much the distributions differ, and whether they agree about the likeliest token."""
        if not self._shows_both:
            return [Content.styled(f"f8 resets the state before “{self._last_word}”", MUTED)]
        kept, reset = self._best
        verdict = f"both expect “{kept}”" if comparison.agrees else f"disagree: “{kept}” or “{reset}”"
        divergence = Content.assemble(
            ("KL divergence ", MUTED),
            (f"{comparison.divergence_bits:.2f} bits", "bold"),
        )
        return [divergence, Content.styled(verdict, "" if comparison.agrees else "bold")]


def _format_percent(prob: float) -> str:
    """Return a probability in five cells."""
    return " <1 %" if prob < 0.005 else f"{100 * prob:3.0f} %"
