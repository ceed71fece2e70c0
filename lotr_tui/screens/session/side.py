"""Right side of the session: who answers, what comes next, the token under the cursor, and the curve of a training."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.strip import Strip

from engine.data.speakers import display_name
from engine.generation.generate import Candidate, NextTokenProbs
from engine.generation.turns import SpeakerProb
from lotr_tui.formatting import SPECIAL_TOKEN_NAMES, format_lone_token, truncate
from lotr_tui.screens.session.preview import MIN_SHOWN_PROB
from lotr_tui.screens.session.token_inspector import TokenInspector
from lotr_tui.session.cast import MODEL_CHOOSES
from lotr_tui.textual_fixes.app import paint
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.charts import PerplexityChart
from lotr_tui.widgets.drawing import StripWidget
from lotr_tui.widgets.speaker_bars import SpeakerBars

PERCENT_WIDTH = 7  # cells of a probability
MIN_ROWS = 5  # for the most likely tokens or words, however unlikely these are
MAX_NAME_WIDTH = 14
HEADING_HEIGHT = 7  # least height for the line with the headings of the columns
CHOSEN_MARK = "●"


class SidePane(Vertical):
    """All panes at the side of the conversation."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.who, self.next = WhoAnswersBars(id="who"), NextTokenBars(id="next")
        self.inspector, self.chart = TokenInspector(id="inspector"), PerplexityChart(id="training")
        self.chart.can_focus = True

    def compose(self) -> ComposeResult:
        yield Vertical(self.who, self.next, self.inspector, id="previews")
        yield self.chart


class WhoAnswersBars(SpeakerBars):
    """The most likely next speakers, and the one that the user has chosen, with a mark. A click chooses a speaker."""

    HELP_LINE = "Who is likely to answer; a click chooses, or undoes that"
    DEFAULT_CSS = "WhoAnswersBars { height: 7; padding: 1 1 0 1; }"
    TITLE: ClassVar[str] = "WHO ANSWERS"

    class SpeakerSelected(Message):
        """Posted when a speaker is clicked; an empty name lets the model choose again."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._probs: Sequence[SpeakerProb] = ()
        self._chosen = ""

    def show(self, probs: Sequence[SpeakerProb], cast: Sequence[str], chosen: str) -> None:
        """Show the probabilities of the next speaker, the likeliest first, and who is `chosen`, if anyone."""
        if cast != self._cast:
            self.set_cast(cast)
        self._probs, self._chosen = probs, chosen
        self.redraw_changes()

    def on_click(self, event: events.Click) -> None:
        if (name := self.clicked_speaker(event)) is not None:
            self.post_message(self.SpeakerSelected("" if name == self._chosen else name))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return a title, and as many speakers as fit, the chosen one always."""
        note = f"{display_name(self._chosen)} by your choice" if self._chosen else MODEL_CHOOSES
        shown = list(self._probs[: max(0, height - 1)])
        if shown and self._chosen and all(speaker.name != self._chosen for speaker in shown):
            shown[-1:] = [speaker for speaker in self._probs if speaker.name == self._chosen] or shown[-1:]
        highest = max((speaker.prob for speaker in self._probs), default=0.0) or 1.0
        return self.draw_rows(note, shown, {self._chosen: CHOSEN_MARK}, highest, width)


class NextTokenBars(StripWidget, can_focus=True):
    """The most likely tokens or words after the sampler chain; those below the cutoff line cannot be sampled.

    The length of a bar is the probability after sampling. The raw probability is where the shade `░` ends, or at the
    mark `│` in the bar. Both are written at the right.
    """

    FOCUS_ON_CLICK = False
    DEFAULT_CSS = """
    NextTokenBars { height: 1fr; min-height: 5; padding: 0 1; }
    NextTokenBars > .next-token--bar { color: $accent; }
    NextTokenBars > .next-token--title { text-style: bold; }
    NextTokenBars:focus > .next-token--title { text-style: bold reverse; }
    NextTokenBars > .next-token--muted { color: $muted; text-style: $muted-style; }
    NextTokenBars > .next-token--special { color: $muted; text-style: italic $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"next-token--{name}" for name in ("bar", "title", "muted", "special")}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._probs: NextTokenProbs | None = None
        self._place = self._filters = ""
        self._ends_text = False

    def get_help_line(self) -> str:
        has_subwords = self._probs is not None and self._probs.token_unit == "token"
        return f"Most likely next words{' or tokens (u)' if has_subwords else ''}, after sampling and raw"

    def show(
        self, probs: NextTokenProbs, previous_text: str, filters: str, speaker: str = "", *, ends_text: bool = False
    ) -> None:
        """Show the probabilities after `previous_text`, empty at the start of a text.

        Args:
            probs: The probabilities.
            previous_text: The token or word before them.
            filters: The filters of the sampler chain, such as `top-k 5`; empty if there are none.
            speaker: Name of the speaker whose line begins there; empty inside of a line.
            ends_text: True if `<eos>` ends a whole text instead of a line.
        """
        self._probs, self._filters, self._ends_text = probs, filters, ends_text
        is_special = previous_text in SPECIAL_TOKEN_NAMES
        shown = previous_text
        if is_special or probs.candidate_unit == "token":
            shown = format_lone_token(previous_text, ends_text=ends_text)
        self._place = f"after {shown}" if is_special else f'after "{shown}"' if shown else "at the start"
        if speaker:
            self._place = f"if {speaker} answers"
        self.redraw()
        paint(self)

    def clear(self) -> None:
        """Show nothing, because no text is read yet."""
        if self._probs is not None:
            self._probs = None
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return a title, headings, the tokens that can be sampled, the cutoff line, and the other tokens."""
        probs = self._probs
        if probs is None:
            return []
        styles = {
            name: self.get_component_rich_style(f"next-token--{name}") for name in ("bar", "title", "muted", "special")
        }
        styles["plain"] = self.rich_style
        title = f"NEXT {probs.candidate_unit.upper()}  "
        context = Segment(truncate(self._place, max(0, width - len(title))), styles["muted"])
        lines = [[Segment(title, styles["title"]), context]]
        if height >= HEADING_HEIGHT:
            lines.append([Segment(_headings(probs, width), styles["muted"])])
        # A token that cannot continue the last word of the prompt has the probability 0 and is never shown.
        candidates = [
            candidate
            for row, candidate in enumerate(probs.candidates)
            if candidate.model_prob > 0 and (row < MIN_ROWS or candidate.highest_prob >= MIN_SHOWN_PROB)
        ][: max(1, height - 1 - len(lines))]
        names = [format_lone_token(each.text, ends_text=self._ends_text) for each in candidates]
        name_width = max(5, min(MAX_NAME_WIDTH, max(map(cell_len, names), default=0)))
        max_prob = max((each.highest_prob for each in candidates), default=0.0) or 1.0
        bars = [
            _bar_line(candidate, set_cell_size(truncate(name, name_width), name_width), max_prob, width, styles)
            for candidate, name in zip(candidates, names, strict=True)
        ]
        num_kept = sum(candidate.sampling_prob > 0 for candidate in candidates)
        cutoff = [Segment(_cutoff(probs, self._filters, width), styles["muted"])]
        return [Strip(line) for line in [*lines, *bars[:num_kept], cutoff, *bars[num_kept:]]]


def _headings(probs: NextTokenProbs, width: int) -> str:
    """Return the entropy of the model's distribution, and the headings of the two columns of probabilities."""
    headings = f"after sampling{'raw':>{PERCENT_WIDTH}}"
    bits = f"{probs.entropy:.1f} bits"
    label = "entropy" if probs.token_unit == probs.candidate_unit else f"{probs.token_unit} entropy"
    room = max(0, width - len(headings) - 1)
    entropy = f"{label} {bits}" if len(label) + len(bits) < room else bits
    return f"{truncate(entropy, room):{room}} {headings}"


def _bar_line(candidate: Candidate, name: str, max_prob: float, width: int, styles: dict[str, Style]) -> list[Segment]:
    """Return `name ████│██░░  14.1%   9.3%`: the raw length is shaded, or marked where it is shorter."""
    is_kept = candidate.sampling_prob > 0
    sampled = f"{candidate.sampling_prob:{PERCENT_WIDTH}.1%}" if is_kept else " " * PERCENT_WIDTH
    raw = f"{candidate.model_prob:{PERCENT_WIDTH}.1%}"
    room = max(4, width - cell_len(name) - len(sampled) - len(raw) - 1)
    sampled_length, raw_length = candidate.sampling_prob / max_prob * room, candidate.model_prob / max_prob * room
    name_style = styles["special" if candidate.text in SPECIAL_TOKEN_NAMES else "plain" if is_kept else "muted"]
    cells = bar(sampled_length / room, room)
    num_removed, mark_at = max(0, round(raw_length) - len(cells)), int(raw_length)
    if sampled_length - raw_length < 1 or mark_at >= cells.count("█"):  # too close to mark
        drawn = [Segment(cells, styles["bar"])]
    else:
        mark = Segment("│", styles["bar"] + Style(reverse=True))
        drawn = [Segment(cells[:mark_at], styles["bar"]), mark, Segment(cells[mark_at + 1 :], styles["bar"])]
    return [
        Segment(f"{name} ", name_style),
        *drawn,
        Segment("░" * num_removed, styles["muted"]),
        Segment(" " * (room - len(cells) - num_removed), styles["plain"]),
        Segment(sampled, styles["plain"]),
        Segment(raw, styles["muted"]),
    ]


def _cutoff(probs: NextTokenProbs, filters: str, width: int) -> str:
    """Return the line below the tokens that can be sampled, with the longest text that fits."""
    counts, noun = f"{probs.num_kept:,} of {probs.vocabulary_size:,}", f"{probs.token_unit}s can be sampled"
    texts = [f"{filters}: {counts} {noun}" if filters else "", f"{counts} {noun}", f"{counts} can be sampled"]
    text = next((text for text in texts if text and len(text) <= width - 6), counts)
    return f"{f' {text} ':─^{width}}"[:width]
