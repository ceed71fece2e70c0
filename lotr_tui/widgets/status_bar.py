"""The first line of a screen: what is here on the left, what goes on behind it on the right."""

from textual.content import Content
from textual.widget import Widget


class StatusBar(Widget):
    """One line; the left part is cut where both do not fit."""

    DEFAULT_CSS = "StatusBar { height: 1; padding: 0 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left, self._right = Content(""), Content("")

    def show(self, left: Content | None = None, right: Content | None = None) -> None:
        """Replace one side or both."""
        before = self._left, self._right
        self._left = self._left if left is None else left
        self._right = self._right if right is None else right
        if not (
            self._left.is_same(before[0]) and self._right.is_same(before[1])
        ):  # what stands already need not go to the terminal again
            self.refresh()

    def render(self) -> Content:
        """Both sides, apart."""
        width = self.content_size.width
        room = width - self._right.cell_length - (2 if self._right else 0)
        left = self._left.truncate(max(0, room), ellipsis=True)
        gap = " " * max(0, width - left.cell_length - self._right.cell_length)
        return Content.assemble(left, gap, self._right)
