"""Pane of the lens: who of the cast would say a line, and which word gives the speaker away."""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import containers, on, widgets
from textual.app import ComposeResult
from textual.content import Content
from textual.strip import Strip

from engine.analysis.speakers import WORD, SpeakerGuess, SpeakerPosterior
from engine.analysis.tokenized_text import labelled_lines
from engine.data.scripts import Turn
from engine.errors import describe_error
from engine.generation.generate import DecoderState
from engine.generation.turns import SpeakerProb, read_turns
from engine.models.dialogue import DialogueModel
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import format_percent, plural, truncate
from lotr_tui.screens.inspect.text_screen import join_metrics
from lotr_tui.screens.inspect.text_view import Page, TextView
from lotr_tui.session.cast import shown_name
from lotr_tui.theme import MUTED
from lotr_tui.widgets.screen_lines import StatusBar
from lotr_tui.widgets.speaker_bars import SpeakerBars

MAX_WORDS = 300  # maximum number of words of a line that are read
MAX_CONTEXT_LINES = 40  # maximum number of lines before it that are read
MAX_SPEAKERS = 8
MAX_WORD_WIDTH = 16  # maximum width in cells of a word in the summary
POLL_INTERVAL = 0.02  # seconds between two looks at what the thread has computed
WRITTEN_MARK = "●"  # mark of the speaker whose name is written before the line
GIVEAWAY_MARKS = ("[", "]")


@dataclass(frozen=True)
class UnknownLine:
    """Line whose speaker is guessed."""

    text: str = ""  # the line as written, without the name of its speaker, cut after `MAX_WORDS` words
    speaker: str = ""  # canonical name of who says it as written; empty if it has no name
    context: tuple[Turn, ...] = ()
    """Lines of the same scene before it, whose names are known; the last ones of a longer scene."""
    is_complete: bool = False  # true if the line has ended, so that its end counts too


def line_at(text: str, cast: Sequence[str], cursor: int) -> UnknownLine:
    """Return the line at the character `cursor` of a script, or the nearest line before that is not blank.

    A text without any name of a speaker is one line without context.
    """
    lines = list(labelled_lines(text, cast))
    if not any(line.speaker for line in lines):
        return UnknownLine(cut_words(" ".join(text.split())))
    starts = [0, *(line.next_start for line in lines)]
    written = [index for index, line in enumerate(lines) if not line.is_blank]
    index = next((index for index in reversed(written) if starts[index] <= cursor), written[0])
    first = index
    while first > 0 and not lines[first - 1].is_blank:
        first -= 1
    line = lines[index]
    return UnknownLine(
        cut_words(text[line.text_start : line.text_end]),
        line.speaker,
        tuple(
            Turn(before.speaker or cast[-1], text[before.text_start : before.text_end])
            for before in lines[max(first, index - MAX_CONTEXT_LINES) : index]
            if before.text_start < before.text_end  # no name alone
        ),
        is_complete=line.next_start > line.end,
    )


def cut_words(text: str) -> str:
    words = text.split(maxsplit=MAX_WORDS)
    return text.removesuffix(words[-1]).rstrip() if len(words) > MAX_WORDS else text


@dataclass(frozen=True)
class LineEvidence:
    """Guess for a line, and what its words say about the speaker."""

    line: UnknownLine
    guess: SpeakerGuess

    @property
    def giveaway(self) -> int | None:
        """Index of the word that gave the leading speaker away; None if no word speaks for that speaker."""
        gains = [word.gain for word in self.guess.words]
        return gains.index(max(gains)) if max(gains, default=0) > 0 else None

    def ranking(self, num_words: int | None = None) -> list[SpeakerProb]:
        """Return the speakers after the first words of the line (None: after all), likeliest first."""
        return replace(self.guess, words=self.guess.words[:num_words]).ranking()

    def summary(self) -> list[Content]:
        """Return what the line shows, the most important first."""
        num_lines = len(self.line.context)
        prior = Content.styled(f"after {plural(num_lines, 'line')}" if num_lines else "prior: frequencies", MUTED)
        if not self.guess.words:
            return [Content.styled("type a line below", MUTED), prior]
        ranking = self.guess.ranking()
        metrics = [Content.styled(f"{shown_name(ranking[0].name)} {format_percent(ranking[0].prob)}", "bold")]
        if (index := self.giveaway) is None:
            metrics.append(Content.styled("no word gives a speaker away", MUTED))
        else:
            word = self.guess.words[index]
            text = f"“{truncate(word.word, MAX_WORD_WIDTH)}”"
            bits = f" +{word.gain / math.log(2):.1f} bits"
            metrics.append(Content.assemble(("given away by ", MUTED), (text, "bold"), bits))
        if speaker := self.line.speaker:
            places = {each.name: f"no. {n}, {format_percent(each.prob)}" for n, each in enumerate(ranking, 1)}
            place = places.get(speaker, "not in the cast")
            metrics.append(Content.assemble((f"written as {shown_name(speaker)}: ", MUTED), place))
        return [*metrics, prior]


class WhoWouldSayBars(SpeakerBars):
    """The likeliest speakers of a line, and the one whose name is written before it."""

    HELP_LINE = "Who is likely to say it"
    TITLE: ClassVar[str] = "WHO WOULD SAY THIS"
    MARK_STYLE: ClassVar[str] = "speaker-bars--title"
    _ranking: Sequence[SpeakerProb] = ()
    _written = ""
    _note = ""

    def show(self, ranking: Sequence[SpeakerProb], written: str, note: str) -> None:
        self._ranking, self._written, self._note = ranking, written, note
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        """Draw the first speakers; the one whose name is written replaces the last of them."""
        count = max(0, min(MAX_SPEAKERS, height - 1))
        rows = list(self._ranking[:count])
        written = next((each for each in self._ranking[count:] if each.name == self._written), None)
        if rows and written is not None:
            rows[-1] = written
        num_others = len(self._ranking) - len(rows)
        others = f"and {num_others} others" if num_others > 0 else ""
        if len(f"{self.TITLE}  {others}") > width:
            others = ""
        return self.draw_rows(self._note or others, rows, {self._written: WRITTEN_MARK}, 1.0, width)


class WhoPane(containers.Vertical):
    """Line with its telling words, the bars of its likely speakers, and a summary in one line.

    Each guess reads only the words and the context that are new since the previous guess.
    """

    def __init__(self, model: DialogueModel) -> None:
        super().__init__(id="who")
        self._model = model
        self.evidence: LineEvidence | None = None  # evidence of the current line; None before the first guess
        self._line = UnknownLine()
        self._lock = threading.Lock()  # of the fields below, which the threads of two lines may want
        self._turns: tuple[Turn, ...] = ()
        self._state: DecoderState | None = None
        self._posterior: SpeakerPosterior | None = None
        self.guesses: BackgroundTask[LineEvidence] = BackgroundTask(
            self,
            "who",
            lambda guesses: self._show_guess(guesses[-1]),
            lambda error: self._show_summary(f"cannot guess the speaker: {describe_error(error)}"),
            interval=POLL_INTERVAL,
        )

    def compose(self) -> ComposeResult:
        yield StatusBar(id="who-summary")
        yield widgets.Rule(line_style="solid")
        with containers.Horizontal(id="who-body"):
            placeholder = "Type a line below: who of the cast would say it?"
            help_line = "← → word by word: the bars show who was likely after it; e: another line"
            yield TextView(placeholder, help_line, self._styles_of, id="who-text")
            yield WhoWouldSayBars(self._model.cast, id="who-bars")
        yield StatusBar(id="who-legend")

    def on_unmount(self) -> None:
        self.guesses.cancel()

    def guess(self, line: UnknownLine) -> None:
        """Guess who says a line, unless it is the current one."""
        if line != self._line or self.evidence is None:
            self._line = line
            if self.evidence is None or self.evidence.line.context != line.context:
                self._show_summary("reading the lines …")
            self.guesses.start(lambda cancelled: self._read(line, cancelled))

    def _read(self, line: UnknownLine, cancelled: Cancellation) -> Iterator[LineEvidence]:
        with self._lock:
            if cancelled():  # while the thread of the previous line had the lock
                return
            if self._posterior is None or line.context != self._turns:
                is_longer = self._turns and line.context[: len(self._turns)] == self._turns
                start, state = (len(self._turns), self._state) if is_longer else (0, None)
                self._posterior = None  # an error leaves no posterior of another context
                self._state = read_turns(self._model, line.context[start:], state) if line.context else None
                self._turns = line.context
                self._posterior = SpeakerPosterior(self._model, self._state)
            yield LineEvidence(line, self._posterior.update(line.text, is_complete=line.is_complete))

    def _show_guess(self, evidence: LineEvidence) -> None:
        self.evidence, line, index = evidence, evidence.line, evidence.giveaway
        spans = [match.span() for match in WORD.finditer(line.text)]
        text = self.query_one(TextView)
        is_same_text = text.page.tokens.text == line.text
        page = Page.plain(line.text, spans, {} if index is None else {index: GIVEAWAY_MARKS})
        text.show(page, text.cursor if is_same_text else len(spans) - 1)
        self._show_bars()
        self._show_summary()
        note = (" gave the speaker away: it raised the odds most", MUTED)
        self.query_one("#who-legend", StatusBar).show(Content.assemble("word".join(GIVEAWAY_MARKS), note))

    def _styles_of(self, index: int) -> tuple[str, ...]:
        evidence, text = self.evidence, self.query_one(TextView)
        name = "strong" if evidence is not None and index == evidence.giveaway else "token"
        return (name, "cursor") if text.has_focus and index == text.cursor else (name,)

    def _show_summary(self, note: str = "") -> None:
        metrics = [] if self.evidence is None else self.evidence.summary()
        self.query_one("#who-summary", StatusBar).show(join_metrics(metrics), Content.styled(note, MUTED))

    @on(TextView.CursorMoved)
    @on(TextView.FocusChanged)
    def _show_bars(self) -> None:
        text, evidence = self.query_one(TextView), self.evidence
        if evidence is not None:
            words = evidence.guess.words
            is_part = text.has_focus and text.cursor < len(words)
            ranking = evidence.ranking(text.cursor + 1 if is_part else None)
            note = f"after “{words[text.cursor].word}”" if is_part else ""
            self.query_one(WhoWouldSayBars).show(ranking, evidence.line.speaker, note)
