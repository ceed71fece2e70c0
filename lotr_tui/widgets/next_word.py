"""What may come next, as bars that follow every control."""

from textual.content import Content
from textual.widget import Widget

from engine.sampling import Candidate, NextWords

_EIGHTHS = " ▏▎▍▌▋▊▉"


class NextWordBars(Widget):
    """The likeliest words after the chain; behind the cut line the likeliest of those it dropped."""

    DEFAULT_CSS = "NextWordBars { height: 1fr; min-height: 5; padding: 0 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._next: NextWords | None = None
        self._after = ""
        self._chain = ""

    @property
    def rows(self) -> int:
        """How many words there is room for."""
        return max(3, self.content_size.height - 2)

    def show(self, next_words: NextWords, after: str, chain: str) -> None:
        """Show `next_words`, the distribution after the word `after` under `chain`."""
        self._next, self._after, self._chain = next_words, after, chain
        self.refresh()

    def render(self) -> Content:
        """A title, a bar a word, and the cut line where words were dropped."""
        if self._next is None:
            return Content("")
        width = self.content_size.width
        where = f'after "{self._after}"' if self._after else "at the start"
        headings = "  drawn  model"
        title = Content.assemble(
            ("NEXT WORD", "bold"), "  ", (f"{where} · {self._next.entropy:.1f} bits", "$foreground 60%")
        ).truncate(max(0, width - len(headings)), ellipsis=True)
        gap = " " * max(0, width - len(headings) - title.cell_length)
        lines = [Content.assemble(title, gap, (headings, "$foreground 60%"))]
        candidates = self._next.candidates[: self.rows]
        name_width = max(5, min(14, max((len(c.text) for c in candidates), default=5)))
        highest = max((c.after for c in candidates), default=1.0) or 1.0
        kept = [c for c in candidates if c.after > 0]
        dropped = [c for c in candidates if c.after <= 0]
        lines += [self._bar(c, name_width, highest, width) for c in kept]
        lines.append(self._cut(width))
        lines += [self._dropped(c, name_width, width) for c in dropped]
        return Content("\n").join(lines[: self.content_size.height])

    def _bar(self, candidate: Candidate, name_width: int, highest: float, width: int) -> Content:
        figures = f"{candidate.after:7.1%}"
        model = f"{candidate.before:7.1%}"
        room = max(4, width - name_width - len(figures) - len(model) - 1)
        eighths = round(candidate.after / highest * room * 8)
        bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        return Content.assemble(
            f"{candidate.text[:name_width]:{name_width}} ",
            (f"{bar:{room}}", "$accent"),
            figures,
            (model, "$foreground 60%"),
        )

    def _dropped(self, candidate: Candidate, name_width: int, width: int) -> Content:
        name = f"{candidate.text[:name_width]:{name_width}}"
        model = f"{candidate.before:.1%}"
        return Content.styled(f"{name}{model:>{max(0, width - name_width)}}", "$foreground 60%")

    def _cut(self, width: int) -> Content:
        assert self._next is not None
        text = f" {self._chain} keeps {self._next.kept:,} of {self._next.vocabulary:,} "
        left = max(0, width - len(text)) // 2
        line = "─" * left + text + "─" * max(0, width - left - len(text))
        return Content.styled(line[:width], "$foreground 60%")
