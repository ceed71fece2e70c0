"""Where in the training text a passage stands."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.analysis.memorization import Passage, Place
from engine.data.vocabulary import Tokenizer, spans
from lotr_tui.screens.text.layout import clean
from lotr_tui.theme import MUTED


class PassagePlaces(VerticalScroll):
    """The first places of a passage: who says it, and the whole line, the passage in brackets."""

    DEFAULT_CSS = """
    PassagePlaces {
        padding: 0 1;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    PassagePlaces Static { height: auto; }
    PassagePlaces:focus #heading { text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_up", "up", id="passage-places.up", show=False, tooltip="A line up"),
        Binding("down", "scroll_down", "down", id="passage-places.down", show=False, tooltip="A line down"),
        Binding("pageup", "page_up", "page up", id="passage-places.page-up", show=False, tooltip="A page up"),
        Binding("pagedown", "page_down", "page down", id="passage-places.page-down", show=False, tooltip="A page down"),
        Binding("home", "scroll_home", "top", id="passage-places.first", show=False, tooltip="To the first place"),
        Binding("end", "scroll_end", "end", id="passage-places.last", show=False, tooltip="To the last place"),
    ]

    def compose(self) -> ComposeResult:
        """What is told, and the lines."""
        yield Static("", id="heading", markup=False)
        yield Static("", id="lines", markup=False)

    def show(self, number: int, of: int, passage: Passage, tokenizer: Tokenizer) -> None:
        """Tell of the passage `number`, counted from 1, of so many."""
        more = passage.occurrences - len(passage.places)
        stands = "one place" if passage.occurrences == 1 else f"{passage.occurrences:,} places"
        first = f"; the first {len(passage.places)}:" if more else ":"
        heading = Content.assemble(
            (f"passage {number} of {of}", "bold"),
            (f" · {passage.length} words · in {stands}{first}", MUTED),
        )
        self.query_one("#heading", Static).update(heading)
        lines = [_line(place, passage.length, tokenizer) for place in passage.places]
        self.query_one("#lines", Static).update(Content("\n").join(lines))
        self.scroll_home(animate=False)

    def tell(self, text: str) -> None:
        """One line, where there is no passage."""
        self.query_one("#heading", Static).update(Content.styled(text, MUTED))
        self.query_one("#lines", Static).update("")


def _line(place: Place, length: int, tokenizer: Tokenizer) -> Content:
    """A line of the training text, the passage marked within."""
    text = clean(place.text).replace("\n", " ")
    words = list(spans(text, tokenizer))[place.offset : place.offset + length]
    start, end = words[0][0], words[-1][1]
    speaker = clean(place.speaker).replace("\n", " ") or "line"
    return Content.assemble(
        (f"{speaker} {place.line + 1:,}  " if not place.speaker else f"{speaker}  ", MUTED),
        text[:start],
        (f"[{text[start:end]}]", "bold underline"),
        text[end:],
    )
