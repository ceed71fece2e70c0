"""Pane of the lens: who of the cast would say a line, and which word gives the speaker away."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message_pump import MessagePump
from textual.strip import Strip
from textual.widgets import Rule

from engine.analysis.speakers import SpeakerGuess, SpeakerPosterior
from engine.analysis.tokenized_text import labelled_lines
from engine.data.scripts import Turn
from engine.errors import describe_error
from engine.generation.generate import DecoderState
from engine.generation.turns import SpeakerProb, read_turns
from engine.models.dialogue import DialogueModel
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import format_percent, plural, truncate
from lotr_tui.screens.inspect.page import Page
from lotr_tui.screens.inspect.text_screen import Metric, MetricsBar
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session.cast import shown_name
from lotr_tui.theme import MUTED
from lotr_tui.widgets.screen_lines import StatusBar
from lotr_tui.widgets.speaker_bars import SpeakerBars

MAX_WORDS = 300
"""Maximum number of words of a line that are read."""
MAX_CONTEXT_LINES = 40
"""Maximum number of lines before it that are read."""
MAX_SPEAKERS = 8
MAX_WORD_WIDTH = 16
"""Maximum width in cells of a word in the summary."""
POLL_INTERVAL = 0.02
"""Seconds between two looks at what the thread has computed."""
FIRST_WORDS = 4
"""Number of words that are read before the first result of a new text; each further result reads twice as many."""
MINUS = "−"
"""Minus sign; a hyphen after a word would look like a part of it."""
WRITTEN_MARK = "●"
"""Mark of the speaker whose name is written before the line."""
GIVEAWAY_MARKS = ("[", "]")


@dataclass(frozen=True)
class UnknownLine:
    """Line whose speaker is guessed."""

    text: str = ""
    """The line as written, without the name of its speaker, cut after `MAX_WORDS` words."""
    speaker: str = ""
    """Canonical name of who says it as written; empty if it has no name."""
    context: tuple[Turn, ...] = ()
    """Lines of the same scene before it, whose names are known; the last ones of a longer scene."""
    is_complete: bool = False
    """True if the line has ended, so that its end counts too."""


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
    """Return the first `MAX_WORDS` words of a line."""
    words = text.split(maxsplit=MAX_WORDS)
    return text.removesuffix(words[-1]).rstrip() if len(words) > MAX_WORDS else text


@dataclass(frozen=True)
class LineEvidence:
    """Guess for a line, and what its words say about the speaker."""

    line: UnknownLine
    guess: SpeakerGuess

    @property
    def is_partial(self) -> bool:
        """True if only the beginning of the line has been read."""
        return len(self.guess.words) < len(self.line.text.split())

    @property
    def progress(self) -> str:
        return f"{len(self.guess.words)} of {plural(len(self.line.text.split()), 'word')}" if self.is_partial else ""

    @property
    def word_bits(self) -> list[float]:
        """Bits of each word for the speaker who leads after the line."""
        return [word.gain / math.log(2) for word in self.guess.words]

    @property
    def giveaway(self) -> int | None:
        """Index of the word that gave the leading speaker away; None if no word speaks for that speaker."""
        return _strongest_word([word.gain for word in self.guess.words])

    def ranking(self, num_words: int | None = None) -> list[SpeakerProb]:
        """Return the speakers after the first words of the line (None: after all), likeliest first."""
        return replace(self.guess, words=self.guess.words[:num_words]).ranking()

    def summary(self) -> list[Metric]:
        """Return what the line shows, the most important first."""
        num_lines = len(self.line.context)
        prior: Metric = [(f"after {plural(num_lines, 'line')}" if num_lines else "prior: frequencies", MUTED)]
        if not self.guess.words:
            return [[("type a line below", MUTED)], prior]
        ranking = self.guess.ranking()
        metrics: list[Metric] = [[(f"{shown_name(ranking[0].name)} {format_percent(ranking[0].prob)}", "bold")]]
        if (index := self.giveaway) is None:
            metrics.append([("no word gives a speaker away", MUTED)])
        else:
            word = f"“{truncate(self.guess.words[index].word, MAX_WORD_WIDTH)}”"
            bits = f" {format_bits(self.word_bits[index])} bits"
            metrics.append([("given away by ", MUTED), (word, "bold"), (bits, "")])
        if speaker := self.line.speaker:
            position, prob = next((n, each.prob) for n, each in enumerate(ranking, 1) if each.name == speaker)
            written = f"no. {position}, {format_percent(prob)}"
            metrics.append([(f"written as {shown_name(speaker)}: ", MUTED), (written, "")])
        return [*metrics, prior]


def _strongest_word(values: Sequence[float]) -> int | None:
    """Return the index of the highest value, if it is above 0."""
    index = max(range(len(values)), key=values.__getitem__, default=None)
    return None if index is None or values[index] <= 0 else index


def format_bits(bits: float) -> str:
    """Return bits with a sign and one decimal, such as "+2.1" or "−0.3"."""
    rounded = round(bits, 1)
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else '±'}{abs(rounded):.1f}"


class SpeakerGuesser:
    """Guesses of who says the current line, one after the other, each for a longer part of the line.

    Only what has changed since the line before is read.
    """

    def __init__(
        self,
        owner: MessagePump,
        model: DialogueModel,
        on_guess: Callable[[UnknownLine, SpeakerGuess], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._model = model
        self._lock = threading.Lock()  # of all fields below, which the threads of two lines may want
        self._context: tuple[Turn, ...] = ()
        self._state: DecoderState | None = None
        self._posterior: SpeakerPosterior | None = None
        self._words: list[str] = []
        self._task: BackgroundTask[tuple[UnknownLine, SpeakerGuess]] = BackgroundTask(
            owner,
            "who",
            lambda guesses: on_guess(*guesses[-1]),
            lambda error: on_error(f"Cannot guess the speaker: {describe_error(error)}"),
            interval=POLL_INTERVAL,
        )

    @property
    def is_idle(self) -> bool:
        return not self._task.is_running

    def guess(self, line: UnknownLine) -> None:
        """Guess who says a line, in a thread, and drop the line before."""

        def source(cancellation: Cancellation) -> Iterator[tuple[UnknownLine, SpeakerGuess]]:
            words = line.text.split()
            num_read, step = 0, FIRST_WORDS
            while not num_read or num_read < len(words):
                with self._lock:
                    if cancellation():
                        return
                    num_read = min(len(words), max(num_read, self._num_known(line, words)) + step)
                    guess = self._update(line, words[:num_read])
                yield line, guess
                step *= 2
                if not words:
                    return

        self._task.start(source)

    def cancel(self) -> None:
        self._task.cancel()

    def _num_known(self, line: UnknownLine, words: list[str]) -> int:
        """Return the number of words at the start of a line that have been read."""
        if self._posterior is None or line.context != self._context:
            return 0
        pairs = zip(self._words, words, strict=False)
        return next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(self._words), len(words)))

    def _update(self, line: UnknownLine, words: list[str]) -> SpeakerGuess:
        """Read the context, if it has changed, and the words."""
        if self._posterior is None or line.context != self._context:
            is_longer = self._context and line.context[: len(self._context)] == self._context
            start, state = (len(self._context), self._state) if is_longer else (0, None)
            self._posterior = None  # an error leaves no posterior of another context
            self._state = read_turns(self._model, line.context[start:], state) if line.context else None
            self._context = line.context
            self._posterior = SpeakerPosterior(self._model, self._state)
        self._words = words
        is_complete = line.is_complete and len(words) == len(line.text.split())
        return self._posterior.update(" ".join(words), is_complete=is_complete)


class WhoWouldSayBars(SpeakerBars):
    """The likeliest speakers of a line, and the one whose name is written before it."""

    HELP_LINE = "Who is likely to say it"
    TITLE: ClassVar[str] = "WHO WOULD SAY THIS"
    MARK_STYLE: ClassVar[str] = "speaker-bars--title"
    _ranking: Sequence[SpeakerProb] = ()
    _marks: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed
    _note = ""

    def show(self, ranking: Sequence[SpeakerProb], written: str, note: str) -> None:
        self._ranking, self._note = ranking, note
        self._marks = {written: WRITTEN_MARK} if written else {}
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        rows = shown_speakers(self._ranking, list(self._marks), min(MAX_SPEAKERS, height - 1))
        num_others = len(self._ranking) - len(rows)
        others = f"and {num_others} others" if num_others > 0 else ""
        if len(f"{self.TITLE}  {others}") > width:
            others = ""
        return self.draw_rows(self._note or others, rows, self._marks, 1.0, width)


def shown_speakers(ranking: Sequence[SpeakerProb], needed: Sequence[str], count: int) -> list[SpeakerProb]:
    """Return the first `count` speakers; the `needed` ones replace the last of the others."""
    first = [speaker for speaker in ranking if speaker.name in needed][: max(0, count)]
    others = [speaker for speaker in ranking if speaker not in first][: max(0, count - len(first))]
    return [speaker for speaker in ranking if speaker in first or speaker in others]


class WhoPane(Vertical):
    """Line with its telling words, the bars of its likely speakers, and what they say in one line."""

    def __init__(self, model: DialogueModel) -> None:
        super().__init__(id="who")
        self._cast: Sequence[str] = model.cast
        self.guesser = SpeakerGuesser(
            self, model, self._show_guess, lambda text: self.notify(text, severity="error", markup=False)
        )
        self.evidence: LineEvidence | None = None
        """Evidence of the current line; None before the first guess."""
        self._line = UnknownLine()

    def compose(self) -> ComposeResult:
        yield MetricsBar(id="who-summary")
        yield Rule(line_style="solid")
        with Horizontal(id="who-body"):
            placeholder = "Type a line below: who of the cast would say it?"
            help_line = "← → word by word: the bars show who was likely after it; e: another line"
            yield TextView(placeholder, help_line, self._styles_of, id="who-text")
            yield WhoWouldSayBars(self._cast, id="who-bars")
        yield StatusBar(id="who-legend")

    def on_unmount(self) -> None:
        self.guesser.cancel()

    def guess(self, line: UnknownLine) -> None:
        """Guess who says a line, unless it is the current one."""
        if line != self._line or self.evidence is None:
            self._line = line
            if self.evidence is None or self.evidence.line.context != line.context:
                self._show_summary("reading the lines …")
            self.guesser.guess(line)

    def _show_guess(self, line: UnknownLine, guess: SpeakerGuess) -> None:
        self.evidence = evidence = LineEvidence(line, guess)
        page = Page.from_written_words(line.text)
        before, after = [""] * len(page.starts), [""] * len(page.starts)
        if (index := evidence.giveaway) is not None:
            before[index], after[index] = GIVEAWAY_MARKS
        text = self.query_one(TextView)
        is_same_text = text.page.tokens.text == line.text
        text.show(page.with_marks(before, after), text.cursor if is_same_text else len(page.starts) - 1)
        self._show_bars()
        self._show_summary(evidence.progress)
        note = (" gave the speaker away: it raised the odds most", MUTED)
        self.query_one("#who-legend", StatusBar).show(Content.assemble("word".join(GIVEAWAY_MARKS), note))

    def _styles_of(self, index: int) -> tuple[str, ...]:
        evidence, text = self.evidence, self.query_one(TextView)
        if evidence is None or index >= len(evidence.guess.words):
            return ("gap",)
        name = "strong" if index == evidence.giveaway else "token"
        return (name, "cursor") if text.has_focus and index == text.cursor else (name,)

    def _show_summary(self, note: str) -> None:
        metrics = [] if self.evidence is None else self.evidence.summary()
        self.query_one(MetricsBar).show_metrics(metrics, note)

    @on(TextView.CursorMoved)
    @on(TextView.FocusChanged)
    def _show_bars(self) -> None:
        """Show the speakers after the line, or after the word under the cursor of the focused line."""
        text, evidence = self.query_one(TextView), self.evidence
        if evidence is not None:
            words = evidence.guess.words
            is_part = text.has_focus and text.cursor < len(words)
            ranking = evidence.ranking(text.cursor + 1 if is_part else None)
            note = f"after “{words[text.cursor].word}”" if is_part else ""
            self.query_one(WhoWouldSayBars).show(ranking, evidence.line.speaker, note)
