"""Help line of a screen: one sentence about the part that has the focus or is under the mouse pointer."""

from itertools import takewhile
from typing import Any

from textual.content import Content
from textual.dom import DOMNode
from textual.widget import Widget


def find_help_line(widget: DOMNode | None, *, below: DOMNode | None = None) -> str:
    """Return the help line of a widget, or else of its nearest ancestor (below `below`) with one; "" if there is none.

    A widget or screen has a class attribute `HELP_LINE`, or a method `get_help_line` for a text that depends on its
    state. An empty text counts as none.
    """
    nodes = takewhile(lambda node: node is not below, () if widget is None else widget.ancestors_with_self)
    return next(filter(None, map(_own_help_line, nodes)), "")


def _own_help_line(node: DOMNode) -> str:
    get_help_line = getattr(node, "get_help_line", None)
    text: str = getattr(node, "HELP_LINE", "") if get_help_line is None else get_help_line()
    return text


class HelpLine(Widget, can_focus=False):
    """Dim line with the help of the widget under the pointer, or else of the focused widget; a long text is cut.

    The line has a fixed height, so that nothing moves when its text changes.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    HelpLine {
        height: 1;
        padding: 0 1;
        color: $muted; text-style: $muted-style;
        text-wrap: nowrap;
        text-overflow: ellipsis;
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pointed_at: DOMNode | None = None
        self._text = ""

    def on_mount(self) -> None:
        """Follow the focus."""
        self.watch(self.screen, "focused", self._focus_changed)

    def render(self) -> Content:
        """Return the text, displayed without markup."""
        return Content(self._text)

    def point_at(self, node: DOMNode) -> None:
        """Show the help of the widget under the pointer, until the focus or a text changes."""
        self._pointed_at = node
        self._show_current_text()

    def leave(self, node: DOMNode) -> None:
        """Show the help of the focused widget when the pointer has left `node`, if it is not on another widget yet."""
        if self._pointed_at is node:
            self.update_text()

    def update_text(self) -> None:
        """Show the help of the focused widget as it is now, wherever the pointer is."""
        self._pointed_at = None
        self._show_current_text()

    def _focus_changed(self, focused: Any) -> None:
        self.update_text()

    def _show_current_text(self) -> None:
        screen = self.screen
        text = find_help_line(self._pointed_at, below=screen) or find_help_line(screen.focused or screen)
        if text != self._text:
            self._text = text
            self.refresh()
