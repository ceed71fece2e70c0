"""Lens: a text shaded by surprisal, the word under the cursor, the sentences, and who would say a line."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.message_pump import MessagePump
from textual.widgets import Rule, Static, TextArea

from engine.analysis.evaluation import Evaluation, TextForm, native_form, summarize_log_probs
from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.speakers import display_name
from engine.errors import describe_error, printable
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask, Debounce, is_closed
from lotr_tui.formatting import PRETRAINED_NOTE, format_percent, plural, truncate
from lotr_tui.screens.dialogs.paths import OpenTextDialog
from lotr_tui.screens.inspect.page import UNKNOWN_MARKS, Page, sanitize_text, visible_part
from lotr_tui.screens.inspect.row_list import Row, RowList
from lotr_tui.screens.inspect.text_screen import InspectorScreen, Metric, MetricsBar, unreadable_metric
from lotr_tui.screens.inspect.text_view import DIFFERENCE_THRESHOLDS, DIFFERENCES, TextView, difference_style
from lotr_tui.screens.inspect.who import WhoPane, line_at
from lotr_tui.screens.inspect.word_details import WordDetails
from lotr_tui.session.session_model import SessionModel, find_cast
from lotr_tui.session.training_text import is_line_mode, load_kneser_ney
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

TYPING_DEBOUNCE = 0.25
"""Seconds between the last key and the scoring of the typed text."""
POLL_INTERVAL = 0.1
"""Seconds between two repaints of the scores."""
MAX_EDITABLE_CHARACTERS = 20_000
"""Maximum length of an editable text; the text area would take seconds to lay out a longer one."""
MIN_WIDTH_OF_FULL_LEGEND = 80
EXCERPT_LENGTH = 200
"""Characters of a sentence that are prepared for display, more than fit on a line."""
PLACEHOLDER = "Type a text below. Each word is shaded by its surprisal in bits: how unexpected it was to the model."
SURPRISE_THRESHOLDS = (3.0, 6.0, 10.0)
"""Bits that separate the styles of `SURPRISES`: probabilities of 1/8, 1/64 and 1/1024."""
SURPRISES = ("dim", "usual", "surprising", "strong")
TEXT_FORM_NAMES: dict[TextForm, str] = {
    "original": "",
    "whitespace": " (words only)",
    "words": " (lower-case words)",
}

LensView = Literal["network", "Kneser-Ney", "difference"]
"""Meaning of the shades: the surprisal of one model, or the difference between both."""
LENS_VIEWS: tuple[LensView, ...] = get_args(LensView)


class LensScorer:
    """Scores of the current text so far, by the model ("network") and by the Kneser-Ney baseline of its run.

    Scores of tokens that the previous text starts with are kept.
    """

    def __init__(
        self,
        owner: MessagePump,
        model: LanguageModel,
        on_page: Callable[[Page], None],
        on_change: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        """Prepare to score texts with `model`; `network_scores` belongs to the text of the last `on_page`."""
        self.network_scores: TokenScores | None = None
        self.baseline_scores: TokenScores | None = None
        self.baseline: LanguageModel | None = None
        self.missing_baseline = ""
        """Why there is no baseline; empty while it is loaded."""
        self._model, self._on_page, self._on_change, self._on_error = model, on_page, on_change, on_error
        self._network_task: BackgroundTask[tuple[Page, TokenScores]] = BackgroundTask(
            owner, "lens", self._take_scores, self._fail, interval=POLL_INTERVAL
        )
        self._baseline_task: BackgroundTask[int] = BackgroundTask(
            owner, "lens-kneser-ney", lambda _: on_change(), self._fail, interval=POLL_INTERVAL
        )
        self._loading_task: BackgroundTask[KneserNey] = BackgroundTask(
            owner, "kneser-ney", self._take_baseline, lambda error: self._reject_baseline(describe_error(error))
        )
        self._tasks = (self._network_task, self._baseline_task, self._loading_task)

    @property
    def is_idle(self) -> bool:
        return not any(task.is_running for task in self._tasks)

    def load_baseline(self, run: Path | None) -> None:
        if run is None:
            self._reject_baseline("this model has no run with training data to count")
        else:
            self._loading_task.start(lambda _: iter([load_kneser_ney(run)]))

    def score(self, text: str, *, eos_per_line: bool) -> None:
        """Tokenize and score a sanitized text in a thread, and drop the text before it."""
        self._network_task.cancel()
        self._baseline_task.cancel()
        model, previous = self._model, self.network_scores

        def source(cancellation: Cancellation) -> Iterator[tuple[Page, TokenScores]]:
            tokens = tokenize_with_offsets(text, model.tokenizer, eos_per_line=eos_per_line, cast=find_cast(model))
            page, scores = Page.from_words(tokens), TokenScores(tokens, model.tokenizer, previous)
            yield page, scores
            for _ in scores.read(model, cancellation):
                yield page, scores

        self._network_task.start(source)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _take_scores(self, items: list[tuple[Page, TokenScores]]) -> None:
        page, scores = items[-1]
        if scores is not self.network_scores:
            self.network_scores = scores
            self._on_page(page)
            self._score_with_baseline()
        self._on_change()

    def _score_with_baseline(self) -> None:
        if self.baseline is None or self.network_scores is None:
            return
        model, tokens = self.baseline, self.network_scores.tokens
        scores = self.baseline_scores = TokenScores(tokens, model.tokenizer, self.baseline_scores)
        self._baseline_task.start(lambda cancellation: scores.read(model, cancellation))

    def _take_baseline(self, models: list[KneserNey]) -> None:
        if models[0].tokenizer == self._model.tokenizer:
            self.baseline = models[0]
            self._score_with_baseline()
            self._on_change()
        else:
            self._reject_baseline("the run has another vocabulary than this model")

    def _reject_baseline(self, reason: str) -> None:
        self.missing_baseline = f"no Kneser-Ney: {reason}"
        self._on_change()

    def _fail(self, error: BaseException) -> None:
        self._on_error(f"Cannot score the text: {describe_error(error)}")


def describe_scores(network: TokenScores, baseline: TokenScores | None, baseline_status: str) -> list[Metric]:
    """Return the metrics of a text of which at least one token is scored; the status replaces missing scores."""
    evaluation, tokens = _evaluate(network), network.tokens
    # Punctuation, and a line end read as a token, are not words to the reader.
    num_words = int(np.count_nonzero(tokens.has_letters[: network.num_scored_words]))
    parts: list[Metric] = [[("perplexity ", MUTED), (f"{evaluation.perplexity:,.1f}", "bold")]]
    if baseline is None:
        parts.append([(baseline_status, MUTED)])
    elif baseline.num_scored:
        parts.append([("Kneser-Ney ", MUTED), (f"{_evaluate(baseline).perplexity:,.1f}", "")])
    if not np.isnan(network.bits_per_character):
        note = TEXT_FORM_NAMES[native_form(network.tokenizer)]
        if network.tokenizer.name == "pretrained":
            note = f", {PRETRAINED_NOTE}"
        # A perplexity of tokens says little to someone who does not know the tokens.
        place = 0 if tokens.unk_id is None else len(parts)
        parts.insert(place, [(f"{network.bits_per_character:.2f}", ""), (f" bits/character{note}", MUTED)])
    parts += unreadable_metric(tokens.skipped_texts())
    surprise: Metric = [("surprise ", MUTED), (f"{evaluation.bits_per_token:.2f}", "")]
    if tokens.unk_id is None:
        parts.append([(f"{plural(num_words, 'word')}, {plural(evaluation.tokens, 'token')}", "")])
        parts.append([*surprise, (" bits per token", MUTED)])
    else:
        is_unknown = tokens.unknown_mask[: evaluation.tokens]
        unknown = f"{is_unknown.sum():,} unknown ({format_percent(evaluation.unk_rate)})"
        known = "-" if is_unknown.all() else f"{_evaluate(network, ~is_unknown).perplexity:,.1f}"
        parts += [
            [*surprise, (" bits per word", MUTED)],
            [(f"{num_words:,} words, {unknown}", "")],
            [("without unknown ", MUTED), (known, "")],
        ]
    both = min(network.num_scored_words, 0 if baseline is None else baseline.num_scored_words)
    if baseline is not None and both:
        fraction = format_percent(float(np.mean(baseline.word_bits[:both] > network.word_bits[:both])))
        parts.append([("better than Kneser-Ney on ", MUTED), (fraction, ""), (" of words", MUTED)])
    return parts


def _evaluate(scores: TokenScores, is_counted: npt.NDArray[np.bool_] | None = None) -> Evaluation:
    """Return the evaluation on the tokens scored so far, or on those of them that count."""
    log_probs, ids = scores.log_probs[: scores.num_scored], scores.tokens.ids[: scores.num_scored]
    if is_counted is not None:
        log_probs, ids = log_probs[: len(is_counted)][is_counted], ids[: len(is_counted)][is_counted]
    return summarize_log_probs(log_probs, ids, scores.tokens.unk_id)


class LensTextArea(TextArea):
    """Multi-line text area that sanitizes pasted text and rejects text too long to edit."""

    HELP_LINE = "Type or paste a text; tab goes to its words"

    @dataclass
    class LongTextPasted(Message):
        """Posted with a pasted text that is too long to edit; the text area itself does not change."""

        text: str

    def __init__(self, text: str) -> None:
        placeholder = "type or paste a text"
        super().__init__(text, id="text-area", compact=True, highlight_cursor_line=False, placeholder=placeholder)
        self.cursor_blink = False  # over SSH, a blinking cursor sends bytes without end

    def on_mount(self) -> None:
        self.call_after_refresh(self.move_cursor, self.document.end)

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()  # TextArea would insert the text as it is
        event.stop()
        if len(self.text) + len(event.text) > MAX_EDITABLE_CHARACTERS:
            self.post_message(self.LongTextPasted(event.text))
        elif result := self._replace_via_keyboard(sanitize_text(event.text), *self.selection):
            self.move_cursor(result.end_location)

    def cursor_index(self) -> int:
        """Return the number of characters before the cursor."""
        row, column = self.cursor_location
        return sum(len(self.document.get_line(line)) + 1 for line in range(row)) + column


class LensScreen(InspectorScreen):
    """Scores of a typed, pasted or opened text by the session's model and by Kneser-Ney."""

    AUTO_FOCUS = ""
    PANES = ("text", "sentences", "text-area")
    TAKING_TURNS = ("text", "sentences")
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "lens",
        """
        view      | v | next_view        | view      | Shade by the network, Kneser-Ney or the difference
        who       | w | toggle_who       | who       | Who would say this, or the surprise again
        sort      | s | toggle_order     | sort      | The hardest sentences first, or as written
        file      | f | open             | file      | Open a text file
        line-ends | b | toggle_line_ends | breaks    | Read line breaks as ends of lines, or ignore them
        """,
        show=True,
    )

    def __init__(self, session_model: SessionModel, text: str = "", *, reads_line_ends: bool = False) -> None:
        """Score `text`; with `reads_line_ends`, a closed vocabulary reads line breaks as `<eos>`.

        Otherwise this depends on the training of the model.
        """
        super().__init__(session_model)
        self._text = sanitize_text(text)
        self._source_name = ""  # name of a text that is not in the text area
        self.eos_per_line = reads_line_ends
        self.view: LensView = "network"
        self._hardest_first = False
        self._perplexities: list[npt.NDArray[np.float64]] = []  # of the sentences, by both models
        self._order: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self._num_painted = 0  # words that had scores when last painted
        self._typing = Debounce(self, TYPING_DEBOUNCE, self._score_typed_text)
        self.scorer = LensScorer(self, session_model.model, self._show_page, self._show_change, self._show_error)

    @property
    def is_idle(self) -> bool:
        is_scored = self.scorer.is_idle and not self._typing.is_waiting and self.scorer.network_scores is not None
        return is_scored and all(pane.guesser.is_idle for pane in self.query(WhoPane))

    def compose(self) -> ComposeResult:
        is_editable = len(self._text) <= MAX_EDITABLE_CHARACTERS
        yield StatusBar(id="status")
        yield MetricsBar(id="metrics")
        yield Rule(line_style="solid", id="metrics-rule")
        with Horizontal(id="body"):
            help_line = "← → word; n, N: surprising ones; v: Kneser-Ney, difference"
            yield TextView(PLACEHOLDER, help_line, self._styles_of)
            with Vertical(id="side"):
                yield WordDetails(id="word")
                yield Static("", id="heading", markup=False)
                yield RowList("Sentences", "Perplexity: lower is more expected; s: the hardest first", id="sentences")
        yield StatusBar(id="legend")
        if isinstance(self.session_model.model, DialogueModel):
            yield WhoPane(self.session_model.model)
        yield Rule(line_style="solid")
        yield LensTextArea(self._text if is_editable else "")
        yield HelpLine()
        yield KeyFooter()

    def panes(self) -> tuple[str, ...]:
        return ("who-text", "text-area") if self.shows_who else self.PANES

    def on_mount(self) -> None:
        self.query_one("#text" if self._text else "#text-area").focus()
        self._show_legend()
        self.show_title("lens: surprise per word")
        self.call_after_refresh(self._start_scoring)

    def _start_scoring(self) -> None:
        if is_closed(self):  # a key may close the screen before its first paint
            return
        run = self.session_model.run
        if self.session_model.model.tokenizer.is_open:
            self.eos_per_line = self.session_model.predicts_eos
        else:
            self.eos_per_line |= run is not None and is_line_mode(run)
        self.scorer.load_baseline(run)
        if self.scorer.missing_baseline and not self.session_model.is_by_others:
            self._notify(f"{self.scorer.missing_baseline}.")
        if len(self._text) > MAX_EDITABLE_CHARACTERS:
            self._load_text(self._text, "session text")
        else:
            self._score_text()

    def on_unmount(self) -> None:
        self.scorer.cancel()

    # Text

    @on(LensTextArea.Changed)
    def _schedule_scoring(self, event: LensTextArea.Changed) -> None:
        text = event.text_area.text
        if text != self._text and (text or not self._source_name):  # otherwise the screen itself has filled it
            self._source_name = ""
            self._typing.request()

    def _score_typed_text(self) -> None:
        self._text = sanitize_text(self.query_one(LensTextArea).text)
        self._score_text()

    @on(LensTextArea.LongTextPasted)
    def _load_pasted_text(self, message: LensTextArea.LongTextPasted) -> None:
        self._load_text(message.text, "pasted text")

    def action_open(self) -> None:
        def load(file: tuple[str, str] | None) -> None:
            if file is not None:
                self._load_text(file[1], "" if len(file[1]) <= MAX_EDITABLE_CHARACTERS else printable(file[0]))

        self.app.push_screen(OpenTextDialog(), load)

    def _load_text(self, text: str, name: str) -> None:
        """Score another text; one with a name is too long to be edited, and not shown in the text area."""
        self._text, self._source_name = sanitize_text(text), name
        if name:
            self.query_one(LensTextArea).clear()
            self.query_one("#text").focus()
        else:
            self.query_one(LensTextArea).load_text(self._text)
        self._score_text()

    def _score_text(self) -> None:
        self.scorer.score(self._text, eos_per_line=self.eos_per_line)

    # Scores

    def _notify(self, text: str) -> None:
        self.notify(text, markup=False)

    def _show_error(self, text: str) -> None:
        self.notify(text, severity="error", markup=False)

    def _show_page(self, page: Page) -> None:
        """Show a new text, with the scores it shares with the text before."""
        text, cursor = self.query_one("#text", TextView), None
        if self.query_one(LensTextArea).has_focus:
            cursor = self._word_at_text_cursor()
        text.show(page, text.cursor if cursor is None else cursor)
        self._num_painted = 0

    def _show_change(self) -> None:
        """Show the scores computed so far."""
        network, baseline = self.scorer.network_scores, self.scorer.baseline_scores
        if network is not None:
            text = self.query_one("#text", TextView)
            first, last = text.visible_items()
            num_scored = min((scores.num_scored_words for scores in self._shown_scores()), default=0)
            if (self._num_painted < last and num_scored > first) or num_scored < self._num_painted:
                text.refresh()
            self._num_painted = num_scored
            self._perplexities = [each.sentence_perplexities() for each in (network, baseline) if each is not None]
            self._sort()
            text.marks = self._surprising_words()
        metrics, note = [], self._source_name
        if network is not None and network.num_scored:
            status = "no Kneser-Ney" if self.scorer.missing_baseline else "Kneser-Ney …"
            metrics = describe_scores(network, baseline, status)
            if not network.is_complete:
                note = f"{100 * network.num_scored / len(network.tokens):.0f} % scored"
        self.query_one("#metrics", MetricsBar).show_metrics(metrics, note)
        self._show_word()

    def _shown_scores(self) -> list[TokenScores]:
        """Return the scores that determine the shades, or none if one of them is missing."""
        network, baseline = self.scorer.network_scores, self.scorer.baseline_scores
        needed = {"network": [network], "Kneser-Ney": [baseline], "difference": [network, baseline]}[self.view]
        present = [scores for scores in needed if scores is not None]
        return present if len(present) == len(needed) else []

    def _styles_of(self, index: int) -> tuple[str, ...]:
        scores, text = self._shown_scores(), self.query_one("#text", TextView)
        if text.page.unknown_mask[index]:
            name = "unknown"
        elif not scores or any(index >= each.num_scored_words for each in scores):
            name = "gap"
        elif len(scores) == 2:
            name = difference_style(scores[1].bits_of_word(index) - scores[0].bits_of_word(index))
        else:
            name = SURPRISES[int(np.digitize(scores[0].bits_of_word(index), SURPRISE_THRESHOLDS))]
        return (name, "cursor") if text.is_under_cursor(index) else (name,)

    def _surprising_words(self) -> list[int]:
        """Return the words with the strongest shade."""
        scores = self._shown_scores()
        num_scored = min((each.num_scored_words for each in scores), default=0)
        bits = [each.word_bits[:num_scored] for each in scores]
        if not bits:
            return []
        strong = np.abs(bits[-1] - bits[0]) >= DIFFERENCE_THRESHOLDS[-1]
        if len(bits) == 1:
            strong = bits[0] >= SURPRISE_THRESHOLDS[-1]
        indices: list[int] = np.flatnonzero(strong & ~scores[0].tokens.unknown_words[:num_scored]).tolist()
        return indices

    def _show_legend(self) -> None:
        text, is_difference = self.query_one("#text", TextView), self.view == "difference"
        names: tuple[str, ...] = SURPRISES
        low, middle, high = SURPRISE_THRESHOLDS
        texts = [f"under {low:g} bits", f"{low:g} to {middle:g}", f"{middle:g} to {high:g}", f"over {high:g}"]
        if is_difference:
            names, (weak, strong) = DIFFERENCES, DIFFERENCE_THRESHOLDS[-2:]
            texts = [f"Kneser-Ney by {strong:g}", f"by {weak:g}", "even", f"by {weak:g}", f"network by {strong:g} bits"]
        parts = list(zip(texts, names, strict=True))
        if not self.session_model.model.tokenizer.is_open:
            parts.append(("unknown".join(UNKNOWN_MARKS), "unknown"))
        shades = Content("  ").join(
            Content.styled(each, text.get_visual_style(f"text-view--{name}")) for each, name in parts
        )
        title = (
            f"{'difference' if is_difference else 'surprise'}: " if self.size.width >= MIN_WIDTH_OF_FULL_LEGEND else ""
        )
        model_name = Content.styled("" if is_difference else self.view, MUTED)
        self.query_one("#legend", StatusBar).show(Content.assemble((title, MUTED), shades), model_name)

    def on_resize(self) -> None:
        self._show_legend()

    @on(TextView.CursorMoved)
    def _show_word(self) -> None:
        """Show the details of the word under the cursor, and select its sentence."""
        network, baseline = self.scorer.network_scores, self.scorer.baseline_scores
        details, sentences = self.query_one(WordDetails), self.query_one("#sentences", RowList)
        if network is None or not len(network.tokens):
            details.clear()
            sentences.clear()
            return
        tokens = network.tokens
        index = min(self.query_one("#text", TextView).cursor, tokens.num_words - 1)
        sentence, speaker = tokens.sentence_index(index), tokens.speaker_of(int(tokens.word_starts[index]))
        location = f"sentence {sentence + 1:,} of {len(tokens.sentence_starts):,}"
        if speaker is not None:
            location = f"{display_name(speaker)} · {location}"
        word = visible_part(tokens.word(index)) + " (not known: a rare word)" * bool(tokens.unknown_words[index])
        scores = network.word_score(index), None if baseline is None else baseline.word_score(index)
        shown = 1 if self.view == "Kneser-Ney" and scores[1] else 0
        details.show(printable(word), location, scores, shown)
        [row] = np.flatnonzero(self._order == sentence)
        sentences.show(len(self._order), self._draw_sentence, int(row))

    # Sentences

    def _sort(self) -> None:
        # argsort puts NaN, the sentences without a perplexity yet, last.
        perplexities = self._perplexities[0] if self._perplexities else np.empty(0)
        self._order = np.argsort(-perplexities, kind="stable") if self._hardest_first else np.arange(len(perplexities))
        last = "hardest first" if self._hardest_first else "sentence"
        self.query_one("#heading", Static).update(f"{'perplexity':>11}{'Kneser-Ney':>12}  {last}")

    def _draw_sentence(self, row: int, width: int) -> Row:
        """Return both perplexities of a sentence and its start."""
        assert self.scorer.network_scores is not None, "there are sentences"
        index, tokens = int(self._order[row]), self.scorer.network_scores.tokens
        first, last = tokens.sentence_span(index)
        word_starts, _ = tokens.word_spans
        start = int(word_starts[first])
        end = int(word_starts[last]) if last < tokens.num_words else len(tokens.text)
        labels = tokens.label_spans[:, 0]
        if (next_label := int(np.searchsorted(labels, start))) < len(labels):
            end = min(end, int(labels[next_label]))
        excerpt = printable(tokens.text[start : min(end, start + EXCERPT_LENGTH)]).rstrip()
        own, *other = (_format_sentence_perplexity(float(values[index])) for values in self._perplexities)
        figures = f"{''.join(other) or '-':>12}  "
        return [(f"{own:>10}", "plain"), (figures, "muted"), (truncate(excerpt, max(1, width - 24)), "plain")]

    @on(RowList.Selected)
    def _move_to_sentence(self, message: RowList.Selected) -> None:
        assert self.scorer.network_scores is not None, "there are sentences"
        first, _ = self.scorer.network_scores.tokens.sentence_span(int(self._order[message.index]))
        self.query_one("#text", TextView).move_cursor(first)

    def action_toggle_order(self) -> None:
        self._hardest_first = not self._hardest_first
        self._sort()
        self._show_word()

    # Text area

    def _word_at_text_cursor(self) -> int | None:
        """Return the word before the cursor of the text area."""
        scores = self.scorer.network_scores
        if scores is None or self._source_name or not len(scores.tokens):
            return None
        word_starts, _ = scores.tokens.word_spans
        return max(0, int(word_starts.searchsorted(self.query_one(LensTextArea).cursor_index(), side="left")) - 1)

    @on(LensTextArea.Changed)
    @on(LensTextArea.SelectionChanged)
    def _follow_text_cursor(self) -> None:
        if self.shows_who:
            self._guess_speaker()
        elif self._text == self.query_one(LensTextArea).text and (index := self._word_at_text_cursor()) is not None:
            self.query_one("#text", TextView).move_cursor(index)

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the keys of the shown view; line breaks always end a line of a script."""
        if action in ("toggle_who", "toggle_line_ends"):
            return bool(self.query(WhoPane)) == (action == "toggle_who")
        return not self.shows_who or action not in ("next_view", "toggle_order", "step_mark")

    def action_next_view(self) -> None:
        if self.scorer.baseline is None:
            self._notify(f"{self.scorer.missing_baseline or 'Kneser-Ney counts are being loaded'}.")
            return
        self.view = LENS_VIEWS[(LENS_VIEWS.index(self.view) + 1) % len(LENS_VIEWS)]
        self.query_one("#text", TextView).refresh()
        self._show_legend()
        self._show_change()

    def action_toggle_line_ends(self) -> None:
        self.eos_per_line = not self.eos_per_line
        otherwise = "read as characters" if self.session_model.model.tokenizer.is_open else "ignored"
        self._notify(f"Line breaks are {'read as ends of lines: ¶' if self.eos_per_line else otherwise}.")
        self._score_text()

    # Who would say it

    @property
    def shows_who(self) -> bool:
        """True while the speakers are shown in place of the surprise."""
        return self.has_class("-who")

    def _guess_speaker(self) -> None:
        """Guess the speaker of the line at the cursor of the text area."""
        area = self.query_one(LensTextArea)
        text = self._text if self._source_name else sanitize_text(area.text)
        self.query_one(WhoPane).guess(line_at(text, self.session_model.cast, area.cursor_index()))

    def action_toggle_who(self) -> None:
        is_typing = self.query_one(LensTextArea).has_focus
        self.toggle_class("-who")
        if self.shows_who:
            self._guess_speaker()
        self.show_title("lens: who would say this?" if self.shows_who else "lens: surprise per word")
        self.refresh_bindings()
        if not is_typing:  # the part that had the focus is hidden
            self.focus_pane(self.panes()[0])


def _format_sentence_perplexity(perplexity: float) -> str:
    if math.isnan(perplexity):
        return "…"  # not computed yet
    return f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.1e}"
