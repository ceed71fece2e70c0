"""Status bar: the first line of a screen."""

from textual.content import Content
from textual.widget import Widget

from lotr_tui.theme import MUTED


class StatusBar(Widget):
    """One line with a left and a right part.

    If both do not fit, the left part loses its last items, which begin with ` · ` or ` (`, and then its last letters.
    """

    DEFAULT_CSS = "StatusBar { height: 1; padding: 0 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left, self._right = Content(""), Content("")

    def show(self, left: Content | None = None, right: Content | None = None) -> None:
        """Replace one part or both, and repaint only if the text has changed."""
        left = self._left if left is None else left
        right = self._right if right is None else right
        changed = not (left.is_same(self._left) and right.is_same(self._right))
        self._left, self._right = left, right
        if changed:
            self.refresh()

    def render(self) -> Content:
        """Return the line, with the right part at the right edge."""
        width = self.content_size.width
        right = self._right.truncate(width, ellipsis=True)
        left = _shorten(self._left, max(0, width - right.cell_length - (2 if right else 0)))
        gap = " " * max(0, width - left.cell_length - right.cell_length)
        return Content.assemble(left, gap, right)


def _shorten(text: Content, width: int) -> Content:
    """Return the first items of a text that fit, or as much of its first item as fits, with an ellipsis."""
    if text.cell_length <= width:
        return text
    while text.cell_length > width - 2 and (end := max(text.plain.rfind(" · "), text.plain.rfind(" ("))) > 0:
        text = text[:end]
    return (
        text.truncate(width, ellipsis=True) if text.cell_length > width - 2 else Content.assemble(text, (" …", MUTED))
    )
