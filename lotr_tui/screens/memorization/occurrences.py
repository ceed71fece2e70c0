"""Pane with the places of the training text in which a passage occurs."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.analysis.memorization import Occurrence, Passage, occurrence_span
from engine.data.tokenizers.base import Tokenizer
from lotr_tui.formatting import plural
from lotr_tui.screens.text.layout import sanitize_text
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table


class PassageOccurrences(VerticalScroll):
    """Scrollable list of the first occurrences of a passage: the speaker and the line, the passage in brackets."""

    DEFAULT_CSS = """
    PassageOccurrences {
        padding: 0 1;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    PassageOccurrences Static { height: auto; }
    PassageOccurrences:focus #heading { text-style: bold; }
    """
    BINDING_GROUP_TITLE = "Occurrences"
    HELP_LINE = "Lines of the training text with the passage in brackets, and who says them"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "passage-occurrences",
        """
        up        | up       | scroll_up   | up        | A line up
        down      | down     | scroll_down | down      | A line down
        page-up   | pageup   | page_up     | page up   | A page up
        page-down | pagedown | page_down   | page down | A page down
        first     | home     | scroll_home | top       | The first occurrence
        last      | end      | scroll_end  | end       | The last occurrence
        """,
    )

    def compose(self) -> ComposeResult:
        """Yield the heading and the occurrences."""
        yield Static("", id="heading", markup=False)
        yield Static("", id="lines", markup=False)

    def show(self, number: int, total: int, passage: Passage, tokenizer: Tokenizer) -> None:
        """Show passage `number`, counted from 1, of `total`."""
        suffix = f"; the first {len(passage.occurrences)}:"
        if passage.num_occurrences == len(passage.occurrences):
            suffix = ":"
        occurrences = plural(passage.num_occurrences, "place")
        heading = Content.assemble(
            (f"passage {number} of {total}", "bold"),
            (f" · {passage.num_words} words · in {occurrences}{suffix}", MUTED),
        )
        self.query_one("#heading", Static).update(heading)
        lines = [_format_occurrence(occurrence, passage, tokenizer) for occurrence in passage.occurrences]
        self.query_one("#lines", Static).update(Content("\n").join(lines))
        self.scroll_home(animate=False)

    def show_message(self, text: str) -> None:
        """Show a line in place of the occurrences."""
        self.query_one("#heading", Static).update(Content.styled(text, MUTED))
        self.query_one("#lines", Static).update("")


def _format_occurrence(occurrence: Occurrence, passage: Passage, tokenizer: Tokenizer) -> Content:
    """Return a line of the training text with its speaker or line number, and the passage in brackets."""
    text, (start, end) = occurrence.text, occurrence_span(occurrence, passage, tokenizer)
    before, copied, after = map(_to_one_line, (text[:start], text[start:end], text[end:]))
    speaker = _to_one_line(occurrence.speaker) or f"line {occurrence.line_index + 1:,}"
    return Content.assemble((f"{speaker}  ", MUTED), before, (f"[{copied}]", "bold underline"), after)


def _to_one_line(text: str) -> str:
    return sanitize_text(text).replace("\n", " ")
