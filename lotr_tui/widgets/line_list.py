"""A list of lines painted one by one, of which one is the cursor's."""

from textual.geometry import Size
from textual.reactive import Reactive
from textual.scroll_view import ScrollView


class LineList(ScrollView, can_focus=True):
    """Only lines that are seen are painted, so a long list scrolls as a short one does."""

    DEFAULT_CSS = """
    LineList {
        padding: 0 1;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    """
    ALLOW_SELECT = False

    virtual_size: Reactive[Size] = Reactive(Size(0, 0))  # without `layout`, which the base class has

    def line_count(self) -> int:
        """How many lines there are."""
        raise NotImplementedError

    def action_step(self, lines: int) -> None:
        """So many lines down, or up."""
        raise NotImplementedError

    def action_page(self, pages: int) -> None:
        """A page down or up."""
        self.action_step(pages * max(1, self.size.height - 1))

    def measure(self) -> None:
        """There are more lines, or fewer, or there is another room for them."""
        self.virtual_size = Size(self.size.width, self.line_count())

    def on_resize(self) -> None:
        """There is another room for them."""
        self.measure()

    def watch_virtual_size(self, size: Size) -> None:
        """The scroll bar shows how many there are."""
        self.vertical_scrollbar.window_virtual_size = size.height

    def bring_into_sight(self, line: int) -> None:
        """Scroll no further than it takes for a line to be seen."""
        height = max(1, self.size.height)
        top = min(max(self.scroll_offset.y, line - height + 1), line)
        self.scroll_to(y=top, animate=False, immediate=True, force=True)
