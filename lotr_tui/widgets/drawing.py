"""What a chart and the bars have in common: lines drawn all at once, kept until something changes."""

from itertools import zip_longest

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Drawing(Widget):
    """A widget that draws all its lines in one go."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Strip] = []

    def draw(self, width: int, height: int) -> list[Strip]:
        """The lines from the top, at most `height`; those not given are blank."""
        raise NotImplementedError

    def redraw(self) -> None:
        """What is to be seen has changed."""
        self._lines = []
        self.refresh()

    def redraw_changes(self) -> None:
        """What is to be seen may have changed in a few places: only those go to the terminal."""
        before, self._lines = self._lines, []
        if not before or not self.is_on_screen:
            self.refresh()
            return
        self._draw_lines()
        blank = Strip.blank(self.size.width, self.rich_style)
        rows = enumerate(zip_longest(before, self._lines, fillvalue=blank))
        if changed := [Region(0, y, cells, 1) for y, (old, new) in rows if (cells := last_change(old, new))]:
            self.refresh(*changed)

    def notify_style_update(self) -> None:
        """Colours have changed."""
        super().notify_style_update()
        self._lines = []

    def on_resize(self) -> None:
        """There is another room to draw in."""
        self._lines = []

    def render_line(self, y: int) -> Strip:
        """A line; all are drawn when the first is asked for."""
        if not self._lines:
            self._draw_lines()
        return self._lines[y] if y < len(self._lines) else Strip.blank(self.size.width, self.rich_style)

    def _draw_lines(self) -> None:
        width, height = self.size
        style = self.rich_style  # made anew each time it is asked for
        drawn = [line.adjust_cell_length(width, style) for line in self.draw(width, height)]
        self._lines = drawn + [Strip.blank(width, style)] * (height - len(drawn))


def last_change(old: Strip, new: Strip) -> int:
    """How many cells of a line there are up to the last one that differs; 0 if none does.

    Where the first one is makes no difference: Textual sends a line from the left edge of its widget.
    """
    if old == new:
        return 0
    before, after = _cells(old), _cells(new)
    if not len(before) == len(after) == old.cell_length == new.cell_length:
        return max(old.cell_length, new.cell_length)  # with characters that take no cell, or two
    return max(place for place, (was, now) in enumerate(zip(before, after, strict=True), 1) if was != now)


def _cells(line: Strip) -> list[tuple[str, Style | None]]:
    return [(character, segment.style) for segment in line for character in segment.text]
