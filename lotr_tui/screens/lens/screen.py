"""Lens screen: a text shaded by surprisal, the word under the cursor, the sentences, and a text area."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Rule, Static

from engine.errors import printable
from lotr_tui.background_task import is_closed
from lotr_tui.screens.dialogs.path_dialog import OpenTextDialog
from lotr_tui.screens.lens.metrics import LensMetrics
from lotr_tui.screens.lens.scoring import LensScorer
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.text_area import MAX_EDITABLE_CHARACTERS, LensTextArea
from lotr_tui.screens.lens.text_view import LENS_VIEWS, LensTextView
from lotr_tui.screens.lens.token_inspector import LensTokenInspector, describe_location
from lotr_tui.screens.text.layout import Page, sanitize_text
from lotr_tui.screens.text.screen import TextAnalysisScreen
from lotr_tui.screens.text.token_names import visible_part
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import is_line_mode
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

TYPING_DEBOUNCE = 0.25
"""Seconds between the last key and the scoring of the typed text."""
MIN_WIDTH_OF_FULL_LEGEND = 80
"""Screen width in cells from which the legend has a title."""
PLACEHOLDER = "Type a text below. Each word is shaded by its surprisal in bits: how unexpected it was to the model."


class LensScreen(TextAnalysisScreen):
    """Scores of a typed, pasted or opened text by the session's model and by Kneser-Ney."""

    CSS_PATH = "lens.tcss"
    AUTO_FOCUS = "#text-area"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "lens",
        """
        close     | escape | close            | close     | Close the lens
        open      | ctrl+o | open             | open      | Open a text file
        view      | f2     | next_view        | view      | Shade by the network, Kneser-Ney or difference
        sentences | f3     | toggle_sentences | sentences | Go to the sentences, or back
        line-ends | f4     | toggle_line_ends | line ends | Read line breaks as ends of lines, or ignore them
        """,
        show=True,
    )

    def __init__(self, session_model: SessionModel, text: str = "", *, reads_line_ends: bool = False) -> None:
        """Score `text` with `session_model`, and with Kneser-Ney counts of the run's training data.

        With `reads_line_ends`, a closed vocabulary reads line breaks as `<eos>`; otherwise this depends on the training
        of the model.
        """
        super().__init__(session_model)
        self._text = sanitize_text(text)
        self._source_name = ""  # name of a text that is not in the text area
        self.eos_per_line = reads_line_ends
        """True if line breaks are read as `<eos>`."""
        self._typing_timer: Timer | None = None
        self.scorer = LensScorer(
            self, session_model.model, self._show_page, self._show_progress, self._show_baseline, self._show_error
        )

    @property
    def is_idle(self) -> bool:
        """True once the current text is scored by both models."""
        return self.scorer.is_idle and self._typing_timer is None and self.scorer.network_scores is not None

    def compose(self) -> ComposeResult:
        """Yield status, metrics, text with word and sentences beside it, legend, text area and footer."""
        is_editable = len(self._text) <= MAX_EDITABLE_CHARACTERS
        yield StatusBar(id="status")
        yield LensMetrics(id="metrics")
        yield Rule(line_style="solid", id="metrics-rule")
        with Horizontal(id="body"):
            yield LensTextView(PLACEHOLDER, id="text")
            with Vertical(id="side"):
                yield LensTokenInspector(id="token")
                yield Static("", id="heading", markup=False)
                yield LensSentences(id="sentences")
        yield StatusBar(id="legend")
        yield from self.compose_other_view()
        yield Rule(line_style="solid")
        yield LensTextArea(self._text if is_editable else "", id="text-area")
        yield HelpLine()
        yield self.create_footer()

    def compose_other_view(self) -> ComposeResult:
        """Yield the widgets of a subclass between the legend and the text area."""
        yield from ()

    def create_footer(self) -> KeyFooter:
        """Return the footer, by default with all keys of the screen."""
        return KeyFooter()

    def on_mount(self) -> None:
        """Start scoring after the first paint."""
        self._show_heading()
        self._show_legend()
        self.show_title("lens: surprise per word")
        self.call_after_refresh(self._start_scoring)

    def _start_scoring(self) -> None:
        if is_closed(self):  # a key may close the screen before its first paint
            return
        run = self._session_model.run
        if self._session_model.model.tokenizer.is_open:
            self.eos_per_line = self._session_model.predicts_eos
        else:
            self.eos_per_line |= run is not None and is_line_mode(run)
        self.scorer.load_baseline(run)
        if len(self._text) > MAX_EDITABLE_CHARACTERS:
            self._load_text(self._text, "session text", is_editable=False)
        else:
            self._score_text()

    def on_unmount(self) -> None:
        """Stop the threads."""
        self.scorer.cancel()

    # Text

    @on(LensTextArea.Changed)
    def _schedule_scoring(self, event: LensTextArea.Changed) -> None:
        text = event.text_area.text
        if text == self._text or (not text and self._source_name):
            return  # the screen itself has filled or cleared the text area
        self._source_name = ""
        if self._typing_timer is not None:
            self._typing_timer.stop()
        self._typing_timer = self.set_timer(TYPING_DEBOUNCE, self._score_typed_text)

    def _score_typed_text(self) -> None:
        self._typing_timer = None
        self._text = sanitize_text(self.query_one(LensTextArea).text)
        self._score_text()

    @on(LensTextArea.LongTextPasted)
    def _load_pasted_text(self, message: LensTextArea.LongTextPasted) -> None:
        self._load_text(message.text, "pasted text", is_editable=False)

    def action_open(self) -> None:
        """Ask for a text file and load it."""

        def load(file: tuple[str, str] | None) -> None:
            if file is not None:
                path, text = file
                self._load_text(text, printable(path), is_editable=len(text) <= MAX_EDITABLE_CHARACTERS)

        self.app.push_screen(OpenTextDialog(), load)

    def _load_text(self, text: str, name: str, *, is_editable: bool) -> None:
        """Score another text; one that is not editable is shown with its name and not in the text area."""
        self._text = sanitize_text(text)
        self._source_name = "" if is_editable else name
        if is_editable:
            self.query_one(LensTextArea).load_text(self._text)
        else:
            self.query_one(LensTextArea).clear()
            self.query_one(LensTextView).focus()
        self._score_text()

    def _score_text(self) -> None:
        self.scorer.score(self._text, eos_per_line=self.eos_per_line)

    # Scores

    def _notify(self, text: str) -> None:
        self.notify(text, markup=False)

    def _show_error(self, text: str) -> None:
        self.notify(text, severity="error", markup=False)

    def _show_baseline(self) -> None:
        if self.scorer.baseline is None and not self._session_model.is_by_others:
            self._notify(f"{self.scorer.baseline_status}.")
        self._show_progress()

    def _show_page(self, page: Page) -> None:
        """Show a new text, with the scores it shares with the text before."""
        assert self.scorer.network_scores is not None, "created with the page"
        cursor = self._word_at_text_cursor() if self.query_one(LensTextArea).has_focus else None
        self.query_one(LensTextView).show_scores(page, self.scorer.network_scores, cursor=cursor)

    def _show_progress(self) -> None:
        """Show the scores computed so far."""
        network_scores, baseline_scores = self.scorer.network_scores, self.scorer.baseline_scores
        if network_scores is not None:
            self.query_one(LensTextView).refresh_scores(baseline_scores)
            self.query_one(LensSentences).show(network_scores, baseline_scores)
        is_expected = self.scorer.is_loading_baseline or self.scorer.baseline is not None
        baseline_status = "Kneser-Ney …" if is_expected else "no Kneser-Ney"
        self.query_one(LensMetrics).show_scores(network_scores, baseline_scores, baseline_status, self._source_name)
        self._show_token()

    def _show_legend(self) -> None:
        text = self.query_one(LensTextView)
        is_wide = self.size.width >= MIN_WIDTH_OF_FULL_LEGEND
        title = f"{'difference' if text.view == 'difference' else 'surprise'}: " if is_wide else ""
        model_name = "" if text.view == "difference" else text.view
        has_unknown = not self._session_model.model.tokenizer.is_open
        shades = Content.assemble((title, MUTED), text.legend(has_unknown=has_unknown))
        self.query_one("#legend", StatusBar).show(shades, Content.styled(model_name, MUTED))

    def on_resize(self) -> None:
        """Show as much of the legend as fits the new width."""
        self._show_legend()

    @on(LensTextView.TokenHighlighted)
    def _show_token(self) -> None:
        """Show the details of the word under the cursor, and select its sentence."""
        text, inspector = self.query_one(LensTextView), self.query_one(LensTokenInspector)
        network_scores, baseline_scores = self.scorer.network_scores, self.scorer.baseline_scores
        if network_scores is None or not len(network_scores.tokens):
            inspector.show("", "", (None, None))
            return
        tokens = network_scores.tokens
        index = min(text.cursor, tokens.num_words - 1)
        sentence = tokens.sentence_index(index)
        word = visible_part(tokens.word(index))
        if tokens.unknown_words[index]:
            word += " (not known: a rare word)"
        baseline_score = baseline_scores.word_score(index) if baseline_scores is not None else None
        inspector.show(
            word,
            describe_location(network_scores, index),
            (network_scores.word_score(index), baseline_score),
            model_index=1 if text.view == "Kneser-Ney" and baseline_score else 0,
        )
        self.query_one(LensSentences).select_sentence(sentence)

    # Cursor

    def _word_at_text_cursor(self) -> int | None:
        """Return the word before the cursor of the text area."""
        scores = self.scorer.network_scores
        if scores is None or self._source_name or not len(scores.tokens):
            return None
        character = self.query_one(LensTextArea).cursor_index()
        word_starts, _ = scores.tokens.word_spans
        return max(0, int(word_starts.searchsorted(character, side="left")) - 1)

    @on(LensTextArea.SelectionChanged)
    def _follow_text_cursor(self) -> None:
        if self._text == self.query_one(LensTextArea).text and (index := self._word_at_text_cursor()) is not None:
            self.query_one(LensTextView).move_cursor(index)

    @property
    def shown_text(self) -> str:
        """The text as it is now: in the text area, or too long for it."""
        return self._text if self._source_name else sanitize_text(self.query_one(LensTextArea).text)

    @on(LensSentences.SentenceSelected)
    def _move_to_sentence(self, message: LensSentences.SentenceSelected) -> None:
        if self.scorer.network_scores is not None:
            first, _ = self.scorer.network_scores.tokens.sentence_span(message.index)
            self.query_one(LensTextView).move_cursor(first)

    # Keys

    def action_next_view(self) -> None:
        """Give the shades their next meaning."""
        if self.scorer.baseline is None:
            self._notify(f"{self.scorer.baseline_status}.")
            return
        text = self.query_one(LensTextView)
        text.view = LENS_VIEWS[(LENS_VIEWS.index(text.view) + 1) % len(LENS_VIEWS)]
        self._show_legend()
        self._show_token()

    def action_toggle_sentences(self) -> None:
        """Show the sentences in place of the text on a narrow terminal; focus them on a wide one."""
        sentences = self.query_one(LensSentences)
        if self.has_class("-narrow"):
            self.toggle_class("-sentences")
        self.call_after_refresh((self.query_one(LensTextView) if sentences.has_focus else sentences).focus)

    @on(LensSentences.OrderChanged)
    def _show_heading(self) -> None:
        self.query_one("#heading", Static).update(self.query_one(LensSentences).heading())

    def action_toggle_line_ends(self) -> None:
        """Read line breaks as `<eos>`, or ignore them; an open vocabulary reads them as characters instead."""
        self.eos_per_line = not self.eos_per_line
        if self.eos_per_line:
            self._notify("Line breaks are read as ends of lines: ¶.")
        elif self._session_model.model.tokenizer.is_open:
            self._notify("Line breaks are read as characters.")
        else:
            self._notify("Line breaks are ignored.")
        self._score_text()
