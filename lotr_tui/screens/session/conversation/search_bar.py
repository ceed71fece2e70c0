"""Bar to search the transcript."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

from lotr_tui.widgets.line_input import LineInput

MAX_QUERY_CHARACTERS = 200


class SearchBar(Horizontal):
    """Input for a query with the number of matches; enter and up go to the previous match, down to the next."""

    DEFAULT_CSS = """
    SearchBar { height: 1; padding: 0 1 0 2; display: none; }
    SearchBar.-open { display: block; }
    SearchBar Label { color: $muted; text-style: $muted-style; margin-right: 1; }
    SearchBar Input { width: 1fr; padding: 0; background: $panel; }
    SearchBar #matches { margin: 0 0 0 2; }
    """
    BINDING_GROUP_TITLE = "Search"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step_match(-1)", "earlier", key_display="↑↓", id="search.up", tooltip="The previous match"),
        Binding("down", "step_match(1)", "later", show=False, id="search.down", tooltip="The next match"),
    ]

    class SearchRequested(Message):
        """Posted when the query changes or another match is requested."""

        def __init__(self, query: str, offset: int) -> None:
            super().__init__()
            self.query = query
            """Text to find; empty ends the search."""
            self.offset = offset
            """Number of matches to move down."""

    def compose(self) -> ComposeResult:
        """Compose the input and the number of matches."""
        yield Label("find", markup=False)
        yield LineInput(id="query", compact=True, max_length=MAX_QUERY_CHARACTERS)
        yield Label("", id="matches", markup=False)

    def open(self) -> None:
        """Show and focus the bar."""
        self.add_class("-open")
        self.screen.set_focus(self.query_one(Input))  # at once, because the next keys are for the query
        self.action_step_match(0)

    def close(self) -> None:
        """Hide the bar and end the search."""
        self.remove_class("-open")
        self.post_message(self.SearchRequested("", 0))

    @property
    def is_open(self) -> bool:
        """True if the bar is visible."""
        return self.has_class("-open")

    def show_match_count(self, current: int, total: int) -> None:
        """Show the number of the current match, counted from 1, and the number of matches."""
        text = f"{current} of {total:,}" if total else "no match" if self.query_one(Input).value else ""
        self.query_one("#matches", Label).update(text)

    def action_step_match(self, offset: int) -> None:
        """Go down by `offset` matches."""
        self.post_message(self.SearchRequested(self.query_one(Input).value, offset))

    @on(Input.Changed)
    def _query_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.is_open:
            self.action_step_match(0)

    @on(Input.Submitted)
    def _query_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_step_match(-1)
