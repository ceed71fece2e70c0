"""Lens: a text shaded by surprisal, the word under the cursor, the sentences, and who would say a line."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Rule, Static

from engine.analysis.evaluation import Evaluation, TextForm, native_form, summarize_log_probs
from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import TokenizedText
from engine.data.speakers import display_name
from engine.errors import describe_error, printable
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask, Debounce
from lotr_tui.formatting import PRETRAINED_NOTE, format_percent, plural, truncate
from lotr_tui.screens.dialogs.paths import OpenTextDialog
from lotr_tui.screens.inspect.page import UNKNOWN_MARKS, Page, visible_part
from lotr_tui.screens.inspect.row_list import Row, RowList
from lotr_tui.screens.inspect.text_screen import (
    MAX_TEXT_CHARACTERS,
    Metric,
    MetricsBar,
    TextInputBar,
    TextScreen,
    marks_to_newlines,
    newlines_to_marks,
    unreadable_metric,
)
from lotr_tui.screens.inspect.text_view import DIFFERENCE_THRESHOLDS, DIFFERENCES, TextView, difference_style
from lotr_tui.screens.inspect.who import WhoPane, line_at
from lotr_tui.screens.inspect.word_details import WordDetails
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import is_line_mode, load_kneser_ney
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import StatusBar

TYPING_DEBOUNCE = 0.25  # seconds between the last key and the scoring of the typed text
MIN_WIDTH_OF_FULL_LEGEND = 80
EXCERPT_LENGTH = 200  # characters of a sentence that are prepared for display, more than fit on a line
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


def describe_scores(network: TokenScores, baseline: TokenScores | None, baseline_status: str) -> list[Metric]:
    """Return the metrics of a text of which at least one token is scored; the status replaces missing scores."""
    evaluation, tokens = _evaluate(network), network.tokens
    # Punctuation, and a line end read as a token, are not words to the reader.
    num_words = int(np.count_nonzero(tokens.counts_as_word[: network.num_scored_words]))
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
    """Return the evaluation on the tokens scored so far, or on some of them."""
    log_probs, ids = scores.log_probs[: scores.num_scored], scores.tokens.ids[: scores.num_scored]
    if is_counted is not None:
        log_probs, ids = log_probs[: len(is_counted)][is_counted], ids[: len(is_counted)][is_counted]
    return summarize_log_probs(log_probs, ids, scores.tokens.unk_id)


class LensScreen(TextScreen[TokenScores]):
    """Scores of a text by the session's model ("network") and by the Kneser-Ney baseline of its run."""

    AUTO_FOCUS = ""
    HEADING = "lens: surprise per word"
    BUSY_MESSAGE = ""
    FAILURE_MESSAGE = "cannot score the text"
    POLL_INTERVAL = 0.1
    SHOWS_TOKENS = False
    PANES = ("text", "sentences", "line")
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
        super().__init__(session_model, text)
        if not session_model.model.tokenizer.is_open:
            run = session_model.run
            self.eos_per_line = reads_line_ends or (run is not None and is_line_mode(run))
        self.view: LensView = "network"
        self.network_scores: TokenScores | None = None
        self.baseline_scores: TokenScores | None = None
        self.baseline: LanguageModel | None = None
        self._missing_baseline = ""  # why there is no baseline; empty while it is loaded
        self._hardest_first = False
        self._perplexities: list[npt.NDArray[np.float64]] = []  # of the sentences, by both models
        self._order: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self._num_painted = 0  # words that had scores when last painted
        self._typing = Debounce(self, TYPING_DEBOUNCE, self._score_typed_text)
        self._baseline_task: BackgroundTask[int] = BackgroundTask(
            self, "lens-kneser-ney", lambda _: self._show_change(), self._reject_baseline, interval=self.POLL_INTERVAL
        )
        self._loading_task: BackgroundTask[KneserNey] = BackgroundTask(
            self, "kneser-ney", lambda models: self._take_baseline(models[0]), self._reject_baseline
        )

    def compose_body(self) -> ComposeResult:
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

    def on_mount(self) -> None:
        self.focus_pane("text" if self.text else "line")
        self.watch(self.query_one(TextInputBar).input, "selection", self._follow_text_cursor, init=False)
        self._show_legend()
        self.call_after_refresh(self._load_baseline, self.session_model.run)

    def on_unmount(self) -> None:
        self._baseline_task.cancel()
        self._loading_task.cancel()

    @property
    def is_idle(self) -> bool:
        tasks = self.analysis, self._baseline_task, self._loading_task
        is_scored = self.page is not None and not self._typing.is_waiting and not any(task.is_running for task in tasks)
        return is_scored and not any(pane.guesses.is_running for pane in self.query(WhoPane))

    # Text

    @on(Input.Changed)
    def _schedule_scoring(self, event: Input.Changed) -> None:
        if event.value != newlines_to_marks(self.text):  # otherwise the screen itself has filled the line
            self._typing.request()
            if self.shows_who:
                self._guess_speaker()

    def _score_typed_text(self) -> None:
        self.text = self.query_one(TextInputBar).text
        self.analyse()
        self._move_to_text_cursor()

    def action_open(self) -> None:
        def load(file: tuple[str, str] | None) -> None:
            if file is not None:
                self.query_one(TextInputBar).set_text(file[1])
                if len(file[1]) > MAX_TEXT_CHARACTERS:
                    self._notify(f"Only the last {MAX_TEXT_CHARACTERS:,} characters of {printable(file[0])} are read.")
                self._score_typed_text()
                self.focus_result()

        self.app.push_screen(OpenTextDialog(), load)

    def _move_to_text_cursor(self) -> None:
        """Move to the word before the cursor of the input line."""
        if self.page is not None:
            word_starts, _ = self.page.tokens.word_spans
            self.query_one("#text", TextView).move_cursor(int(word_starts.searchsorted(self._text_cursor)) - 1)

    @property
    def _text_cursor(self) -> int:
        """Number of characters of the text before the cursor of the input line."""
        line = self.query_one(TextInputBar).input
        return len(marks_to_newlines(line.value[: line.cursor_position]))

    def _follow_text_cursor(self) -> None:
        if not self.query_one(TextInputBar).input.has_focus:
            return
        if self.shows_who:
            self._guess_speaker()
        elif not self._typing.is_waiting:
            self._move_to_text_cursor()

    # Scores

    def show_page(self, page: Page) -> None:
        """Show a new text, with the scores that it shares with the text before."""
        text = self.query_one("#text", TextView)
        tokenizer = self.session_model.model.tokenizer
        self.network_scores = TokenScores(page.tokens, tokenizer, self.network_scores)
        self._num_painted = 0
        text.show(page, text.cursor)
        self._score_with_baseline()
        self._show_change()

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> Iterator[TokenScores]:
        assert self.network_scores is not None, "the text is shown"
        scores = self.network_scores
        return (scores for _ in scores.read(self.session_model.model, cancelled))

    def show_result(self, result: TokenScores) -> None:
        self._show_change()

    def _load_baseline(self, run: Path | None) -> None:
        if run is None:
            self._reject_baseline("this model has no run with training data to count")
            if not self.session_model.source:
                self._notify(self._missing_baseline)
        else:
            self._loading_task.start(lambda _: iter([load_kneser_ney(run)]))

    def _take_baseline(self, model: KneserNey) -> None:
        if model.tokenizer == self.session_model.model.tokenizer:
            self.baseline = model
            self._score_with_baseline()
        else:
            self._reject_baseline("the run has another vocabulary than this model")

    def _score_with_baseline(self) -> None:
        model, network = self.baseline, self.network_scores
        if model is not None and network is not None:
            scores = self.baseline_scores = TokenScores(network.tokens, model.tokenizer, self.baseline_scores)
            self._baseline_task.start(lambda cancelled: scores.read(model, cancelled))

    def _reject_baseline(self, reason: BaseException | str) -> None:
        reason = reason if isinstance(reason, str) else describe_error(reason)
        self._missing_baseline = f"no Kneser-Ney: {reason}."
        self._show_change()

    def _show_change(self) -> None:
        """Show the scores computed so far."""
        network, baseline = self.network_scores, self.baseline_scores
        if network is None:
            return
        text = self.query_one("#text", TextView)
        first, last = text.visible_items()
        num_scored = min((scores.num_scored_words for scores in self._shown_scores()), default=0)
        if (self._num_painted < last and num_scored > first) or num_scored < self._num_painted:
            text.refresh()
        self._num_painted = num_scored
        self._perplexities = [each.sentence_perplexities() for each in (network, baseline) if each is not None]
        self._sort()
        text.marks = self._surprising_words()
        if network.num_scored:
            status = "no Kneser-Ney" if self._missing_baseline else "Kneser-Ney …"
            fraction = network.num_scored / len(network.tokens)
            note = "" if network.is_complete else f"{100 * fraction:.0f} % scored"
            self.query_one(MetricsBar).show_metrics(describe_scores(network, baseline, status), note)
        self._show_word()

    def _shown_scores(self) -> list[TokenScores]:
        """Return the scores that determine the shades, or none if one of them is missing."""
        network, baseline = self.network_scores, self.baseline_scores
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
        title = "difference: " if is_difference else "surprise: "
        if self.size.width < MIN_WIDTH_OF_FULL_LEGEND:
            title = ""
        model_name = Content.styled("" if is_difference else self.view, MUTED)
        self.query_one("#legend", StatusBar).show(Content.assemble((title, MUTED), shades), model_name)

    def on_resize(self) -> None:
        self._show_legend()

    @on(TextView.CursorMoved)
    def _show_word(self) -> None:
        """Show the details of the word under the cursor, and select its sentence."""
        network, baseline = self.network_scores, self.baseline_scores
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
        assert self.network_scores is not None, "there are sentences"
        index, tokens = int(self._order[row]), self.network_scores.tokens
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
        assert self.network_scores is not None, "there are sentences"
        first, _ = self.network_scores.tokens.sentence_span(int(self._order[message.index]))
        self.query_one("#text", TextView).move_cursor(first)

    def action_toggle_order(self) -> None:
        self._hardest_first = not self._hardest_first
        self._sort()
        self._show_word()

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the keys of the shown view; line breaks always end a line of a script."""
        if action in ("toggle_who", "toggle_line_ends"):
            return bool(self.query(WhoPane)) == (action == "toggle_who")
        return not self.shows_who or action not in ("next_view", "toggle_order", "step_mark")

    def _notify(self, text: str) -> None:
        self.notify(text, markup=False)

    def action_next_view(self) -> None:
        if self.baseline is None:
            self._notify(self._missing_baseline or "Kneser-Ney counts are being loaded.")
            return
        self.view = LENS_VIEWS[(LENS_VIEWS.index(self.view) + 1) % len(LENS_VIEWS)]
        self.query_one("#text", TextView).refresh()
        self._show_legend()
        self._show_change()

    def action_toggle_line_ends(self) -> None:
        self.eos_per_line = not self.eos_per_line
        otherwise = "read as characters" if self.session_model.model.tokenizer.is_open else "ignored"
        self._notify(f"Line breaks are {'read as ends of lines: ¶' if self.eos_per_line else otherwise}.")
        self.analyse()

    # Who would say it

    @property
    def shows_who(self) -> bool:
        """True while the speakers are shown in place of the surprise."""
        return self.has_class("-who")

    def panes(self) -> tuple[str, ...]:
        return ("who-text", "line") if self.shows_who else self.PANES

    def focus_result(self) -> None:
        self.focus_pane(self.panes()[0])

    def _guess_speaker(self) -> None:
        """Guess the speaker of the line at the cursor of the input line."""
        text = self.query_one(TextInputBar).text
        self.query_one(WhoPane).guess(line_at(text, self.session_model.cast, self._text_cursor))

    def action_toggle_who(self) -> None:
        self.toggle_class("-who")
        if self.shows_who:
            self._guess_speaker()
        self.show_title("lens: who would say this?" if self.shows_who else self.HEADING)
        self.refresh_bindings()
        self.focus_result()


def _format_sentence_perplexity(perplexity: float) -> str:
    if math.isnan(perplexity):
        return "…"  # not computed yet
    return f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.1e}"
