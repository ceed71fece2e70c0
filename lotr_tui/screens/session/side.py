"""Right side of the session: who answers, what comes next, the token under the cursor, and the curve of a training."""

import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import exp, log
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import app, containers, events
from textual.strip import Strip

from engine.data.speakers import display_name, introduced_speakers
from engine.data.tokenizers import EOS, UNK
from engine.errors import LotrError
from engine.generation.complete_words import word_around
from engine.generation.generate import NUM_TOP_TOKENS, Candidate, NextTokenProbs
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb
from lotr_tui.formatting import SPECIAL_TOKEN_NAMES, bar, fit_cells, format_lone_token, format_percent, truncate
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.screens.session.model_slot import ModelSlot
from lotr_tui.screens.session.preview import MIN_SHOWN_PROB, Preview
from lotr_tui.session import read_text
from lotr_tui.session.cast import MODEL_CHOOSES
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import reads_line_ends
from lotr_tui.session.settings import PreviewUnit
from lotr_tui.textual_fixes.app import paint
from lotr_tui.widgets import charts, drawing, speaker_bars

PREVIEW_INTERVAL = 0.2  # least seconds between two updates of the bars while words are written
PERCENT_WIDTH = 7  # cells of a probability, as ` 14.1%`
MIN_ROWS = 5  # for the most likely tokens or words, however unlikely these are
MAX_NAME_WIDTH = 14
HEADING_HEIGHT = 7  # least height for the line with the headings of the columns
MIN_COLUMN_WIDTH = 18  # cells of a column of alternatives in a low pane
MIN_BAR_WIDTH = 6


class SidePane(containers.Vertical):
    def __init__(self, view: ConversationView, on_completion: Callable[[], None]) -> None:
        """Show what can come next in a conversation; `on_completion` is called once a slow model completes a draft."""
        super().__init__(id="side")
        self._view, self._slot, reader = view, view.slot, view.conversation.reader
        self.who, self.next = WhoAnswersBars(view.slot), TokenBars(self.branch)
        self.chart = charts.PerplexityChart(id="training")
        self.chart.can_focus = True
        self.preview = Preview(self, reader, self._show_candidates, read_text.MAX_CANDIDATES, MIN_ROWS, on_completion)
        number = NUM_TOP_TOKENS
        self._inspection = Preview(self, reader, lambda *shown: self.next.inspect(shown[-1]), number, number, pause=0)
        self._shown_text: tuple[NextTokenContext, PreviewUnit] | None = None  # with the unit of the bars
        self._updated_at = 0.0  # when the bars were asked for
        self._answer: Reply | None = None  # whose speaker is shown, until the next line is typed
        self._is_opening = False  # before anything is said or typed, when the people of the welcome line are shown

    def compose(self) -> app.ComposeResult:
        yield containers.Vertical(self.who, self.next, id="previews")
        yield self.chart

    def on_unmount(self) -> None:
        self.preview.cancel()
        self._inspection.cancel()

    def show_next(self, draft: str) -> None:
        """Show what can come next after the typed prompt, or after the latest reply if nothing is typed."""
        slot, conversation, context, text = self._slot, self._view.conversation, self._view.context, None
        self._updated_at = time.monotonic()
        self._is_opening = conversation.current_reply is None and not draft.strip()
        if self._is_opening and not context.roles.speaker and slot.session_model.cast:
            first = introduced_speakers(slot.session_model.cast)[0]
            context = replace(context, roles=context.roles._replace(speaker=first))
        latest = conversation.active_reply or conversation.current_reply
        is_edited = bool(draft.strip()) and conversation.active_reply is None
        self._answer = None if is_edited else latest
        if self._answer is not None:
            self.show_who()
        with suppress(LotrError):  # a prompt that cannot be read is reported when it is sent
            text = read_text.find_context(slot.session_model, latest, draft, context)
        if text is None:
            self.preview.cancel()
            self.next.show(None)
        else:
            is_idle = conversation.active_reply is None
            self.preview.request(text, slot.sampler.settings, slot.preview_unit, draft, is_idle=is_idle)

    def follow_reply(self, draft: str, *, ended: bool) -> None:
        """Show what can come next less often than words arrive, and once the reply has ended."""
        active = self._view.conversation.active_reply
        if active is not None and active.speaker and not active.tokens:
            self._answer = active
            self.show_who()
        if active is not None and not active.tokens:
            self._updated_at = time.monotonic()  # the first word is painted before the bars are computed
            if self._slot.session_model.is_slow:
                self.preview.cancel()
        elif ended or time.monotonic() - self._updated_at >= PREVIEW_INTERVAL:
            self.show_next(draft)

    def show_who(self) -> None:
        """Show who answers the typed line, or who could have said the reply that is written or was the last."""
        model, answer = self._slot.session_model, self._answer
        if answer is not None and answer.speaker:
            said = SpeakerProb(answer.speaker, answer.speaker_prob or 1.0)  # all that a saved session has
            self._slot.speaker_probs = answer.speaker_probs or [said]
        probs = self._slot.speaker_probs
        if self._is_opening and model.cast:
            by_name = {speaker.name: speaker for speaker in probs}
            probs = [by_name[name] for name in introduced_speakers(model.cast) if name in by_name]
        if probs:
            self.who.show(probs)

    def _show_candidates(self, context: NextTokenContext, settings: SamplerSettings, probs: NextTokenProbs) -> None:
        if (context, probs.candidate_unit) != self._shown_text:  # a temperature key changes the probabilities alone
            self._shown_text = context, probs.candidate_unit
            if context.speakers:
                self._slot.answerer = context.speaker
                if self._answer is None:
                    self._slot.speaker_probs = context.speakers
                    self.show_who()
            is_answer = context.is_chat and context.is_first_token
            speaker = self._slot.session_model.label if is_answer else display_name(context.speaker)
            last_text, ends_text = context.last_text(probs.candidate_unit), reads_line_ends(context.model)
            self.next.set_place(last_text, probs.candidate_unit, speaker, ends_text=ends_text)
            self.next.is_estimate = context.is_estimate
        self.next.show(probs, settings.describe(only_filters=True))

    # The token under the cursor

    def inspect(self, reply: Reply | None, index: int) -> None:
        """Show a token at once, and its alternatives once the text before it is read; None shows the bars again."""
        is_idle = self._view.conversation.active_reply is None
        if reply is None or (self.next.reply, self.next.index) != (reply, index):
            self.next.reply, self.next.index = reply, index
            self.next.waiting = "computing the alternatives …" if is_idle else "alternatives once the reply is written"
            self.next.inspect(None)
        if reply is None:
            self._inspection.cancel()
        else:  # a slow model reads the text when no reply is written
            text = NextTokenContext.of_reply(reply, index)
            self._inspection.request(text, reply.settings, self._slot.preview_unit, is_idle=is_idle)

    def branch(self, number: int | None = None) -> None:
        """Branch to an alternative of the token under the cursor, counted from 1; None is the marked one."""
        bars, reply = self.next, self.next.reply
        number = bars.marked if number is None else number
        if reply is None or number > len(bars.alternatives):
            if reply is not None and not bars.alternatives:
                self.notify(bars.waiting)
            return
        candidate, problem = bars.alternatives[number - 1], reply.read_only_reason
        name = repr(format_lone_token(candidate.text))
        if not problem and candidate.text == bars.written_text:
            problem = f"{name} is already the {bars.unit} here; choose another one."
        elif not problem and candidate.text in (EOS, UNK):
            problem = f"{name} is not a {bars.unit}; choose another one to branch to."
        if problem:
            self.notify(problem, severity="warning", markup=False)
        else:
            self._view.branch(reply, bars.index, candidate.ids, ends_word=bars.unit == "word")


class WhoAnswersBars(speaker_bars.SpeakerBars):
    """The most likely next speakers, and the one that the user has chosen, with a mark. A click chooses a speaker."""

    TITLE: ClassVar[str] = "WHO ANSWERS"

    def __init__(self, slot: ModelSlot) -> None:
        super().__init__(id="who")
        self._slot = slot
        self._probs: Sequence[SpeakerProb] = ()

    def show(self, probs: Sequence[SpeakerProb]) -> None:
        self.set_cast(self._slot.session_model.cast)
        self._probs = probs
        self.redraw_changes()

    def on_click(self, event: events.Click) -> None:
        if (name := self.clicked_speaker(event)) is not None:  # a second click lets the model choose again
            self._slot.set_control(f"to {'anyone' if name == self._slot.roles.speaker else name}")

    def draw(self, width: int, height: int) -> list[Strip]:
        chosen = self._slot.roles.speaker
        note = f"{display_name(chosen)} by your choice" if chosen else MODEL_CHOOSES
        shown = list(self._probs[: max(0, height - 1)])
        if shown and chosen and all(speaker.name != chosen for speaker in shown):
            shown[-1:] = [speaker for speaker in self._probs if speaker.name == chosen] or shown[-1:]
        highest = max((speaker.prob for speaker in self._probs), default=0.0) or 1.0
        return self.draw_rows(note, shown, {chosen: "●"}, highest, width)


def _bar_segments(candidate: Candidate, max_prob: float, width: int, styles: dict[str, Style]) -> list[Segment]:
    """Return `████│██░░  14.1%   9.3%`: the raw probability is where the shade ends, or at the mark in the bar."""
    sampled = f"{candidate.sampling_prob:{PERCENT_WIDTH}.1%}" if candidate.sampling_prob > 0 else " " * PERCENT_WIDTH
    raw = f"{candidate.model_prob:{PERCENT_WIDTH}.1%}"
    room = max(4, width - len(sampled) - len(raw))
    sampled_length, raw_length = candidate.sampling_prob / max_prob * room, candidate.model_prob / max_prob * room
    cells = bar(sampled_length / room, room)
    num_removed, mark_at = max(0, round(raw_length) - len(cells)), int(raw_length)
    drawn = [Segment(cells, styles["bar"])]
    if sampled_length - raw_length >= 1 and mark_at < cells.count("█"):  # not too close to mark
        mark = Segment("│", styles["bar"] + Style(reverse=True))
        drawn = [Segment(cells[:mark_at], styles["bar"]), mark, Segment(cells[mark_at + 1 :], styles["bar"])]
    return [
        *drawn,
        Segment("░" * num_removed, styles["muted"]),
        Segment(f"{' ' * (room - len(cells) - num_removed)}{sampled}", styles[""]),
        Segment(raw, styles["muted"]),
    ]


class TokenBars(drawing.StripWidget, can_focus=True):
    """The most likely tokens or words after the sampler chain; those below the cutoff line cannot be sampled.

    With the cursor on a token of a reply, its figures and its alternatives, with the digits that branch to them.
    """

    FOCUS_ON_CLICK = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"candidates--{name}" for name in ("bar", "title", "muted", "special", "marked")
    }

    def __init__(self, branch: Callable[[int], None] = lambda number: None) -> None:
        super().__init__(id="next")
        self.reply: Reply | None = None  # whose token `index` is under the cursor
        self.index = 0
        self.waiting = ""  # for what, while a slow model has no alternatives yet
        self.inspect(None)
        self._branch = branch
        self._probs: NextTokenProbs | None = None  # of the next token
        self._place = self._filters = ""
        self._ends_text = False
        self.is_estimate = False  # True until the model has read the whole text
        self._click_targets: dict[tuple[int, int], int] = {}  # number of the alternative by line and column
        self._num_columns = 1

    def get_help_line(self) -> str:
        has_subwords = self._probs is not None and self._probs.token_unit == "token"
        return f"Most likely next words{' or tokens (u)' if has_subwords else ''}, after sampling and raw"

    def set_place(self, previous_text: str, unit: PreviewUnit, speaker: str = "", *, ends_text: bool = False) -> None:
        """Say what the probabilities follow or whose line they begin; with `ends_text`, `<eos>` ends a whole text."""
        self._ends_text, is_special = ends_text, previous_text in SPECIAL_TOKEN_NAMES
        is_token = is_special or unit == "token"
        shown = format_lone_token(previous_text, ends_text=ends_text) if is_token else previous_text
        self._place = f"after {shown}" if is_special else f'after "{shown}"' if shown else "at the start"
        if speaker:
            self._place = f"if {speaker} answers"

    def show(self, probs: NextTokenProbs | None, filters: str = "") -> None:
        """Show probabilities, if a text is read yet; `filters` are the ones of the sampler chain, such as `top-k 5`."""
        self._probs, self._filters = probs, filters
        self.redraw()
        paint(self)

    def inspect(self, probs: NextTokenProbs | None) -> None:
        """Show the token under the cursor, and the alternatives to it once they are known."""
        self.unit = "token" if probs is None else probs.candidate_unit
        self.alternatives = () if probs is None else probs.candidates[:NUM_TOP_TOKENS]
        self._num_expected = NUM_TOP_TOKENS if probs is None or not probs.is_final else len(self.alternatives)
        self.word = self.written_text = "" if self.reply is None else self.reply.tokens[self.index].text
        if self.reply is not None and not self.reply.read_only_reason:  # whose token ids belong to another model
            context, ids = self.reply.context_ids, [token.id for token in self.reply.tokens]
            tokenizer = self.reply.session_model.model.tokenizer
            self.word = word_around(tokenizer, [*context, *ids], len(context) + self.index)
        self.written_text = self.word if self.unit == "word" else self.written_text
        others = [number for number, each in enumerate(self.alternatives, 1) if each.text != self.written_text]
        self.marked = next(iter(others), 1)  # the alternative that enter branches to, counted from 1
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None:
            column = offset.x * self._num_columns // max(1, self.size.width)
            if (number := self._click_targets.get((offset.y, column))) is not None:
                self._branch(number)

    def draw(self, width: int, height: int) -> list[Strip]:
        self._click_targets = {}
        styles = {name.rpartition("--")[2]: style for name, style in self.component_styles().items()}
        if self.reply is not None:
            return self._draw_token(self.reply, width, height, styles)
        return [] if self._probs is None else self._draw_bars(self._probs, width, height, styles)

    def _draw_bars(self, probs: NextTokenProbs, width: int, height: int, styles: dict[str, Style]) -> list[Strip]:
        """Return a title, headings, the tokens that can be sampled, the cutoff line, and the other tokens."""
        title = f"NEXT {probs.candidate_unit.upper()}  "
        place = f"{self._place} …" if self.is_estimate else self._place
        context = Segment(truncate(place, max(0, width - len(title))), styles["muted"])
        lines = [[Segment(title, styles["title"]), context]]
        if height >= HEADING_HEIGHT:
            headings, bits = f"after sampling{'raw':>{PERCENT_WIDTH}}", f"{probs.entropy:.1f} bits"
            label = "entropy" if probs.token_unit == probs.candidate_unit else f"{probs.token_unit} entropy"
            room = max(0, width - len(headings) - 1)
            entropy = f"{label} {bits}" if len(label) + len(bits) < room else bits
            lines.append([Segment(f"{truncate(entropy, room):{room}} {headings}", styles["muted"])])
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
        counts = f"{probs.num_kept:,} of {probs.vocabulary_size:,}"
        texts = [f"{counts} {probs.token_unit}s can be sampled", f"{counts} can be sampled", counts]
        texts[:0] = [f"{self._filters}: {texts[0]}"] if self._filters else []
        cutoff = next((text for text in texts if len(text) <= width - 6), counts)  # the longest that fits
        line = [Segment(f"{f' {cutoff} ':─^{width}}"[:width], styles["muted"])]
        return [Strip(row) for row in [*lines, *bars[:num_kept], line, *bars[num_kept:]]]

    def _draw_token(self, reply: Reply, width: int, height: int, styles: dict[str, Style]) -> list[Strip]:
        """Return a title, the figures of the token, and its alternatives, in columns if the pane is low."""
        token, alternatives = reply.tokens[self.index], self.alternatives
        shown = format_lone_token(token.text)
        shown = shown if token.text in SPECIAL_TOKEN_NAMES else f'"{shown}"'
        if token.text.strip(" ") not in ("", self.word):  # a lone space is the gap between two words
            shown += f' in "{self.word}"'
        title = f"{reply.noun.upper()} {self.index + 1} of {len(reply.tokens)}  {shown}"
        figures = [
            None if token.logprob is None else f"raw {format_percent(exp(token.logprob))}",
            None if token.prob is None else f"after sampling {format_percent(token.prob)}",
            f"rank {token.rank:,}",
            None if token.logprob is None else f"surprise {-token.logprob / log(2):.1f} bits",
            None if token.entropy is None else f"entropy {token.entropy:.1f} bits",
        ]
        unbroken = "  ".join(figure.replace(" ", "\xa0") for figure in figures if figure)
        lines = [[Segment(title[:width], styles["title"])]]
        lines += [[Segment(line.replace("\xa0", " "), styles["muted"])] for line in textwrap.wrap(unbroken, width)]
        room, num_expected = max(1, height - len(lines)), self._num_expected
        self._num_columns = min(-(-num_expected // room), max(1, width // MIN_COLUMN_WIDTH)) or 1
        cells, gap = width // self._num_columns, 2 * (self._num_columns > 1)
        name_width = max(4, min(MAX_NAME_WIDTH, cells - 12))  # without the number and the mark
        shows_bars = cells - name_width >= PERCENT_WIDTH * 2 + MIN_BAR_WIDTH + 4
        if room >= NUM_TOP_TOKENS + 3 and shows_bars:
            heads = f"{'after sampling':>{width - PERCENT_WIDTH}}{'raw':>{PERCENT_WIDTH}}"
            lines.append([Segment(heads, styles["muted"])])
            room -= 1
        num_rows = min(room, -(-num_expected // self._num_columns))
        max_prob = max((each.highest_prob for each in alternatives), default=0.0) or 1.0
        ends_text = reads_line_ends(reply.session_model.model)
        if not alternatives:
            lines.append([Segment(self.waiting[:width], styles["muted"])])
        for row in range(num_rows):
            line: list[Segment] = []
            for number, candidate in list(enumerate(alternatives, 1))[row::num_rows][: self._num_columns]:
                self._click_targets[len(lines), (number - 1) // num_rows] = number
                is_special, is_written = candidate.text in SPECIAL_TOKEN_NAMES, candidate.text == self.written_text
                name = fit_cells(format_lone_token(candidate.text, ends_text=ends_text), name_width)
                style = styles["marked" if number == self.marked else "special" if is_special else ""]
                line.append(Segment(f"{number}{'●' if is_written else ' '}{name}", style))
                rest = cells - name_width - 3
                if shows_bars:
                    line += [Segment(" "), *_bar_segments(candidate, max_prob, rest - gap, styles), Segment(" " * gap)]
                else:
                    line.append(Segment(f" {candidate.sampling_prob:{PERCENT_WIDTH}.1%}".ljust(rest + 1), styles[""]))
            lines.append(line)
        if room > num_rows + 1:
            hint = f"1-8 or a click: branch to that {self.unit}"
            lines += [[], [Segment(hint[:width], styles["muted"])]]
        return [Strip(line) for line in lines]
