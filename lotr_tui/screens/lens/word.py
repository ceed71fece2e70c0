"""What two models made of one word."""

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip

from engine.analysis.token_scores import Guess
from engine.errors import printable
from lotr_tui.widgets.drawing import Drawing

NAMES = ("network", "Kneser-Ney")


class LensWord(Drawing):
    """On two lines, or where there is room as a pane with bars: a word, its bits, and what was expected instead."""

    DEFAULT_CSS = """
    LensWord { height: 2; padding: 0 1; }
    LensWord > .lens-word--bar { color: $accent; }
    LensWord > .lens-word--title { text-style: bold; }
    LensWord > .lens-word--muted { color: $foreground 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lens-word--bar", "lens-word--title", "lens-word--muted"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._word = ""
        self._place = ""
        self._guesses: tuple[Guess | None, Guess | None] = (None, None)
        self._expected_by = 0

    def show(self, word: str, place: str, guesses: tuple[Guess | None, Guess | None], *, expected_by: int = 0) -> None:
        """Show `word`, where it stands, and the guesses of the network and of Kneser-Ney.

        `expected_by`: whose likeliest words are shown, 0 or 1.
        """
        self._word, self._place = printable(word), place
        self._guesses = guesses
        self._expected_by = expected_by
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Two lines, or more where there are."""
        if not self._word:
            return []
        return self._pane(width, height) if height > 2 else self._two_lines(width)

    def _two_lines(self, width: int) -> list[Strip]:
        title, muted = (
            self.get_component_rich_style("lens-word--title"),
            self.get_component_rich_style("lens-word--muted"),
        )
        network, kneser_ney = self._guesses
        first: list[Segment] = [Segment(self._word[: width // 3], title)]
        second: list[Segment] = []
        if network is None:
            first.append(Segment("  not read yet", muted))
        else:
            parts = [f"{network.bits:.1f} bits", percent(network.prob), f"rank {network.rank:,}"]
            if kneser_ney is not None:
                parts += [f"Kneser-Ney {kneser_ney.bits:.1f} bits", _difference(network, kneser_ney)]
            first.append(Segment(_fitting(parts, " · ", width - first[0].cell_length), self.rich_style))
        if (guess := self._guesses[self._expected_by]) is not None:
            second.append(Segment("expected", muted))
            expected = [f"{word} {percent(prob)}" for word, prob in guess.likeliest]
            second.append(Segment(_fitting(expected, "  ", width - 8), self.rich_style))
        return [Strip(_cut(line, width)) for line in (first, second)]

    def _pane(self, width: int, height: int) -> list[Strip]:
        title, muted = (
            self.get_component_rich_style("lens-word--title"),
            self.get_component_rich_style("lens-word--muted"),
        )
        bar = self.get_component_rich_style("lens-word--bar")
        lines = [[Segment("WORD  ", title), Segment(self._word, title), Segment(f"  {self._place}", muted)]]
        lines.append([Segment(f"{'':11}{'bits':>6}{'probability':>12}{'rank':>8}", muted)])
        for name, guess in zip(NAMES, self._guesses, strict=True):
            figures = f"{guess.bits:6.1f}{percent(guess.prob):>12}{guess.rank:8,}" if guess else f"{'-':>6}"
            lines.append([Segment(f"{name:11}", muted), Segment(figures, self.rich_style)])
        network, kneser_ney = self._guesses
        lines.append([Segment(_difference(network, kneser_ney) if network and kneser_ney else "", self.rich_style)])
        expected = self._guesses[self._expected_by]
        if expected is not None and height > len(lines) + 2:
            lines.append([])
            lines.append([Segment("EXPECTED  ", title), Segment(f"by the {NAMES[self._expected_by]}", muted)])
            name_width = max(5, min(14, max(len(word) for word, _ in expected.likeliest)))
            room = max(4, width - name_width - 9)
            highest = max(expected.likeliest[0][1], 1e-9)
            for word, prob in expected.likeliest[: max(0, height - len(lines))]:
                filled = round(prob / highest * room)
                lines.append(
                    [
                        Segment(f"{word[:name_width]:{name_width}} ", self.rich_style),
                        Segment(f"{'█' * filled:{room}}", bar),
                        Segment(f"{percent(prob):>8}", self.rich_style),
                    ]
                )
        return [Strip(_cut(line, width)) for line in lines[:height]]


def _difference(network: Guess, kneser_ney: Guess) -> str:
    saved = kneser_ney.bits - network.bits
    if abs(saved) < 0.05:
        return "both alike"
    return f"{'network' if saved > 0 else 'Kneser-Ney'} better by {abs(saved):.1f}"


def _fitting(parts: list[str], between: str, width: int) -> str:
    """As many of the parts as there is room for, none cut."""
    text = ""
    for part in parts:
        longer = text + (between if text else "  ") + part
        if cell_len(longer) > width:
            break
        text = longer
    return text


def percent(prob: float) -> str:
    """A probability, with two digits that say something."""
    percents = 100 * prob
    if percents >= 10:
        return f"{percents:.0f} %"
    if percents >= 0.01:
        return f"{percents:.{1 if percents >= 1 else 2 if percents >= 0.1 else 3}f} %"
    return "<0.01 %"


def _cut(segments: list[Segment], width: int) -> list[Segment]:
    return list(Strip(segments).crop(0, width))
