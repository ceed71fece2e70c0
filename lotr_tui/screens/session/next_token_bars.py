"""Bars of the most likely next tokens, before and after the sampler chain."""

from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.generation.preview import Candidate, NextTokenProbs
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget

REMOVED_CHAR = "░"
"""Shades the part of the raw probability that the sampler chain removes."""
RAW_MARK = "│"
"""Marks the raw probability in a longer bar."""
PERCENT_WIDTH = 7
"""Width in cells of a probability."""
LONG_HEADING_WIDTH = 54
"""Minimum width in cells for the long heading of the first column."""


class _Styles(NamedTuple):
    """Styles, looked up once for all lines."""

    plain: Style
    bar: Style
    title: Style
    muted: Style


class NextTokenBars(StripWidget):
    """The most likely tokens after the sampler chain; tokens below the cutoff line cannot be sampled.

    The length of a bar is the probability after sampling. The raw probability is where the shade `░` ends, or at the
    mark `│` in the bar. Both are written at the right.
    """

    DEFAULT_CSS = """
    NextTokenBars { height: 1fr; min-height: 5; padding: 0 1; }
    NextTokenBars > .next-token--bar { color: $accent; }
    NextTokenBars > .next-token--title { text-style: bold; }
    NextTokenBars > .next-token--muted { color: $foreground 60%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"next-token--bar", "next-token--title", "next-token--muted"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._preview: NextTokenProbs | None = None
        self._previous_token = ""
        self._chain = ""

    def show(self, preview: NextTokenProbs, previous_token: str, chain: str) -> None:
        """Show the probabilities after `previous_token`, empty at the start of a text, with a name of the chain."""
        self._preview, self._previous_token, self._chain = preview, previous_token, chain
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the lines: a title, the tokens that can be sampled, the cutoff line, the other tokens."""
        preview = self._preview
        if preview is None:
            return []
        self._styles = _Styles(
            self.rich_style,
            *(self.get_component_rich_style(f"next-token--{name}") for name in ("bar", "title", "muted")),
        )
        candidates = preview.candidates[: max(1, height - 2)]
        name_width = max(5, min(14, max((cell_len(each.text) for each in candidates), default=5)))
        max_prob = max((max(each.sampling_prob, each.model_prob) for each in candidates), default=0.0) or 1.0
        bars = [self._bar_line(candidate, name_width, max_prob, width) for candidate in candidates]
        num_kept = sum(candidate.sampling_prob > 0 for candidate in candidates)
        cutoff_line = self._cutoff_line(preview, num_kept, width)
        lines = [self._title_line(preview, width), *bars[:num_kept], cutoff_line, *bars[num_kept:]]
        return [Strip(line) for line in lines]

    def _title_line(self, preview: NextTokenProbs, width: int) -> list[Segment]:
        heading = "after sampling" if width >= LONG_HEADING_WIDTH else "sampled"
        headings = f" {heading}{'raw':>{PERCENT_WIDTH}}"
        context = f'after "{self._previous_token}"' if self._previous_token else "at the start"
        entropy = f" · {preview.entropy:.1f} bits"
        title = "NEXT WORD  "
        if cell_len(title + context + entropy + headings) > width:
            title, context = "NEXT  ", context.removeprefix("after ")
        room = max(0, width - len(title) - len(headings))
        if cell_len(context) > room - len(entropy):  # the entropy matters more: the word is also in the conversation
            context = set_cell_size(context, max(0, room - len(entropy) - 1)) + "…"
        text = set_cell_size(context + entropy, room) + headings
        return [Segment(title, self._styles.title), Segment(text, self._styles.muted)]

    def _bar_line(self, candidate: Candidate, name_width: int, max_prob: float, width: int) -> list[Segment]:
        is_kept = candidate.sampling_prob > 0
        sampled = f"{candidate.sampling_prob:{PERCENT_WIDTH}.1%}" if is_kept else " " * PERCENT_WIDTH
        raw = f"{candidate.model_prob:{PERCENT_WIDTH}.1%}"
        room = max(4, width - name_width - len(sampled) - len(raw) - 1)
        sampled_length, raw_length = candidate.sampling_prob / max_prob * room, candidate.model_prob / max_prob * room
        name_style = self._styles.plain if is_kept else self._styles.muted
        return [
            Segment(f"{set_cell_size(candidate.text, name_width)} ", name_style),
            *self._bar_segments(sampled_length, raw_length, room),
            Segment(sampled, self._styles.plain),
            Segment(raw, self._styles.muted),
        ]

    def _bar_segments(self, sampled_length: float, raw_length: float, width: int) -> list[Segment]:
        """Return a bar of `sampled_length` cells with the raw length shaded or marked."""
        styles = self._styles
        cells = bar(sampled_length / width, width)
        num_full = cells.count("█")
        num_removed = max(0, round(raw_length) - len(cells))
        rest = [
            Segment(REMOVED_CHAR * num_removed, styles.muted),
            Segment(" " * (width - len(cells) - num_removed), styles.plain),
        ]
        mark_at = int(raw_length)
        if sampled_length - raw_length < 1 or mark_at >= num_full:  # too close to mark
            return [Segment(cells, styles.bar), *rest]
        mark = Segment(RAW_MARK, styles.bar + Style(reverse=True))
        return [Segment(cells[:mark_at], styles.bar), mark, Segment(cells[mark_at + 1 :], styles.bar), *rest]

    def _cutoff_line(self, preview: NextTokenProbs, num_shown: int, width: int) -> list[Segment]:
        """Return the line below the tokens that can be sampled, with the longest text that fits."""
        num_hidden = preview.num_kept - num_shown
        more = f"{num_hidden:,} more · " if num_hidden > 0 else ""
        counts = f"{preview.num_kept:,} of {preview.vocabulary_size:,}"
        texts = [f" {more}{counts} words can be sampled ", f" {more}{counts} "]
        if self._chain:
            chain = f" {self._chain} · {more}"
            texts = [f"{chain}{counts} words can be sampled ", f"{chain}keeps {counts} ", *texts]
        text = next((text for text in texts if len(text) < width - 2), texts[-1])
        return [Segment(f"{text:─^{width}}"[:width], self._styles.muted)]
