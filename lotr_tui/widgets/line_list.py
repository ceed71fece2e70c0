"""Scrolling lists that paint only the visible lines, so a long list scrolls as fast as a short one."""

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lotr_tui.widgets.keys import binding_table


def line_bindings(id_prefix: str) -> list[BindingType]:
    return binding_table(
        id_prefix,
        """
        up        | up       | step(-1) | line up    | The line above
        down      | down     | step(1)  | line down  | The line below
        page-up   | pageup   | page(-1) | page up    | A page up
        page-down | pagedown | page(1)  | page down  | A page down
        first     | home     | first    | first line | The first line
        last      | end      | last     | last line  | The last line
        """,
    )


class LineScrollView(ScrollView):
    """Scroll view whose content is a number of lines, each as wide as the view."""

    DEFAULT_CSS = """
    LineScrollView {
        padding: 0 1; overflow-x: hidden; overflow-y: scroll;
        scrollbar-size-vertical: 1; scrollbar-background: $background; scrollbar-color: $border;
    }
    """
    ALLOW_SELECT = False

    # The base class declares `layout=True`: each change would lay out the whole screen.
    virtual_size: Reactive[Size] = Reactive(Size(0, 0))

    def watch_virtual_size(self, size: Size) -> None:
        if self.styles.overflow_y == "auto":
            self.show_vertical_scrollbar = size.height > self.container_size.height > 0
        self.vertical_scrollbar.window_virtual_size = size.height

    def scroll_to_line(self, line: int) -> None:
        height = max(1, self.size.height)
        top = min(max(self.scroll_offset.y, line - height + 1), line)
        self.scroll_to(y=top, animate=False, immediate=True, force=True)


class LineList(LineScrollView, can_focus=True):
    """List with one line per item, one of which may have the cursor."""

    _blank_style: Style | None = None  # Textual computes `rich_style` at each access

    def line_count(self) -> int:
        raise NotImplementedError

    def line_segments(self, line: int) -> list[Segment]:
        raise NotImplementedError

    @property
    def cursor_line(self) -> int | None:
        return None

    def select_line(self, line: int) -> None: ...

    def render_line(self, y: int) -> Strip:
        line = y + self.scroll_offset.y
        segments = self.line_segments(line) if line < self.line_count() else []
        if self._blank_style is None:
            self._blank_style = self.rich_style
        return Strip(segments).adjust_cell_length(self.size.width, self._blank_style)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._blank_style = None

    def action_step(self, offset: int) -> None:
        if (line := self.cursor_line) is not None:
            self.select_line(max(0, min(line + offset, self.line_count() - 1)))

    def action_page(self, pages: int) -> None:
        self.action_step(pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        self.action_step(-self.line_count())

    def action_last(self) -> None:
        self.action_step(self.line_count())

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (line := offset.y + self.scroll_offset.y) < self.line_count():
            self.select_line(line)

    def update_virtual_size(self) -> None:
        self.virtual_size = Size(self.size.width, self.line_count())

    def on_resize(self) -> None:
        self.update_virtual_size()
        if (line := self.cursor_line) is not None:
            self.scroll_to_line(line)
