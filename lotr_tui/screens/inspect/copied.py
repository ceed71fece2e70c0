"""Memorization: the parts of a text that are copied from the training text, and their lines in it."""

from collections.abc import Sequence

from textual import containers, on, widgets
from textual.app import ComposeResult
from textual.content import Content

from engine.analysis.memorization import MIN_PASSAGE_LENGTH, MemorizationReport, Occurrence, Passage, occurrence_span
from engine.analysis.tokenized_text import TokenizedText
from engine.data.tokenizers import Tokenizer
from engine.runtime.process import Cancellation
from lotr_tui.formatting import format_percent, plural
from lotr_tui.screens.inspect.text_screen import TextScreen, unreadable_parts
from lotr_tui.screens.inspect.text_view import Page, TextView, sanitize_text
from lotr_tui.session.comparison import find_memorized_passages
from lotr_tui.theme import MUTED
from lotr_tui.widgets.screen_lines import StatusBar

PLACEHOLDER = f"Type a text below. Passages of {MIN_PASSAGE_LENGTH} words or more from the training text are marked."
NOTHING = f"nothing is copied: no {MIN_PASSAGE_LENGTH} words in a row occur in the training text"


class CopiedScreen(TextScreen[MemorizationReport]):
    """Text with copied passages underlined and in numbered brackets, as 1[in this example]; the cursor selects one.

    Passages may overlap, but none contains another; their closing brackets are numbered, too, as 1[it 2[has]1 been]2.
    """

    HEADING = "copied from training"
    BUSY_MESSAGE = "indexing the training text …"
    FAILURE_MESSAGE = "no training text"
    SHOWS_TOKENS = False
    panes = ("text", "occurrences", "line")
    passages: Sequence[Passage] = ()  # that are copied; none while unknown
    selected = 0  # index of the selected passage

    def compose_body(self) -> ComposeResult:
        yield StatusBar(id="metrics")
        yield widgets.Rule(line_style="solid")
        with containers.Container(id="body"):
            help_line = "1[…] is copied word for word, and 1[… 2[…]1 …]2 overlap; n, N: next, previous"
            yield TextView(PLACEHOLDER, help_line, self._styles_of, self._gap_styles_of)
            with containers.VerticalScroll(id="occurrences"):  # lines of the training text with the passage in brackets
                yield widgets.Static("", id="lines", markup=False)
        yield widgets.Rule(line_style="solid")

    def passages_at(self, index: int) -> list[int]:
        passages = enumerate(self.passages)
        return [n for n, passage in passages if passage.start <= index < passage.start + passage.length]

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
        self.passages = ()
        self.query_one(TextView).show(page)

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> list[MemorizationReport]:
        """Search the training text; the first search of a run also reads and indexes that text."""
        assert self.session_model.run is not None, "checked by find_problem"
        return [find_memorized_passages(self.session_model.run, self.session_model.model.tokenizer, tokens)]

    def show_result(self, result: MemorizationReport) -> None:
        assert self.page is not None, "the search was started with a page"
        self.passages, self.selected = result.passages, 0
        text, tokens = self.query_one(TextView), self.page.tokens
        opening, closing = dict[int, str](), dict[int, str]()
        for number, (start, length) in enumerate(((each.start, each.length) for each in self.passages), 1):
            overlaps = len({*self.passages_at(start), *self.passages_at(start + length - 1)}) > 1
            opening[start], closing[start + length - 1] = f"{number}[", f"]{number}" if overlaps else "]"
        marks = {index: (opening.get(index, ""), closing.get(index, "")) for index in opening | closing}
        text.marks = [passage.start for passage in self.passages]
        text.show(Page.from_words(tokens, marks), text.marks[0] if text.marks else 0)
        copied = f"{format_percent(1 - result.novel_fraction)} copied"
        metrics = [
            Content.assemble((copied, "bold"), (f", in passages of {MIN_PASSAGE_LENGTH} words or more", MUTED)),
            *unreadable_parts(tokens),
            Content(plural(result.num_words, "word")),
            Content(plural(len(self.passages), "passage")),
        ]
        if self.passages:
            metrics.append(Content(f"longest {max(passage.num_words for passage in self.passages):,} words"))
        if num_unknown := int(self.page.unknown_mask.sum()):
            metrics.append(Content.styled(f"{num_unknown:,} unknown", MUTED))
        self.show_metrics(metrics)
        self._show_occurrences(Content.styled(NOTHING, MUTED))
        self._select_passage()

    def show_message(self, message: str) -> None:
        super().show_message(message)
        self._show_occurrences()

    def _show_occurrences(self, *lines: Content) -> None:
        self.query_one("#lines", widgets.Static).update(Content("\n").join(lines))
        self.query_one("#occurrences").scroll_home(animate=False)

    @on(TextView.CursorMoved)
    def _select_passage(self) -> None:
        """Select the passage that starts at the cursor, or else the longest one that contains it."""
        cursor, every = self.query_one(TextView).cursor, self.passages
        if not (passages := self.passages_at(cursor)):
            return
        self.selected = max(passages, key=lambda index: (every[index].start == cursor, every[index].length))
        passage, tokenizer = every[self.selected], self.session_model.model.tokenizer
        is_all = passage.num_occurrences == len(passage.occurrences)
        more = "" if is_all else f"; the first {len(passage.occurrences)}"
        heading = Content.assemble(
            (f"passage {self.selected + 1} of {len(every)}", "bold"),
            (f" · {passage.num_words} words · in {plural(passage.num_occurrences, 'place')}{more}:", MUTED),
        )
        lines = (_format_occurrence(occurrence, passage, tokenizer) for occurrence in passage.occurrences)
        self._show_occurrences(heading, *lines)
        self.query_one(TextView).refresh()


def _format_occurrence(occurrence: Occurrence, passage: Passage, tokenizer: Tokenizer) -> Content:
    text, (start, end) = occurrence.text, occurrence_span(occurrence, passage, tokenizer)
    before, copied, after, speaker = (
        sanitize_text(part).replace("\n", " ")
        for part in (text[:start], text[start:end], text[end:], occurrence.speaker)
    )
    speaker = speaker or f"line {occurrence.line_index + 1:,}"
    return Content.assemble((f"{speaker}  ", MUTED), before, (f"[{copied}]", "bold underline"), after)
