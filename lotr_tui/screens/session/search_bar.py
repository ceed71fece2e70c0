"""Looking for words in a text: what is looked for, and how many times it is there."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

from lotr_tui.textual_fixes.line_box import LineBox


class SearchBar(Horizontal):
    """A line to type in; enter and up go to the match before, down to the next one."""

    DEFAULT_CSS = """
    SearchBar { height: 1; padding: 0 1 0 2; display: none; }
    SearchBar.-open { display: block; }
    SearchBar Label { color: $foreground 60%; margin-right: 1; }
    SearchBar Input { width: 1fr; padding: 0; background: $panel; }
    SearchBar #matches { margin: 0 0 0 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "go(-1)", "earlier", key_display="↑↓", id="search.up", tooltip="The match before"),
        Binding("down", "go(1)", "later", show=False, id="search.down", tooltip="The match after"),
    ]

    class Asked(Message):
        """Look for `query`, and go to the match `step` further down."""

        def __init__(self, query: str, step: int) -> None:
            super().__init__()
            self.query = query
            self.step = step

    def compose(self) -> ComposeResult:
        """The query, and which match it is."""
        yield Label("find", markup=False)
        yield LineBox(id="query", compact=True, max_length=200)
        yield Label("", id="matches", markup=False)

    def open(self) -> None:
        """To be typed into."""
        self.add_class("-open")
        self.screen.set_focus(self.query_one(Input))  # at once: the letters behind the key are for it
        self.action_go(0)

    def close(self) -> None:
        """Nothing is looked for any more."""
        self.remove_class("-open")
        self.post_message(self.Asked("", 0))

    @property
    def is_open(self) -> bool:
        """Whether it is seen."""
        return self.has_class("-open")

    def show(self, match: int, matches: int) -> None:
        """Which match is shown, of how many."""
        asked = bool(self.query_one(Input).value)
        self.query_one("#matches", Label).update(f"{match} of {matches:,}" if matches else "none" if asked else "")

    def action_go(self, step: int) -> None:
        """To another match."""
        self.post_message(self.Asked(self.query_one(Input).value, step))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self.is_open:
            self.action_go(0)

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_go(-1)
