"""Figure of the chapter on perplexity."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
from textual import events, on
from textual.app import ComposeResult
from textual.widgets import Input, Static

from engine.analysis.notebook import NOTEBOOK_WINDOW, evaluate_windows
from engine.analysis.token_scores import TokenScores
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask, Debounce
from lotr_tui.learn.example_line import find_example
from lotr_tui.learn.held_out import CERTAIN_BITS, HeldOut, has_certain_word, measure_held_out, tokenize_line
from lotr_tui.learn.material import ClassModel, Material
from lotr_tui.screens.inspect.text_screen import marks_to_newlines
from lotr_tui.screens.learn.figure import REST_SECONDS, ChapterFigure
from lotr_tui.screens.learn.figures.perplexity.descriptions import (
    describe_held_out,
    describe_notebook,
    describe_rows,
    describe_sums,
    describe_word,
)
from lotr_tui.screens.learn.figures.perplexity.word_bits import WordBits
from lotr_tui.screens.learn.line_bar import LineBar
from lotr_tui.session.session_model import is_slow
from lotr_tui.widgets.slider import Slider

EXAMPLE = "What do you think of the Ring, Aragorn?"
MAX_EXAMPLES, MAX_SLOW_EXAMPLES = 300, 3
"""Held-out lines among which an example is searched; fewer for a slow model."""
WINDOWS = range(1, 61)
POLL_INTERVAL = 0.01
"""Seconds between two looks at the thread that scores the line."""
MAX_SECONDS = 0.015
"""Time that the scoring of a line may take in the screen's thread, which shows it sooner than another thread."""
PAUSE = 0.3
"""Seconds without a key before a slow model scores the line."""
TALL_HEIGHT = 29
"""Rows from which on each section has a heading and bars."""


@dataclass(frozen=True)
class PerplexityData:
    """A model that scores lines, and the held-out text."""

    model: ClassModel
    eos_per_line: bool
    """True if the model was trained with an `<eos>` after each line."""
    example: str
    held_out: HeldOut
    seconds_per_token: float
    """Time in which the model scores a token."""


class PerplexityFigure(ChapterFigure[PerplexityData]):
    """A line with the bits of each word, their mean and perplexity; the held-out text; and the notebook's window."""

    DEFAULT_CSS = """
    PerplexityFigure Static { height: auto; padding: 0 1; }
    PerplexityFigure #word { height: 1; }
    PerplexityFigure #sums { height: 2; text-wrap: nowrap; }
    PerplexityFigure #held-out { margin-top: 1; }
    PerplexityFigure Slider { margin: 0 1; }
    PerplexityFigure.-noted #held-out { margin-top: 0; }
    PerplexityFigure.-tall #held-out { margin-top: 1; }
    PerplexityFigure.-tall WordBits { height: 4; margin: 1 0; }
    PerplexityFigure.-tall #word { height: 8; }
    PerplexityFigure #rows { display: none; }
    PerplexityFigure.-tall #rows { display: block; margin-top: 1; }
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._scores: TokenScores | None = None
        self._cursor = 0
        """Word of the line that the figure describes."""
        self._has_moved = False
        """True once the student has moved the cursor or changed the line."""
        self._judging = Debounce(self, REST_SECONDS, self._judge_window)
        """Wait until the slider rests."""
        self._pause = Debounce(self, PAUSE, self._start_scoring)
        self._scoring: BackgroundTask[int] = BackgroundTask(
            self, "chapter-perplexity", lambda _: self._show_line(), self.show_failure, interval=POLL_INTERVAL
        )

    def compose_figure(self) -> ComposeResult:
        """Yield the line, its words, their sums, the held-out text, and the notebook's window and its result."""
        yield LineBar("")
        yield WordBits(id="words")
        yield Static(id="word", markup=False)
        yield Static(id="sums", markup=False)
        yield Static(id="held-out", markup=False)
        yield Static(id="rows", markup=False)
        yield NotebookWindow()
        yield Static(id="notebook", markup=False)

    def load(self, cancelled: Cancellation) -> Generator[str, None, PerplexityData]:
        """Load the models, score the held-out text, and choose an example."""
        held_out = yield from measure_held_out(self.material, cancelled)
        model = yield from self.material.model(cancelled)
        own = self.material.session_model
        eos_per_line = own is None or own.predicts_eos
        dataset = yield from self.material.words()
        num_examples = MAX_SLOW_EXAMPLES if is_slow(model.model) else MAX_EXAMPLES
        lines = (line.text for line in islice(dataset.splits.valid, num_examples))
        example = find_example(
            EXAMPLE,
            lines,
            model.tokenizer,
            lambda line: has_certain_word(line, model.model, eos_per_line=eos_per_line, cancelled=cancelled),
        )
        tokens = tokenize_line(example, model.model, eos_per_line=eos_per_line)
        started = perf_counter()
        list(TokenScores(tokens, model.tokenizer).read(model.model, cancelled))
        seconds = (perf_counter() - started) / max(1, len(tokens))
        return PerplexityData(model, eos_per_line, example, held_out, seconds)

    def show_data(self, data: PerplexityData) -> None:
        """Show the example and the notebook's own window."""
        self._fit_height()
        self.show_note(data.held_out.note)
        self.set_class(bool(data.held_out.note), "-noted")
        self.query_one(LineBar).set_text(data.example)
        self.watch(self.query_one(LineBar).input, "selection", self._follow_text_cursor, init=False)
        self._score_line()
        self._show_held_out()
        num_rows, num_predicted = data.held_out.row_log_probs.shape
        self.query_one("#rows", Static).update(describe_rows(num_rows, num_predicted + 1))
        self.query_one(NotebookWindow).rows_help = (
            f"Reads {num_rows * (num_predicted + 1):,} of {data.held_out.num_tokens:,} words in {num_rows} rows; "
            f"predicts {num_predicted} of {num_predicted + 1}"
        )
        self._show_notebook()
        words = self.query_one(WordBits)
        if self.screen.focused is None and self.is_on_screen:
            self.screen.set_focus(words)  # before the screen focuses the line

    @property
    def is_idle(self) -> bool:
        """True once the current line is scored."""
        return super().is_idle and not self._scoring.is_running and not self._pause.is_waiting

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._scoring.cancel()

    def on_resize(self) -> None:
        """Use headings and bars where there is room."""
        self._fit_height()
        if self.data is not None:
            self._show_word()
            self._show_held_out()
            self._show_notebook()

    def _fit_height(self) -> None:
        self.set_class(self.size.height >= TALL_HEIGHT, "-tall")

    @property
    def _text_width(self) -> int:
        return self.size.width - 2

    # The line

    @on(Input.Changed)
    def _change_line(self) -> None:
        """Score a line that the student has changed."""
        if self.data is not None and self._line_text != self._scored_text:
            self._has_moved = True
            self._score_line(at_text_cursor=True)

    def on_key(self, event: events.Key) -> None:
        """Type into the line also while its words have the focus."""
        if self.query_one(WordBits).has_focus and event.is_printable and event.character is not None:
            event.stop()
            line = self.query_one(LineBar).input
            line.focus()
            line.insert_text_at_cursor(event.character)

    def _follow_text_cursor(self) -> None:
        """Move the cursor to the word that the text cursor is on."""
        if self.query_one(LineBar).input.has_focus and self._line_text == self._scored_text:
            self.query_one(WordBits).move_cursor(self._word_at_text_cursor())

    @property
    def _line_text(self) -> str:
        return self.query_one(LineBar).text

    @property
    def _scored_text(self) -> str:
        return "" if self._scores is None else self._scores.tokens.text

    def _word_at_text_cursor(self) -> int:
        """Return the index of the last word that begins before the text cursor."""
        line = self.query_one(LineBar).input
        num_characters = len(marks_to_newlines(line.value[: line.cursor_position]))
        starts = self._current_scores.tokens.word_spans[0]
        return max(0, int(np.searchsorted(starts, max(1, num_characters))) - 1)

    # Scores

    @property
    def _current_scores(self) -> TokenScores:
        assert self._scores is not None, "the example is scored before there is a key"
        return self._scores

    def _score_line(self, *, at_text_cursor: bool = False) -> None:
        """Score the line at once if that is quick, or else in a thread, and keep the scores of the words before.

        With `at_text_cursor`, the cursor moves to the word at the text cursor.
        """
        assert self.data is not None
        self._scoring.cancel()
        self._pause.cancel()
        model = self.data.model.model
        tokens = tokenize_line(self._line_text, model, eos_per_line=self.data.eos_per_line)
        self._scores = TokenScores(tokens, model.tokenizer, self._scores)
        if at_text_cursor:
            self._cursor = self._word_at_text_cursor()
        if is_slow(model):
            self._show_line()
            self._pause.request()
        elif len(tokens) * self.data.seconds_per_token < MAX_SECONDS:
            list(self._scores.read(model))
            self._show_line()
        else:
            self._start_scoring()

    def _start_scoring(self) -> None:
        assert self.data is not None
        model, scores = self.data.model.model, self._current_scores
        self._scoring.start(lambda cancelled: scores.read(model, cancelled))

    @on(WordBits.Moved)
    def _move(self) -> None:
        """Show another word."""
        self._has_moved = True
        self._cursor = self.query_one(WordBits).cursor
        self._show_word()

    def _show_line(self) -> None:
        """Show the scores of the line so far."""
        self.query_one(WordBits).show(self._current_scores, self._cursor)
        self._show_word()

    def _show_word(self) -> None:
        """Show the word under the cursor, and the sums up to it."""
        words = self.query_one(WordBits)
        scores, word = words.scores, words.cursor
        if scores is None:
            return
        tall = self.has_class("-tall")
        self.query_one("#word", Static).update(describe_word(scores, word, self._text_width, tall=tall))
        self.query_one("#sums", Static).update(describe_sums(scores, word, self._text_width))
        score = scores.word_score(word)
        if self._has_moved and score is not None and score.bits < CERTAIN_BITS:
            self.finish_part(0)

    # The held-out text

    def _show_held_out(self) -> None:
        assert self.data is not None
        content = describe_held_out(self.data.held_out, self._text_width, tall=self.has_class("-tall"))
        self.query_one("#held-out", Static).update(content)

    @on(Slider.Changed)
    def _change_window(self) -> None:
        """Evaluate with another window."""
        if self.data is not None:
            self._show_notebook()
            self._judging.request()

    @property
    def _window(self) -> int:
        return WINDOWS[self.query_one(Slider).index]

    def _judge_window(self) -> None:
        if self.data is not None:
            log_probs = self.data.held_out.row_log_probs
            scoring = [window for window in WINDOWS if evaluate_windows(log_probs, window).num_scored]
            if scoring and self._window == scoring[-1]:
                self.finish_part(1)

    def _show_notebook(self) -> None:
        """Show the notebook's validation with the chosen window."""
        assert self.data is not None
        log_probs = self.data.held_out.row_log_probs
        evaluation = evaluate_windows(log_probs, self._window)
        self.query_one("#notebook", Static).update(describe_notebook(evaluation, log_probs.size, self._text_width))


class NotebookWindow(Slider):
    """Slider of the notebook's window, which explains how the notebook lays out the held-out text."""

    def __init__(self) -> None:
        windows = [str(window) for window in WINDOWS]
        super().__init__("notebook's window", windows, WINDOWS.index(NOTEBOOK_WINDOW), id="window")
        self.rows_help = ""

    def get_help_line(self) -> str:
        """Return how many words of the held-out text the notebook can score."""
        return self.rows_help
