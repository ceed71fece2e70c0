"""Right side of the session: who answers, what comes next, the token under the cursor, and the curve of a training."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import exp, log
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.strip import Strip

from engine.data.speakers import display_name
from engine.errors import LotrError
from engine.generation.generate import NUM_TOP_TOKENS, Candidate, NextTokenProbs
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb
from lotr_tui.formatting import SPECIAL_TOKEN_NAMES, fit_cells, format_lone_token, format_percent, truncate
from lotr_tui.screens.session.conversation_view import ConversationView, InspectedToken
from lotr_tui.screens.session.preview import MIN_SHOWN_PROB, Preview
from lotr_tui.session.cast import MODEL_CHOOSES
from lotr_tui.session.read_text import MAX_CANDIDATES, NextTokenContext, find_context
from lotr_tui.session.reply import Token
from lotr_tui.session.session_model import reads_line_ends
from lotr_tui.session.settings import PreviewUnit
from lotr_tui.textual_fixes.app import paint
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.charts import PerplexityChart
from lotr_tui.widgets.drawing import StripWidget
from lotr_tui.widgets.speaker_bars import SpeakerBars

PREVIEW_INTERVAL = 0.2  # least seconds between two updates of the bars while words are written
PERCENT_WIDTH = 7  # cells of a probability, as ` 14.1%`
MIN_ROWS = 5  # for the most likely tokens or words, however unlikely these are
MAX_NAME_WIDTH = 14
HEADING_HEIGHT = 7  # least height for the line with the headings of the columns
MIN_COLUMN_WIDTH = 18  # cells of a column of alternatives in a low pane
MIN_BAR_WIDTH = 6
_CSS = """
NextTokenBars, TokenInspector {
    height: 1fr; min-height: 5; padding: 0 1;
    .candidates--bar { color: $accent; }
    .candidates--title { text-style: bold; }
    .candidates--muted { color: $muted; text-style: $muted-style; }
    .candidates--special { color: $muted; text-style: italic $muted-style; }
    .candidates--marked { text-style: reverse; }
}
NextTokenBars:focus > .candidates--title { text-style: bold reverse; }
"""
_CLASSES = {f"candidates--{name}" for name in ("bar", "title", "muted", "special", "marked")}


class SidePane(Vertical):
    """All panes at the side of the conversation."""

    def __init__(self, view: ConversationView, on_completion: Callable[[], None]) -> None:
        """Show what can come next in a conversation; `on_completion` is called once a slow model completes a draft."""
        super().__init__(id="side")
        self._view, self._slot = view, view.slot
        self.who, self.next = WhoAnswersBars(view.slot.set_speaker), NextTokenBars(id="next")
        self.inspector, self.chart = TokenInspector(view.branch), PerplexityChart(id="training")
        self.chart.can_focus = True
        reader = view.conversation.reader
        self.preview = Preview(self, self._show_candidates, MAX_CANDIDATES, MIN_ROWS, on_completion, reader=reader)
        self.speaker_probs: Sequence[SpeakerProb] = ()  # of who answers the draft, likeliest first
        self.answerer = ""  # whose line the bars begin
        self._shown_text: tuple[NextTokenContext, str] | None = None  # with the unit of the bars
        self._updated_at = 0.0  # when the bars were asked for
        self._is_opening = False  # before anything is said or typed, when the people of the welcome line are shown

    def compose(self) -> ComposeResult:
        yield Vertical(self.who, self.next, self.inspector, id="previews")
        yield self.chart

    def on_unmount(self) -> None:
        self.preview.cancel()

    def ask_roles(self, column: Literal["answering", "speaking-as"] = "answering") -> None:
        self._slot.choose_roles(column, self.speaker_probs)

    def show_next(self, draft: str) -> None:
        """Show what can come next after the typed prompt, or after the latest reply if nothing is typed."""
        slot, conversation, roles, text = self._slot, self._view.conversation, self._slot.roles, None
        self._updated_at = time.monotonic()
        self._is_opening = conversation.current_reply is None and not draft.strip()
        if self._is_opening and not roles.speaker and slot.session_model.cast:
            roles = roles._replace(speaker=slot.session_model.introduced_speakers()[0])
        previous = self._view.previous_reply()
        latest = conversation.active_reply or conversation.current_reply
        with suppress(LotrError):  # a prompt that cannot be read is reported when it is sent
            text = find_context(slot.session_model, latest, draft, slot.reply_mode, previous, roles)
        if text is None:
            self.preview.cancel()
            self.next.clear()
        else:
            is_idle = conversation.active_reply is None
            self.preview.request(text, slot.sampler.settings, slot.preview_unit, draft, may_read=is_idle)

    def follow_reply(self, draft: str, *, ended: bool) -> None:
        """Show what can come next while a reply is written, less often than its words arrive, and once it has ended."""
        active = self._view.conversation.active_reply
        if active is not None and not active.tokens:
            self._updated_at = time.monotonic()  # the first word is painted before the bars are computed
            if self._slot.session_model.is_slow:
                self.preview.cancel()
        elif ended or time.monotonic() - self._updated_at >= PREVIEW_INTERVAL:
            self.show_next(draft)

    def show_who(self) -> None:
        """Show who answers, and who is chosen."""
        model, probs = self._slot.session_model, self.speaker_probs
        if self._is_opening and model.cast:
            by_name = {speaker.name: speaker for speaker in probs}
            probs = [by_name[name] for name in model.introduced_speakers() if name in by_name]
        if probs:
            self.who.show(probs, model.cast, self._slot.roles.speaker)

    def _show_candidates(self, context: NextTokenContext, settings: SamplerSettings, probs: NextTokenProbs) -> None:
        if (context, probs.candidate_unit) != self._shown_text:  # a temperature key changes the probabilities alone
            self._shown_text = context, probs.candidate_unit
            if context.speakers:
                self.speaker_probs, self.answerer = context.speakers, context.speaker
                self.show_who()
            is_answer = context.is_chat and context.is_first_token
            speaker = self._slot.session_model.label if is_answer else display_name(context.speaker)
            last_text, ends_text = context.last_text(probs.candidate_unit), reads_line_ends(context.model)
            self.next.set_place(last_text, probs.candidate_unit, speaker, ends_text=ends_text)
        self.next.show(probs, settings.describe(only_filters=True))


class WhoAnswersBars(SpeakerBars):
    """The most likely next speakers, and the one that the user has chosen, with a mark. A click chooses a speaker."""

    DEFAULT_CSS = "WhoAnswersBars { height: 7; padding: 1 1 0 1; }"
    TITLE: ClassVar[str] = "WHO ANSWERS"

    def __init__(self, choose: Callable[[str], None]) -> None:
        super().__init__(id="who")
        self._choose = choose
        self._probs: Sequence[SpeakerProb] = ()
        self._chosen = ""

    def show(self, probs: Sequence[SpeakerProb], cast: Sequence[str], chosen: str) -> None:
        """Show probabilities of the next speaker, in their order, and who is `chosen`, if anyone."""
        if cast != self._cast:
            self.set_cast(cast)
        self._probs, self._chosen = probs, chosen
        self.redraw_changes()

    def on_click(self, event: events.Click) -> None:
        if (name := self.clicked_speaker(event)) is not None:
            self._choose("" if name == self._chosen else name)  # a second click lets the model choose again

    def draw(self, width: int, height: int) -> list[Strip]:
        note = f"{display_name(self._chosen)} by your choice" if self._chosen else MODEL_CHOOSES
        shown = list(self._probs[: max(0, height - 1)])
        if shown and self._chosen and all(speaker.name != self._chosen for speaker in shown):
            shown[-1:] = [speaker for speaker in self._probs if speaker.name == self._chosen] or shown[-1:]
        highest = max((speaker.prob for speaker in self._probs), default=0.0) or 1.0
        return self.draw_rows(note, shown, {self._chosen: "●"}, highest, width)


class NextTokenBars(StripWidget, can_focus=True):
    """The most likely tokens or words after the sampler chain; those below the cutoff line cannot be sampled."""

    FOCUS_ON_CLICK = False
    DEFAULT_CSS = _CSS
    COMPONENT_CLASSES: ClassVar[set[str]] = _CLASSES
    _probs: NextTokenProbs | None = None
    _place = _filters = ""
    _ends_text = False

    def get_help_line(self) -> str:
        has_subwords = self._probs is not None and self._probs.token_unit == "token"
        return f"Most likely next words{' or tokens (u)' if has_subwords else ''}, after sampling and raw"

    def set_place(self, previous_text: str, unit: PreviewUnit, speaker: str = "", *, ends_text: bool = False) -> None:
        """Say that the probabilities follow `previous_text`, empty at the start of a text, or begin a speaker's line.

        With `ends_text`, `<eos>` ends a whole text instead of a line.
        """
        self._ends_text = ends_text
        is_special = previous_text in SPECIAL_TOKEN_NAMES
        is_token = is_special or unit == "token"
        shown = format_lone_token(previous_text, ends_text=ends_text) if is_token else previous_text
        self._place = f"after {shown}" if is_special else f'after "{shown}"' if shown else "at the start"
        if speaker:
            self._place = f"if {speaker} answers"

    def show(self, probs: NextTokenProbs, filters: str) -> None:
        """Show probabilities; `filters` are the ones of the sampler chain, such as `top-k 5`."""
        self._probs, self._filters = probs, filters
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
        styles = _styles(self)
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
        bars = []
        for candidate, name in zip(candidates, names, strict=True):
            is_special, is_kept = candidate.text in SPECIAL_TOKEN_NAMES, candidate.sampling_prob > 0
            style = styles["special" if is_special else "" if is_kept else "muted"]
            shown = Segment(f"{fit_cells(name, name_width)} ", style)
            bars.append([shown, *_bar_segments(candidate, max_prob, width - name_width - 1, styles)])
        num_kept = sum(candidate.sampling_prob > 0 for candidate in candidates)
        cutoff = [Segment(_cutoff(probs, self._filters, width), styles["muted"])]
        return [Strip(line) for line in [*lines, *bars[:num_kept], cutoff, *bars[num_kept:]]]


def _styles(widget: StripWidget) -> dict[str, Style]:
    return {name.rpartition("--")[2]: style for name, style in widget.component_styles().items()}


def _headings(probs: NextTokenProbs, width: int) -> str:
    """Return the entropy of the model's distribution, and the headings of the two columns of probabilities."""
    headings = f"after sampling{'raw':>{PERCENT_WIDTH}}"
    bits = f"{probs.entropy:.1f} bits"
    label = "entropy" if probs.token_unit == probs.candidate_unit else f"{probs.token_unit} entropy"
    room = max(0, width - len(headings) - 1)
    entropy = f"{label} {bits}" if len(label) + len(bits) < room else bits
    return f"{truncate(entropy, room):{room}} {headings}"


def _bar_segments(candidate: Candidate, max_prob: float, width: int, styles: dict[str, Style]) -> list[Segment]:
    """Return `████│██░░  14.1%   9.3%`: the raw probability is where the shade ends, or at the mark in the bar."""
    sampled = f"{candidate.sampling_prob:{PERCENT_WIDTH}.1%}" if candidate.sampling_prob > 0 else " " * PERCENT_WIDTH
    raw = f"{candidate.model_prob:{PERCENT_WIDTH}.1%}"
    room = max(4, width - len(sampled) - len(raw))
    sampled_length, raw_length = candidate.sampling_prob / max_prob * room, candidate.model_prob / max_prob * room
    cells = bar(sampled_length / room, room)
    num_removed, mark_at = max(0, round(raw_length) - len(cells)), int(raw_length)
    if sampled_length - raw_length < 1 or mark_at >= cells.count("█"):  # too close to mark
        drawn = [Segment(cells, styles["bar"])]
    else:
        mark = Segment("│", styles["bar"] + Style(reverse=True))
        drawn = [Segment(cells[:mark_at], styles["bar"]), mark, Segment(cells[mark_at + 1 :], styles["bar"])]
    return [
        *drawn,
        Segment("░" * num_removed, styles["muted"]),
        Segment(f"{' ' * (room - len(cells) - num_removed)}{sampled}", styles[""]),
        Segment(raw, styles["muted"]),
    ]


def _cutoff(probs: NextTokenProbs, filters: str, width: int) -> str:
    """Return the line below the tokens that can be sampled, with the longest text that fits."""
    counts, noun = f"{probs.num_kept:,} of {probs.vocabulary_size:,}", f"{probs.token_unit}s can be sampled"
    texts = [f"{filters}: {counts} {noun}" if filters else "", f"{counts} {noun}", f"{counts} can be sampled"]
    text = next((text for text in texts if text and len(text) <= width - 6), counts)
    return f"{f' {text} ':─^{width}}"[:width]


class TokenInspector(StripWidget):
    """Figures of one token, and its alternatives with the digits that branch to them, in columns if the pane is low."""

    DEFAULT_CSS = _CSS
    COMPONENT_CLASSES: ClassVar[set[str]] = _CLASSES

    def __init__(self, branch: Callable[[int], None]) -> None:
        super().__init__(id="inspector")
        self._branch = branch
        self._inspected: InspectedToken | None = None
        self._click_targets: dict[tuple[int, int], int] = {}  # number of the alternative by line and column
        self._column_count = 1

    def show(self, inspected: InspectedToken) -> None:
        self._inspected = inspected
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None:
            column = offset.x * self._column_count // max(1, self.size.width)
            if (number := self._click_targets.get((offset.y, column))) is not None:
                self._branch(number)

    def draw(self, width: int, height: int) -> list[Strip]:
        inspected = self._inspected
        self._click_targets = {}
        if inspected is None:
            return []
        styles, token, alternatives = _styles(self), inspected.reply.tokens[inspected.index], inspected.alternatives
        shown = format_lone_token(token.text)
        shown = shown if token.text in SPECIAL_TOKEN_NAMES else f'"{shown}"'
        if token.text.strip(" ") not in ("", inspected.word):  # a lone space is the gap between two words
            shown += f' in "{inspected.word}"'
        place = f"{inspected.index + 1} of {len(inspected.reply.tokens)}"
        title = f"{inspected.preview.token_unit.upper()} {place}  {shown}"
        lines = [[Segment(title[:width], styles["title"])]]
        lines += [[Segment(line, styles["muted"])] for line in _wrap_figures(token, width)]
        if height >= len(lines) + NUM_TOP_TOKENS + 3 and _shows_raw(width):
            heads = f"{'after sampling':>{width - PERCENT_WIDTH}}{'raw':>{PERCENT_WIDTH}}"
            lines.append([Segment(heads, styles["muted"])])
        room = max(1, height - len(lines))
        num_expected = len(alternatives) if inspected.preview.is_final else NUM_TOP_TOKENS
        self._column_count = min(-(-num_expected // room), max(1, width // MIN_COLUMN_WIDTH)) or 1
        rows = min(room, -(-num_expected // self._column_count))
        for row in range(rows):
            line: list[Segment] = []
            for column in range(self._column_count):
                number = column * rows + row + 1
                if number <= len(alternatives):
                    self._click_targets[len(lines), column] = number
                    line += _alternative(inspected, number, width // self._column_count, styles)
            lines.append(line)
        if room > rows + 1:
            hint = f"1-8 or a click: branch to that {inspected.preview.candidate_unit}"
            lines += [[], [Segment(hint[:width], styles["muted"])]]
        return [Strip(line) for line in lines]


def _alternative(inspected: InspectedToken, number: int, cells: int, styles: dict[str, Style]) -> list[Segment]:
    """Return `1 word  ████  14.1%   9.3%`; the bar and the raw probability only where there is room."""
    candidate = inspected.alternatives[number - 1]
    mark = "●" if candidate.text == inspected.written_text else " "
    ends_text = reads_line_ends(inspected.reply.session_model.model)
    text = fit_cells(format_lone_token(candidate.text, ends_text=ends_text), _name_width(cells))
    is_special = candidate.text in SPECIAL_TOKEN_NAMES
    style = styles["marked" if number == inspected.marked else "special" if is_special else ""]
    name = Segment(f"{number}{mark}{text}", style)
    room = cells - name.cell_length - 1
    if not _shows_raw(cells):
        return [name, Segment(f" {candidate.sampling_prob:{PERCENT_WIDTH}.1%}".ljust(room + 1), styles[""])]
    highest = max(each.highest_prob for each in inspected.alternatives) or 1.0
    return [name, Segment(" "), *_bar_segments(candidate, highest, room, styles)]


def _name_width(cells: int) -> int:
    """Return the width of an alternative's word in a column of `cells`, without its number and mark."""
    return max(4, min(14, cells - 12))


def _shows_raw(cells: int) -> bool:
    """Return True if a column of `cells` has room for a bar and the raw probability."""
    return cells - _name_width(cells) >= PERCENT_WIDTH * 2 + MIN_BAR_WIDTH + 4


def _wrap_figures(token: Token, width: int) -> list[str]:
    """Return the figures of a token, with two spaces between them, in as few lines of `width` cells as possible."""
    figures = [] if token.logprob is None else [f"raw {format_percent(exp(token.logprob))}"]
    figures += [] if token.prob is None else [f"after sampling {format_percent(token.prob)}"]
    figures.append(f"rank {token.rank:,}")
    figures += [] if token.logprob is None else [f"surprise {-token.logprob / log(2):.1f} bits"]
    figures += [] if token.entropy is None else [f"entropy {token.entropy:.1f} bits"]
    lines = [figures.pop(0)]
    for figure in figures:
        longer = f"{lines[-1]}  {figure}"
        lines[-1:] = [longer] if len(longer) <= width else [lines[-1], figure]
    return [line[:width] for line in lines]
