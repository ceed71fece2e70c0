"""Lens: a text shaded by surprisal, its words and sentences, what fine-tuning changed, and who would say a line."""

import threading
from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

import numpy as np
from textual import containers, on, widgets
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content

from engine.analysis.token_scores import TokenScores, order_by_gain
from engine.analysis.tokenized_text import TokenizedText
from engine.data.arrays import Float64Array
from engine.data.speakers import display_name
from engine.errors import RunError, describe_error, printable
from engine.models.base import AdaptedModel
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask, Debounce
from lotr_tui.formatting import describe_strengths, format_perplexity, truncate
from lotr_tui.screens.inspect import text_screen, text_view
from lotr_tui.screens.inspect.heat_strip import DIFFERENCE_SHADING, Shading
from lotr_tui.screens.inspect.text_screen import Row, RowList, TextInputBar, TextScreen
from lotr_tui.screens.inspect.text_view import Page, TextView
from lotr_tui.screens.inspect.who import WhoPane, line_at
from lotr_tui.screens.inspect.word_details import WordDetails, describe_scores
from lotr_tui.session.comparison import is_line_mode, load_kneser_ney
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import StatusBar

TYPING_DEBOUNCE = 0.25  # seconds between the last key and the scoring of the typed text
MIN_WIDTH_OF_FULL_LEGEND = 80
EXCERPT_LENGTH = 200  # characters of a sentence that are prepared for display, more than fit on a line
PLACEHOLDER = "Type a text below. Each word is shaded by its surprisal in bits: how unexpected it was to the model."

LensView = Literal["own", "other", "difference"]
"""Meaning of the shades: the surprisal of the model or of the other one, or the bits that words gain over that one."""
LENS_VIEWS: tuple[LensView, ...] = get_args(LensView)
MODEL_NAMES = ("network", "Kneser-Ney")
TUNED_NAMES = ("adapted", "as it came")
LIST_HELP = "Lower perplexity: more expected; a bit gained: twice as likely; s: other order"

SURPRISE = Shading(  # probabilities of 1/8, 1/64 and 1/1024
    "surprise: ",
    ("dim", "usual", "surprising", "strong"),
    (3.0, 6.0, 10.0),
    ("under 3 bits", "3 to 6", "6 to 10", "over 10"),
)


class LensScreen(TextScreen[TokenScores]):
    """Scores of a text by the session's model and another one: the Kneser-Ney baseline of its run, or its base."""

    HEADING = "lens: surprise per word"
    BUSY_MESSAGE = ""
    FAILURE_MESSAGE = "cannot score the text"
    POLL_INTERVAL = 0.1
    SHOWS_TOKENS = False
    panes: tuple[str, ...] = ("text", "sentences", "line")
    TAKING_TURNS = ("text", "sentences")
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "lens",
        """
        view   | v | next_view     | view   | Shade by the model, the one beside it, or the difference
        tuning | f | toggle_tuning | tuning | What fine-tuning changed in the words, or the surprise again
        who    | w | toggle_who    | who    | Who would say this, or the surprise again
        sort   | s | toggle_order  | sort   | The hardest sentences or the greatest losses first, or not
        """,
        show=True,
    )

    def __init__(
        self,
        session_model: SessionModel,
        text: str = "",
        names: tuple[str, ...] = (),
        *,
        reads_line_ends: bool = False,
        shows_tuning: bool = False,
        num_written: int = 0,
    ) -> None:
        """Score `text`; with `reads_line_ends`, a closed vocabulary reads line breaks as `<eos>`.

        Otherwise this depends on the training of the model. `shows_tuning` compares it with its base at first.
        The cursor begins at the last `num_written` characters, unless that is 0.
        """
        super().__init__(session_model, text, names)
        run = session_model.run
        if not session_model.model.tokenizer.is_open:
            self.eos_per_line = reads_line_ends or (run is not None and is_line_mode(run))
        self.view: LensView = "difference" if shows_tuning else "own"
        self._num_written = num_written
        self.shows_tuning = shows_tuning  # True while the other model is the base as it came
        self.scores: list[TokenScores] = []  # of the model, and of the other one unless there is none
        self._values = np.empty(0)  # bits `[words]` that the shades stand for; NaN for words that are not scored
        self.baseline: KneserNey | None = None  # None also while it is loaded
        self._baseline_lock = threading.Lock()  # of the threads of two texts that want it
        self._missing_baseline = "" if run else "no Kneser-Ney: this model has no run with training data to count."
        self._hardest_first = False
        self._perplexities: list[Float64Array] = []  # of the sentences, by each model
        self._order = np.empty(0, np.intp)  # of the sentences, or of the words by their gains
        self._num_painted = 0  # words that had scores when last painted
        self._typing = Debounce(self, TYPING_DEBOUNCE, self._score_typed_text)
        self._other_task: BackgroundTask[int] = BackgroundTask(
            self, "lens-other", lambda _: self._show_change(), self._reject_other, interval=self.POLL_INTERVAL
        )

    def compose_body(self) -> ComposeResult:
        yield StatusBar(id="metrics")
        yield widgets.Rule(line_style="solid", id="metrics-rule")
        with containers.Horizontal(id="body"):
            help_line = "← → word; n, N: marked ones; v: other model, difference"
            yield TextView(PLACEHOLDER, help_line, self._styles_of)
            with containers.Vertical(id="side"):
                yield WordDetails(id="word")
                yield widgets.Static("", id="heading", markup=False)
                yield RowList("Sentences", LIST_HELP, id="sentences")
        yield StatusBar(id="legend")
        if isinstance(self.session_model.model, DialogueModel):
            yield WhoPane(self.session_model.model)
        yield widgets.Rule(line_style="solid")

    def on_mount(self) -> None:
        self.watch(self.query_one(TextInputBar).input, "selection", self._follow_text_cursor, init=False)
        self._show_legend()
        if self._missing_baseline and not self.shows_tuning and not self.session_model.source:
            self.notify(self._missing_baseline, markup=False)

    def on_unmount(self) -> None:
        self._other_task.cancel()

    @property
    def is_idle(self) -> bool:
        is_busy = self._typing.is_waiting or self._other_task.is_running
        return super().is_idle and not is_busy and not any(pane.guesses.is_running for pane in self.query(WhoPane))

    # Text

    @on(widgets.Input.Changed)
    def _schedule_scoring(self, event: widgets.Input.Changed) -> None:
        if event.value != text_screen.newlines_to_marks(self.text):  # otherwise the screen itself has filled the line
            self._typing.request()
            if self.shows_who:
                self._guess_speaker()

    def _score_typed_text(self) -> None:
        self.text = self.query_one(TextInputBar).text
        self.analyse()
        self._move_to_text_cursor()

    def _move_to_text_cursor(self) -> None:
        if self.page is not None:
            word_starts, _ = self.page.tokens.word_spans
            self.query_one("#text", TextView).move_cursor(int(word_starts.searchsorted(self._text_cursor)) - 1)

    @property
    def _text_cursor(self) -> int:
        """Number of characters of the text before the cursor of the input line."""
        line = self.query_one(TextInputBar).input
        return len(text_screen.marks_to_newlines(line.value[: line.cursor_position]))

    def _follow_text_cursor(self) -> None:
        if not self.query_one(TextInputBar).input.has_focus:
            return
        if self.shows_who:
            self._guess_speaker()
        elif not self._typing.is_waiting:
            self._move_to_text_cursor()

    def show_title(self, title: str) -> None:
        if self.shows_tuning:
            strengths = describe_strengths(self.session_model.strengths)
            title = f"lens: what fine-tuning changed{strengths and f' at {strengths}'}"
        super().show_title("lens: who would say this?" if self.shows_who else title)

    # Scores

    @property
    def _names(self) -> tuple[str, str]:
        return TUNED_NAMES if self.shows_tuning else MODEL_NAMES

    def show_page(self, page: Page) -> None:
        text, tokenizer = self.query_one("#text", TextView), self.session_model.model.tokenizer
        own, other = [*self.scores, None, None][:2]
        if self._num_written:
            starts, _ = page.tokens.word_spans
            text.cursor = int(starts.searchsorted(len(page.tokens.text) - self._num_written))
            self._num_written = 0
        self.scores = [TokenScores(page.tokens, tokenizer, own)]  # what both texts share is scored
        self._num_painted = 0
        text.show(page, text.cursor)
        self._start_other(other)
        self._show_change()

    def _start_other(self, previous: TokenScores | None = None) -> None:
        self.scores = own, *_ = self.scores[:1]
        if self.shows_tuning or not self._missing_baseline:
            self.scores.append(TokenScores(own.tokens, own.tokenizer, previous))
            self._other_task.start(self._read_other)

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> Iterator[TokenScores]:
        own = self.scores[0]
        return (own for _ in own.read(self.session_model.model, cancelled))

    def show_result(self, result: TokenScores) -> None:
        self._show_change()

    def _read_other(self, cancelled: Cancellation) -> Iterator[int]:
        run, scores, own = self.session_model.run, self.scores[1], self.session_model.model
        if self.shows_tuning:
            assert isinstance(own, AdaptedModel), "only a model with changes has the key"
            yield from scores.read(own.with_strengths(dict.fromkeys(own.strengths, 0.0)), cancelled)
            return
        assert run is not None, "without a run, there is no baseline"
        with self._baseline_lock:
            if self.baseline is None and not cancelled():
                model = load_kneser_ney(run)
                if model.tokenizer != scores.tokenizer:
                    raise RunError("the run has another vocabulary than this model")
                self.baseline = model
        if self.baseline is not None:
            yield from scores.read(self.baseline, cancelled)

    def _reject_other(self, error: BaseException) -> None:
        self._missing_baseline = f"no Kneser-Ney: {describe_error(error)}."
        self.scores, self.view, self.shows_tuning = self.scores[:1], "own", False
        self._show_change()

    def _show_change(self) -> None:
        text, (own, *other) = self.query_one("#text", TextView), self.scores
        shown = other[0] if other and self.view != "own" else own
        self._values = shown.word_bits - (own.word_bits if self.view == "difference" else 0)
        is_scored = ~np.isnan(self._values)
        num_scored, (first, last) = int(is_scored.sum()), text.visible_items()
        if (self._num_painted < last and num_scored > first) or num_scored < self._num_painted:
            text.refresh()
        self._num_painted = num_scored
        is_strong = is_scored & (np.abs(self._values) >= self._shading.thresholds[-1])
        text.marks = np.flatnonzero(is_strong & ~own.tokens.unknown_words).tolist()
        self._sort()
        if own.num_scored:
            note = "" if own.is_complete else f"{100 * own.num_scored / len(own.tokens):.0f} % scored"
            self.show_metrics(describe_scores(own, other[0] if other else None, self._names[1]), note)
        self._show_word()

    @property
    def _shading(self) -> Shading:
        return DIFFERENCE_SHADING if self.view == "difference" else SURPRISE

    def _styles_of(self, index: int) -> tuple[str, ...]:
        text, shading = self.query_one("#text", TextView), self._shading
        if text.page.unknown_mask[index]:
            name = "unknown"
        elif index >= len(self._values) or np.isnan(self._values[index]):
            name = "gap"
        else:
            name = shading.style_of(self._values[index])
        return (name, "cursor") if text.is_under_cursor(index) else (name,)

    def _show_legend(self) -> None:
        text, shading = self.query_one("#text", TextView), self._shading
        texts, styles = shading.legend, shading.styles
        if not self.session_model.model.tokenizer.is_open:
            texts, styles = (*texts, "unknown".join(text_view.UNKNOWN_MARKS)), (*styles, "unknown")
        shades = text.legend(texts, styles)
        title = shading.title if self.size.width >= MIN_WIDTH_OF_FULL_LEGEND else ""
        model_name = Content.styled(dict(zip(LENS_VIEWS, self._names, strict=False)).get(self.view, ""), MUTED)
        self.query_one("#legend", StatusBar).show(Content.assemble((title, MUTED), shades), model_name)

    def on_resize(self) -> None:
        self._show_legend()

    @on(TextView.CursorMoved)
    def _show_word(self) -> None:
        details, sentences = self.query_one(WordDetails), self.query_one("#sentences", RowList)
        if not self.scores or not len(self.scores[0].tokens):
            details.show("", "", {}, ())
            sentences.show(0, self._draw_sentence, None)
            return
        tokens = self.scores[0].tokens
        index = min(self.query_one("#text", TextView).cursor, tokens.num_words - 1)
        sentence, speaker = tokens.sentence_index(index), tokens.speaker_of(int(tokens.word_starts[index]))
        location = f"sentence {sentence + 1:,} of {len(tokens.sentence_starts):,}"
        if speaker is not None:
            location = f"{display_name(speaker)} · {location}"
        word = text_view.visible_part(tokens.word(index))
        word += " (not known: a rare word)" * bool(tokens.unknown_words[index])
        own, *other = (each.word_score(index) for each in self.scores)
        scores = dict(zip(self._names, (own, other[0] if other else None), strict=True))
        shown = self._names if self.view == "difference" else (self._names[self.view == "other"],)
        details.show(printable(word), location, scores, shown)
        row = next(iter(np.flatnonzero(self._order == (index if self.shows_tuning else sentence)).tolist()), None)
        sentences.show(len(self._order), self._draw_change if self.shows_tuning else self._draw_sentence, row)

    # Sentences

    def _sort(self) -> None:
        if self.shows_tuning:
            own, other = self.scores
            order = order_by_gain(other.word_bits - own.word_bits, own.tokens.counts_as_word)
            self._order = np.array(order[::-1] if self._hardest_first else order, np.intp)
            heading = f"{'bits gained':>12}{'adapted':>9}{'as it came':>12}  word"
        else:
            self._perplexities = first, *_ = [each.sentence_perplexities() for each in self.scores]
            # argsort puts NaN, the sentences without a perplexity yet, last.
            self._order = np.argsort(-first, kind="stable") if self._hardest_first else np.arange(len(first))
            heading = f"{'perplexity':>11}{'Kneser-Ney':>12}  {'hardest first' if self._hardest_first else 'sentence'}"
        self.query_one("#heading", widgets.Static).update(heading)

    def _draw_sentence(self, row: int, width: int) -> Row:
        index, tokens = int(self._order[row]), self.scores[0].tokens
        first, last = tokens.sentence_span(index)
        word_starts, _ = tokens.word_spans
        start = int(word_starts[first])
        end = int(word_starts[last]) if last < tokens.num_words else len(tokens.text)
        labels = tokens.label_spans[:, 0]
        if (next_label := int(np.searchsorted(labels, start))) < len(labels):
            end = min(end, int(labels[next_label]))
        excerpt = printable(tokens.text[start : min(end, start + EXCERPT_LENGTH)]).rstrip()
        own, *other = (format_perplexity(float(each[index])) for each in self._perplexities)
        return [
            (f"{own:>10}", "plain"),
            (f"{''.join(other) or '-':>12}  ", "muted"),
            (truncate(excerpt, max(1, width - 24)), "plain"),
        ]

    def _draw_change(self, row: int, width: int) -> Row:
        index, (own, other) = int(self._order[row]), self.scores
        bits, other_bits = own.word_bits[index], other.word_bits[index]
        gain = other_bits - bits
        return [
            (f"{gain:>+11.1f}", "positive" if gain > 0 else "negative"),
            (f"{bits:>9.1f}{other_bits:>12.1f}  ", "muted"),
            (truncate(printable(own.tokens.word(index)), max(1, width - 34)), "plain"),
        ]

    @on(RowList.Selected)
    def _move_to_row(self, message: RowList.Selected) -> None:
        first = int(self._order[message.index])
        if not self.shows_tuning:
            first, _ = self.scores[0].tokens.sentence_span(first)
        self.query_one("#text", TextView).move_cursor(first)

    def action_toggle_order(self) -> None:
        self._hardest_first = not self._hardest_first
        self._sort()
        if len(self._order) and (self._hardest_first or self.shows_tuning):
            self._move_to_row(RowList.Selected(self.query_one("#sentences", RowList), 0))
        self._show_word()

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "toggle_who":
            return bool(self.query(WhoPane))
        if action == "toggle_tuning" and not self.session_model.strengths:
            return False
        return not self.shows_who or action not in ("next_view", "toggle_tuning", "toggle_order", "step_mark")

    def action_next_view(self) -> None:
        if self.baseline is None and not self.shows_tuning:
            self.notify(self._missing_baseline or "Kneser-Ney counts are being loaded.", markup=False)
            return
        self._show_view(LENS_VIEWS[(LENS_VIEWS.index(self.view) + 1) % len(LENS_VIEWS)])

    def _show_view(self, view: LensView) -> None:
        self.view = view
        self.query_one("#text", TextView).refresh()
        self._show_legend()
        self._show_change()

    def action_toggle_tuning(self) -> None:
        self.shows_tuning, self._hardest_first = not self.shows_tuning, False
        self.show_title(self.HEADING)
        self._other_task.cancel()
        if self.scores:
            self._start_other()
            self._show_view("difference" if self.shows_tuning else "own")

    # Who would say it

    @property
    def shows_who(self) -> bool:
        """True while the speakers are shown in place of the surprise."""
        return self.has_class("-who")

    def _guess_speaker(self) -> None:
        self.query_one(WhoPane).guess(line_at(self.query_one(TextInputBar).text, self.cast, self._text_cursor))

    def action_toggle_who(self) -> None:
        self.toggle_class("-who")
        self.panes = ("who-text", "line") if self.shows_who else LensScreen.panes
        if self.shows_who:
            self._guess_speaker()
        self.show_title(self.HEADING)
        self.refresh_bindings()
        self.focus_pane(self.panes[0])
