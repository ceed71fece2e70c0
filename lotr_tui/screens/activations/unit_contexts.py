"""The words of the training text that drive one unit highest and lowest, in their lines."""

from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from engine.analysis.activations import Extreme, Extremes
from lotr_tui.widgets.line_list import LineList

NUMBER = 9


class UnitFound(LineList):
    """The highest first, then the lowest; a line each, the words one below the other as in a concordance."""

    DEFAULT_CSS = """
    UnitFound > .unit-found--muted { color: $foreground 60%; }
    UnitFound > .unit-found--word { color: $foreground; text-style: bold; }
    UnitFound > .unit-found--plain { color: $foreground; }
    UnitFound:focus > .unit-found--cursor { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "unit-found--muted",
        "unit-found--word",
        "unit-found--plain",
        "unit-found--cursor",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1)", "line above", id="unit-found.up", show=False, tooltip="The line above"),
        Binding("down", "step(1)", "line below", id="unit-found.down", show=False, tooltip="The line below"),
        Binding("pageup", "page(-1)", "page up", id="unit-found.page-up", show=False, tooltip="A page up"),
        Binding("pagedown", "page(1)", "page down", id="unit-found.page-down", show=False, tooltip="A page down"),
        Binding("home", "step(-999)", "highest", id="unit-found.first", show=False, tooltip="The highest of all"),
        Binding("end", "step(999)", "lowest", id="unit-found.last", show=False, tooltip="The last line"),
        Binding(
            "enter", "read", "read", id="unit-found.read", tooltip="Take this line of the training text as the text"
        ),
    ]

    class Chosen(Message):
        """This line is to be read."""

        def __init__(self, extreme: Extreme) -> None:
            super().__init__()
            self.extreme = extreme

    def __init__(self, hint: str, *, id: str | None = None) -> None:
        """Show `hint` where nothing was found yet."""
        super().__init__(id=id)
        self._hint = hint
        self._items: tuple[tuple[str, Extreme], ...] = ()
        self._cursor = 0

    def show(self, found: Extremes) -> None:
        """Show what a search has found."""
        highest = [("▲" if i == 0 else " ", item) for i, item in enumerate(found.highest)]
        lowest = [("▼" if i == 0 else " ", item) for i, item in enumerate(found.lowest)]
        self._items, self._cursor = (*highest, *lowest), 0
        self._arrange()

    def tell(self, text: str) -> None:
        """A line instead of what was found before."""
        self._items, self._hint = (), text
        self._arrange()

    def line_count(self) -> int:
        """How many there are."""
        return len(self._items)

    def render_line(self, y: int) -> Strip:
        """The line at `y` of what is seen."""
        width, line = self.size.width, y + self.scroll_offset.y
        muted = self.get_component_rich_style("unit-found--muted")
        if not self._items and y == 0:
            return Strip([Segment(self._hint, muted)]).adjust_cell_length(width, self.rich_style)
        if line >= len(self._items):
            return Strip.blank(width, self.rich_style)
        mark, item = self._items[line]
        name = "unit-found--cursor" if line == self._cursor else "unit-found--plain"
        before = _last_cells(" ".join(item.before), max(0, (width - NUMBER - 4) * 2 // 5))
        return Strip(
            [
                Segment(f"{mark}{item.value:+8.3f}", self.get_component_rich_style(name)),
                Segment(f"  {before} ", muted),
                Segment(f"[{item.word}]", self.get_component_rich_style("unit-found--word")),
                Segment(f" {' '.join(item.after)}", muted),
            ]
        ).adjust_cell_length(width, self.rich_style)

    def action_step(self, lines: int) -> None:
        """So many lines down, or up."""
        self._cursor = max(0, min(self._cursor + lines, len(self._items) - 1))
        self.bring_into_sight(self._cursor)
        self.refresh()

    def action_read(self) -> None:
        """Have the chosen line read."""
        if self._items:
            self.post_message(self.Chosen(self._items[self._cursor][1]))

    def on_click(self, event: events.Click) -> None:
        """Choose the line under the pointer; a click on the chosen one has it read."""
        place = event.get_content_offset(self)
        if place is not None and (line := place.y + self.scroll_offset.y) < len(self._items):
            if line == self._cursor:
                self.action_read()
            else:
                self.action_step(line - self._cursor)

    def _arrange(self) -> None:
        self.measure()
        self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self.refresh()


def _last_cells(text: str, width: int) -> str:
    """The end of `text`, right-aligned in `width` cells."""
    while cell_len(text) > width:
        text = text[1:]
    return set_cell_size("", width - cell_len(text)) + text
