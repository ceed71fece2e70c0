"""Lines of a screen: its status at the top, the names of its panes, and the help at the bottom."""

from collections.abc import Mapping

from textual import style, widget
from textual.content import Content
from textual.dom import DOMNode
from textual.reactive import reactive

from lotr_tui.theme import MUTED


class StatusBar(widget.Widget):
    """Line with a left and a right part; without room, the left one loses its last items, after ` · `, ` (` or `, `."""

    DEFAULT_CSS = "StatusBar { height: 1; padding: 0 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left, self._right = Content(""), Content("")

    def show(self, left: Content | None = None, right: Content | None = None) -> None:
        """Replace one part or both, and repaint only if the text has changed."""
        before = self._left, self._right
        self._left = before[0] if left is None else left
        self._right = before[1] if right is None else right
        if not (self._left.is_same(before[0]) and self._right.is_same(before[1])):
            self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        right = self._right.truncate(width, ellipsis=True)
        left, room = self._left, max(0, width - right.cell_length - (2 if right else 0))
        if left.cell_length > room:
            while left.cell_length > room - 2 and (end := max(map(left.plain.rfind, (" · ", " (", ", ")))) > 0:
                left = left[:end]
            is_short = left.cell_length <= room - 2
            left = Content.assemble(left, (" …", MUTED)) if is_short else left.truncate(room, ellipsis=True)
        return Content.assemble(left, " " * max(0, width - left.cell_length - right.cell_length), right)


class PaneTabs(widget.Widget):
    """Names of the panes, of which a narrow terminal shows one, in brackets; a click runs the screen's `show_pane`."""

    DEFAULT_CSS = "PaneTabs { height: 1; padding: 0 1; }"
    auto_links = False

    pane: reactive[str] = reactive("")

    def __init__(self, panes: Mapping[str, str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._panes = panes
        self.set_reactive(PaneTabs.pane, next(iter(panes)))

    def render(self) -> Content:
        tabs = []
        for pane, label in self._panes.items():  # the brackets mark the pane on terminals without colour, too
            text = (f"[{label}]", "bold $accent") if pane == self.pane else (f" {label} ", MUTED)
            click = style.Style.from_meta({"@click": f"screen.show_pane({pane!r})"})
            tabs.append(Content.assemble(text).stylize(click))
        return Content("  ").join(tabs).truncate(self.content_size.width, ellipsis=True)


def find_help_line(start: DOMNode | None, *, below: DOMNode | None = None) -> str:
    """Return the `get_help_line()` or `HELP_LINE` of a widget or of the nearest ancestor below `below` that has one."""
    for node in () if start is None else start.ancestors_with_self:
        if node is below:
            break
        get_help_line = getattr(node, "get_help_line", None)
        if text := getattr(node, "HELP_LINE", "") if get_help_line is None else get_help_line():
            return str(text)
    return ""


class HelpLine(widget.Widget, can_focus=False):
    """Dim line with the help of the focused widget, of fixed height, so that nothing moves when its text changes."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    HelpLine {
        height: 1; padding: 0 1; color: $muted; text-style: $muted-style; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """
    _text = ""

    def on_mount(self) -> None:
        self.watch(self.screen, "focused", self.update_text)

    def render(self) -> Content:
        return Content(self._text)

    def update_text(self) -> None:
        text = find_help_line(self.screen.focused or self.screen)
        if text != self._text:
            self._text = text
            self.refresh()
