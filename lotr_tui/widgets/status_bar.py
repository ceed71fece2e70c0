"""Status bar: the first line of a screen."""

from textual.content import Content
from textual.widget import Widget


class StatusBar(Widget):
    """One line with a left and a right part; the left part is cut if both do not fit."""

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
        room = width - self._right.cell_length - (2 if self._right else 0)
        left = self._left.truncate(max(0, room), ellipsis=True)
        gap = " " * max(0, width - left.cell_length - self._right.cell_length)
        return Content.assemble(left, gap, self._right)
