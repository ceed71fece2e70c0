"""What may come next, as bars that follow every control."""

from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip

from engine.sampling import Candidate, NextWords
from lotr_tui.widgets.drawing import Drawing

_EIGHTHS = " ▏▎▍▌▋▊▉"
_HEADINGS = "  drawn  model"


class NextWordBars(Drawing):
    """The likeliest words after the chain; behind the cut line the likeliest of those it dropped.

    Beside each bar: the probability it would be drawn with, and the model's own.
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
        candidates = next_words.candidates[: max(1, height - 2)]
        name_width = max(5, min(14, max((len(candidate.text) for candidate in candidates), default=5)))
        highest = max((candidate.after for candidate in candidates), default=1.0) or 1.0
        kept = [self._bar(candidate, name_width, highest, width) for candidate in candidates if candidate.after > 0]
        dropped = [self._dropped(candidate, name_width, width) for candidate in candidates if candidate.after <= 0]
        lines = [self._title(next_words, width), *kept, self._cut(next_words, width), *dropped]
        return [Strip(line) for line in lines]

    def _title(self, next_words: NextWords, width: int) -> list[Segment]:
        name = "NEXT WORD  "
        where = f'after "{self._after}"' if self._after else "at the start"
        where = f"{where} · {next_words.entropy:.1f} bits"
        room = max(0, width - len(name) - len(_HEADINGS))
        where = where if len(where) <= room else where[: max(0, room - 1)] + "…"
        muted = self.get_component_rich_style("next-word--muted")
        return [
            Segment(name, self.get_component_rich_style("next-word--title")),
            Segment(f"{where:{room}}{_HEADINGS}", muted),
        ]

    def _bar(self, candidate: Candidate, name_width: int, highest: float, width: int) -> list[Segment]:
        drawn, model = f"{candidate.after:7.1%}", f"{candidate.before:7.1%}"
        room = max(4, width - name_width - len(drawn) - len(model) - 1)
        eighths = round(candidate.after / highest * room * 8)
        bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        return [
            Segment(f"{candidate.text[:name_width]:{name_width}} ", self.rich_style),
            Segment(f"{bar:{room}}", self.get_component_rich_style("next-word--bar")),
            Segment(drawn, self.rich_style),
            Segment(model, self.get_component_rich_style("next-word--muted")),
        ]

    def _dropped(self, candidate: Candidate, name_width: int, width: int) -> list[Segment]:
        name, model = f"{candidate.text[:name_width]:{name_width}}", f"{candidate.before:.1%}"
        muted = self.get_component_rich_style("next-word--muted")
        return [Segment(f"{name}{model:>{max(0, width - name_width)}}", muted)]

    def _cut(self, next_words: NextWords, width: int) -> list[Segment]:
        text = f" keeps {next_words.kept:,} of {next_words.vocabulary:,} "
        if len(self._chain) + len(text) < width - 4:
            text = f" {self._chain}{text}"
        return [Segment(f"{text:─^{width}}"[:width], self.get_component_rich_style("next-word--muted"))]
