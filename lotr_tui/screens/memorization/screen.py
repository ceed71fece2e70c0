"""Memorization screen: which parts of a text are copied from the training text."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.widgets import Rule

from engine.analysis.memorization import MIN_PASSAGE_LENGTH, MemorizationReport
from engine.analysis.tokenized_text import TokenizedText
from lotr_tui.formatting import format_percent, plural
from lotr_tui.screens.memorization.occurrences import PassageOccurrences
from lotr_tui.screens.memorization.passage_text import PassageTextView
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.metrics_bar import Metric, MetricsBar, unreadable_metric
from lotr_tui.screens.text.screen import TextInputScreen
from lotr_tui.screens.text.text_input import TextInputBar
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import find_memorized_passages
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

PLACEHOLDER = f"Type a text below. Passages of {MIN_PASSAGE_LENGTH} words or more from the training text are marked."


class MemorizationScreen(TextInputScreen[MemorizationReport]):
    """Text with its copied passages marked, the places where the selected passage occurs, and an input."""

    CSS_PATH = "memorization.tcss"
    AUTO_FOCUS = "#text"
    HEADING = "copied from training"
    BUSY_MESSAGE = "indexing the training text …"
    FAILURE_MESSAGE = "no training text"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "memorization",
        """
        close | escape | close       | close | Return to the previous screen
        edit  | f2     | toggle_edit | edit  | Edit the text, or return to it
        """,
        show=True,
    )

    def __init__(self, session_model: SessionModel, text: str = "") -> None:
        """Look for passages of `text`, a prompt with its reply, in the training text of the model's run."""
        super().__init__(session_model, text)
        self.result: MemorizationReport | None = None
        """The copied passages of the text, or None while unknown."""

    def compose(self) -> ComposeResult:
        """Yield status, metrics, text, occurrences, input and footer."""
        yield StatusBar(id="status")
        yield MetricsBar(id="metrics")
        yield Rule(line_style="solid")
        with Container(id="body"):
            yield PassageTextView(PLACEHOLDER, id="text")
            yield PassageOccurrences(id="occurrences")
        yield Rule(line_style="solid")
        yield TextInputBar(self.text, id="line")
        yield HelpLine()
        yield KeyFooter()

    def find_problem(self) -> str:
        """Return a message if the model has no training text."""
        return "no training text: this model has no run" if self._session_model.run is None else ""

    def show_page(self, page: Page, cursor: int | None) -> None:
        """Show a text without marks."""
        self.result = None
        self.query_one(PassageTextView).show_passages(page, ())

    def compute(self, tokens: TokenizedText) -> MemorizationReport:
        """Search the training text; the first search of a run also reads and indexes that text."""
        assert self._session_model.run is not None, "checked by find_problem"
        return find_memorized_passages(self._session_model.run, self._session_model.model.tokenizer, tokens)

    def show_result(self, result: MemorizationReport) -> None:
        """Mark the passages, and show their metrics and the occurrences of the first one."""
        assert self.page is not None, "the search was started with a page"
        self.result, passages = result, result.passages
        self.query_one(PassageTextView).show_passages(self.page, passages)
        num_unknown = int(self.page.unknown_mask.sum())
        metrics: list[Metric] = [
            [
                (f"{format_percent(result.novel_fraction)} not in a copied passage", "bold"),
                (f" ({MIN_PASSAGE_LENGTH} words or more)", MUTED),
            ],
            *unreadable_metric(self.page.tokens.skipped_texts()),
            [(plural(result.num_words, "word"), "")],
            [(plural(len(passages), "passage"), "")],
        ]
        if passages:
            metrics.append([(f"longest {max(passage.num_words for passage in passages):,} words", "")])
        if num_unknown:
            metrics.append([(f"{num_unknown:,} unknown", MUTED)])
        self.query_one(MetricsBar).show_metrics(metrics)
        if passages:
            self._show_passage()
        else:
            self.query_one(PassageOccurrences).show_message(
                f"nothing is copied: no {MIN_PASSAGE_LENGTH} words in a row occur in the training text"
            )

    def show_message(self, message: str) -> None:
        """Show a line in place of the metrics."""
        self.query_one(MetricsBar).show_metrics([[(message, MUTED)]])
        self.query_one(PassageOccurrences).show_message("")

    @on(PassageTextView.PassageHighlighted)
    def _show_passage(self) -> None:
        if self.result is None or not self.result.passages:
            return
        passages, index = self.result.passages, self.query_one(PassageTextView).highlighted
        tokenizer = self._session_model.model.tokenizer
        self.query_one(PassageOccurrences).show(index + 1, len(passages), passages[index], tokenizer)
