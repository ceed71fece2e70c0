"""Memorization: the parts of a text that are copied from the training text, and their lines in it."""

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widgets import Rule, Static

from engine.analysis.memorization import MIN_PASSAGE_LENGTH, MemorizationReport, Occurrence, Passage, occurrence_span
from engine.analysis.tokenized_text import TokenizedText
from engine.data.tokenizers import Tokenizer
from engine.runtime.process import Cancellation
from lotr_tui.formatting import format_percent, plural
from lotr_tui.screens.inspect.page import Page, sanitize_text
from lotr_tui.screens.inspect.text_screen import Metric, MetricsBar, TextScreen, unreadable_metric
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session.training_text import find_memorized_passages
from lotr_tui.theme import MUTED

PLACEHOLDER = f"Type a text below. Passages of {MIN_PASSAGE_LENGTH} words or more from the training text are marked."


class Occurrences(VerticalScroll):
    """First occurrences of a passage in the training text: the speaker and the line, the passage in brackets."""

    BINDING_GROUP_TITLE = "Occurrences"
    HELP_LINE = "Lines of the training text with the passage in brackets, and who says them"

    def compose(self) -> ComposeResult:
        yield Static("", id="heading", markup=False)
        yield Static("", id="lines", markup=False)

    def show(self, heading: Content, lines: Sequence[Content] = ()) -> None:
        self.query_one("#heading", Static).update(heading)
        self.query_one("#lines", Static).update(Content("\n").join(lines))
        self.scroll_home(animate=False)


class CopiedScreen(TextScreen[MemorizationReport]):
    """Text with copied passages underlined and in numbered brackets, as 1[in this example]; the cursor selects one.

    Passages may overlap, but none contains another, so each closing bracket ends the passage that was opened first.
    """

    HEADING = "copied from training"
    BUSY_MESSAGE = "indexing the training text …"
    FAILURE_MESSAGE = "no training text"
    SHOWS_TOKENS = False
    PANES = ("text", "occurrences", "line")
    result: MemorizationReport | None = None  # the copied passages of the text, or None while unknown
    selected = 0  # index of the selected passage

    def compose_body(self) -> ComposeResult:
        yield MetricsBar(id="metrics")
        yield Rule(line_style="solid")
        with Container(id="body"):
            help_line = "1[…] is in the training text word for word; n, N: next, previous passage"
            yield TextView(PLACEHOLDER, help_line, self._styles_of, self._gap_styles_of)
            yield Occurrences(id="occurrences")
        yield Rule(line_style="solid")

    def passages_at(self, index: int) -> list[int]:
        """Return the indices of the passages that contain a word."""
        passages = self.result.passages if self.result is not None else ()
        return [n for n, passage in enumerate(passages) if passage.start <= index < passage.start + passage.length]

    def _styles_of(self, index: int) -> tuple[str, ...]:
        passages = self.passages_at(index)
        if self.selected in passages:
            return ("token", "cursor")
        return ("surprising",) if passages else self.query_one(TextView).base_styles(index)

    def _gap_styles_of(self, index: int) -> tuple[str, ...]:
        around = {*self.passages_at(index - 1)} & {*self.passages_at(index)}
        return ("token", "cursor") if self.selected in around else ("surprising",) if around else ("gap",)

    def find_problem(self) -> str:
        return "no training text: this model has no run" if self.session_model.run is None else ""

    def show_page(self, page: Page) -> None:
        self.result = None
        self.query_one(TextView).show(page)

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> list[MemorizationReport]:
        """Search the training text; the first search of a run also reads and indexes that text."""
        assert self.session_model.run is not None, "checked by find_problem"
        return [find_memorized_passages(self.session_model.run, self.session_model.model.tokenizer, tokens)]

    def show_result(self, result: MemorizationReport) -> None:
        assert self.page is not None, "the search was started with a page"
        self.result, self.selected, passages = result, 0, result.passages
        text = self.query_one(TextView)
        text.marks = [passage.start for passage in passages]
        text.show(mark_passages(self.page, passages), text.marks[0] if passages else 0)
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
        if num_unknown := int(self.page.unknown_mask.sum()):
            metrics.append([(f"{num_unknown:,} unknown", MUTED)])
        self.query_one(MetricsBar).show_metrics(metrics)
        nothing = f"nothing is copied: no {MIN_PASSAGE_LENGTH} words in a row occur in the training text"
        self.query_one(Occurrences).show(Content.styled(nothing, MUTED))
        self._select_passage()

    def show_message(self, message: str) -> None:
        super().show_message(message)
        self.query_one(Occurrences).show(Content(""))

    @on(TextView.CursorMoved)
    def _select_passage(self) -> None:
        """Select the passage that starts at the cursor, or else the longest one that contains it."""
        cursor = self.query_one(TextView).cursor
        if self.result is None or not (passages := self.passages_at(cursor)):
            return
        every = self.result.passages
        self.selected = max(passages, key=lambda index: (every[index].start == cursor, every[index].length))
        passage, tokenizer = every[self.selected], self.session_model.model.tokenizer
        is_all = passage.num_occurrences == len(passage.occurrences)
        more = "" if is_all else f"; the first {len(passage.occurrences)}"
        heading = Content.assemble(
            (f"passage {self.selected + 1} of {len(every)}", "bold"),
            (f" · {passage.num_words} words · in {plural(passage.num_occurrences, 'place')}{more}:", MUTED),
        )
        lines = [_format_occurrence(occurrence, passage, tokenizer) for occurrence in passage.occurrences]
        self.query_one(Occurrences).show(heading, lines)
        self.query_one(TextView).refresh()


def mark_passages(page: Page, passages: Sequence[Passage]) -> Page:
    """Return the page with brackets around the passages, numbered from 1."""
    before, after = [""] * len(page.starts), [""] * len(page.starts)
    for number, passage in enumerate(passages, 1):
        before[passage.start] += f"{number}["
        after[passage.start + passage.length - 1] += "]"
    return page.with_marks(before, after) if passages else page


def _format_occurrence(occurrence: Occurrence, passage: Passage, tokenizer: Tokenizer) -> Content:
    """Return a line of the training text with its speaker or line number, and the passage in brackets."""
    text, (start, end) = occurrence.text, occurrence_span(occurrence, passage, tokenizer)
    before, copied, after, speaker = (
        sanitize_text(part).replace("\n", " ")
        for part in (text[:start], text[start:end], text[end:], occurrence.speaker)
    )
    speaker = speaker or f"line {occurrence.line_index + 1:,}"
    return Content.assemble((f"{speaker}  ", MUTED), before, (f"[{copied}]", "bold underline"), after)
