"""Bars of the most likely next tokens, before and after the sampler chain."""

from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.generation.sampling import Candidate, NextTokenProbs
from lotr_tui.formatting import SPECIAL_TOKEN_NAMES, format_lone_token, truncate
from lotr_tui.screens.session.next_words import MIN_SHOWN_PROB
from lotr_tui.textual_fixes.widgets import paint
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget

REMOVED_CHAR = "░"
"""Shades the part of the raw probability that the sampler chain removes."""
RAW_MARK = "│"
"""Marks the raw probability in a longer bar."""
PERCENT_WIDTH = 7
"""Width in cells of a probability."""
MIN_ROWS = 5
"""Rows for the most likely tokens or words, however unlikely these are."""
MAX_NAME_WIDTH = 14
"""Maximum width in cells of a token."""
HEADING_HEIGHT = 7
"""Minimum height in lines for the line with the headings of the columns."""


class _Styles(NamedTuple):
    """Styles, looked up once for all lines."""

    plain: Style
    bar: Style
    title: Style
    muted: Style
    special: Style


class NextTokenBars(StripWidget):
    """The most likely tokens or words after the sampler chain; those below the cutoff line cannot be sampled.

    The length of a bar is the probability after sampling. The raw probability is where the shade `░` ends, or at the
    mark `│` in the bar. Both are written at the right.
    """

    HELP_LINE = "Most likely next words, after sampling and raw"
    SUBWORD_HELP_LINE = "Next words or tokens, sampled and raw; ctrl+] switches"
    DEFAULT_CSS = """
    NextTokenBars { height: 1fr; min-height: 5; padding: 0 1; }
    NextTokenBars > .next-token--bar { color: $accent; }
    NextTokenBars > .next-token--title { text-style: bold; }
    NextTokenBars > .next-token--muted { color: $muted; text-style: $muted-style; }
    NextTokenBars > .next-token--special { color: $muted; text-style: italic $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"next-token--{name}" for name in ("bar", "title", "muted", "special")}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._preview: NextTokenProbs | None = None
        self._previous_text = ""
        self._filters = ""
        self._speaker = ""
        self._ends_text = False

    def get_help_line(self) -> str:
        """Return the help, for a model whose tokens are parts of words with the key that shows these."""
        has_subwords = self._preview is not None and self._preview.token_unit == "token"
        return self.SUBWORD_HELP_LINE if has_subwords else self.HELP_LINE

    def show(
        self, preview: NextTokenProbs, previous_text: str, filters: str, speaker: str = "", *, ends_text: bool = False
    ) -> None:
        """Show the probabilities after `previous_text`, empty at the start of a text.

        Args:
            preview: The probabilities.
            previous_text: The token or word before them.
            filters: The filters of the sampler chain, such as `top-k 5`; empty if there are none.
            speaker: Name of the speaker whose line begins there; empty inside of a line.
            ends_text: True if `<eos>` ends a whole text instead of a line.
        """
        self._ends_text = ends_text
        self._preview, self._previous_text, self._filters, self._speaker = preview, previous_text, filters, speaker
        self.redraw()
        paint(self)

    def clear(self) -> None:
        """Show nothing, because no text is read yet."""
        if self._preview is not None:
            self._preview = None
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the lines: a title, headings, the tokens that can be sampled, the cutoff line, the other tokens."""
        preview = self._preview
        if preview is None:
            return []
        self._styles = _Styles(
            self.rich_style,
            *(self.get_component_rich_style(f"next-token--{name}") for name in _Styles._fields[1:]),
        )
        headings = [self._headings_line(preview, width)] if height >= HEADING_HEIGHT else []
        candidates = _shown_candidates(preview)[: max(1, height - 2 - len(headings))]
        longest = max((cell_len(self._shown_name(each.text)) for each in candidates), default=0)
        name_width = max(5, min(MAX_NAME_WIDTH, longest))
        max_prob = max((max(each.sampling_prob, each.model_prob) for each in candidates), default=0.0) or 1.0
        bars = [self._bar_line(candidate, name_width, max_prob, width) for candidate in candidates]
        num_kept = sum(candidate.sampling_prob > 0 for candidate in candidates)
        cutoff_line = self._cutoff_line(preview, width)
        lines = [self._title_line(preview, width), *headings, *bars[:num_kept], cutoff_line, *bars[num_kept:]]
        return [Strip(line) for line in lines]

    def _shown_name(self, text: str) -> str:
        return format_lone_token(text, ends_text=self._ends_text)

    def _title_line(self, preview: NextTokenProbs, width: int) -> list[Segment]:
        text = self._previous_text
        shown = self._shown_name(text) if preview.candidate_unit == "token" or text in SPECIAL_TOKEN_NAMES else text
        context = f"after {shown}" if text in SPECIAL_TOKEN_NAMES else f'after "{shown}"'
        title, context = f"NEXT {preview.candidate_unit.upper()}  ", context if text else "at the start"
        if self._speaker:
            context = f"if {self._speaker} answers"
        context = truncate(context, max(0, width - len(title)))
        return [Segment(title, self._styles.title), Segment(context, self._styles.muted)]

    def _headings_line(self, preview: NextTokenProbs, width: int) -> list[Segment]:
        """Return the entropy of the model's distribution, and the headings of the two columns of probabilities."""
        headings = f"after sampling{'raw':>{PERCENT_WIDTH}}"
        bits = f"{preview.entropy:.1f} bits"
        label = "entropy" if preview.token_unit == preview.candidate_unit else f"{preview.token_unit} entropy"
        room = max(0, width - len(headings) - 1)
        entropy = f"{label} {bits}" if len(label) + len(bits) < room else bits
        return [Segment(f"{truncate(entropy, room):{room}} {headings}", self._styles.muted)]

    def _bar_line(self, candidate: Candidate, name_width: int, max_prob: float, width: int) -> list[Segment]:
        is_kept = candidate.sampling_prob > 0
        sampled = f"{candidate.sampling_prob:{PERCENT_WIDTH}.1%}" if is_kept else " " * PERCENT_WIDTH
        raw = f"{candidate.model_prob:{PERCENT_WIDTH}.1%}"
        room = max(4, width - name_width - len(sampled) - len(raw) - 1)
        sampled_length, raw_length = candidate.sampling_prob / max_prob * room, candidate.model_prob / max_prob * room
        name_style = self._styles.plain if is_kept else self._styles.muted
        if candidate.text in SPECIAL_TOKEN_NAMES:
            name_style = self._styles.special
        name = truncate(self._shown_name(candidate.text), name_width)
        return [
            Segment(f"{set_cell_size(name, name_width)} ", name_style),
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

    def _cutoff_line(self, preview: NextTokenProbs, width: int) -> list[Segment]:
        """Return the line below the tokens that can be sampled, with the longest text that fits."""
        counts = f"{preview.num_kept:,} of {preview.vocabulary_size:,}"
        filters = f"{self._filters}: " if self._filters else ""
        texts = [
            f"{filters}{counts} {preview.token_unit}s can be sampled",
            f"{counts} {preview.token_unit}s can be sampled",
            f"{counts} can be sampled",
        ]
        text = next((text for text in texts if len(text) <= width - 6), counts)
        return [Segment(f"{f' {text} ':─^{width}}"[:width], self._styles.muted)]


def _shown_candidates(preview: NextTokenProbs) -> tuple[Candidate, ...]:
    """Return the candidates that are likely enough to be shown, and at least `MIN_ROWS`.

    A token that cannot continue the last word of the prompt has the probability 0 and is never shown.
    """
    return tuple(
        candidate
        for row, candidate in enumerate(preview.candidates)
        if candidate.model_prob > 0
        and (row < MIN_ROWS or max(candidate.sampling_prob, candidate.model_prob) >= MIN_SHOWN_PROB)
    )
