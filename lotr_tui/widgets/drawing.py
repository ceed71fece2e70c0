"""Base class for widgets that draw all their lines at once, and helpers for their lines."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, zip_longest

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

SEPARATOR = " · "  # between two parts of a line


class StripWidget(Widget):
    """Widget whose subclass returns all its lines from `draw`; `redraw_changes` repaints only the ones that differ."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Strip] = []
        self._drawn_size = Size(0, 0)

    def draw(self, width: int, height: int) -> list[Strip]:
        raise NotImplementedError

    def redraw(self) -> None:
        self._lines = []
        self.refresh()

    def redraw_changes(self) -> None:
        before, self._lines = self._lines, []
        if not before or not self.is_on_screen:
            self.refresh()
            return
        self._draw_lines()
        blank = Strip.blank(self.size.width, self.rich_style)
        pairs = enumerate(zip_longest(before, self._lines, fillvalue=blank))
        if changed := [Region(0, y, width, 1) for y, (old, new) in pairs if (width := _changed_width(old, new))]:
            self.refresh(*changed)

    def component_styles(self) -> dict[str, Style]:
        """Return the style of each component class, and the widget's own style as ""."""
        return {name: self.get_component_rich_style(name) for name in self.COMPONENT_CLASSES} | {"": self.rich_style}

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._lines = []

    def render_line(self, y: int) -> Strip:
        if not self._lines or self._drawn_size != self.size:
            self._draw_lines()
        return self._lines[y] if y < len(self._lines) else Strip.blank(self.size.width, self.rich_style)

    def _draw_lines(self) -> None:
        width, height = self._drawn_size = self.size
        style = self.rich_style  # Textual computes the style at each access
        drawn = [line.adjust_cell_length(width, style) for line in self.draw(width, height)]
        self._lines = drawn + [Strip.blank(width, style)] * (height - len(drawn))


def fit_groups(groups: Iterable[Sequence[Segment]], width: int, style: Style, gap: int = 3) -> Strip:
    """Return as many groups of segments as fit in `width` columns, with gaps in `style` between them."""
    segments: list[Segment] = []
    used = 0
    for group in groups:
        used += sum(segment.cell_length for segment in group)
        if used > width:
            break
        segments += [*group, Segment(" " * gap, style)]
        used += gap
    return Strip(segments)


def join_fitting(parts: Sequence[str], width: int, separator: str = SEPARATOR) -> str:
    """Join as many of the first parts as fit `width` cells; always keep the first."""
    while len(parts) > 1 and cell_len(separator.join(parts)) > width:
        parts = parts[:-1]
    return separator.join(parts)


def _changed_width(old: Strip, new: Strip) -> int:
    """Return the cells up to the last one in which two lines differ: Textual sends a line from its left edge."""
    if old == new:
        return 0
    old_cells, new_cells = ([(cell, part.style) for part in line for cell in part.text] for line in (old, new))
    if not len(old_cells) == len(new_cells) == old.cell_length == new.cell_length:
        return max(old.cell_length, new.cell_length)  # some characters take no cell, or two
    pairs = enumerate(zip(old_cells, new_cells, strict=True), 1)
    return max((x for x, (before, after) in pairs if before != after), default=0)  # 0: only the segments differ


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """Return the start and end of each line of a paragraph, broken between words into at most `width` cells."""
    width = max(1, width)
    cells = len if text.isascii() else cell_len  # fast enough for thousands of replies
    lines: list[tuple[int, int]] = []
    offset = 0
    for line in text.split("\n"):
        start, end = offset, offset + len(line.rstrip(" "))
        first = offset + len(line) - len(line.lstrip(" "))
        offset += len(line) + 1
        while cells(text[start:end]) > width:
            cut = start + width
            if cells is cell_len:  # as many characters as fit, at least one
                ends = accumulate(map(cell_len, text[start : start + width + 1]))
                cut = start + max(1, sum(end <= width for end in ends))
            space = text.rfind(" ", max(start, first) + 1, cut + 1)
            cut = space if space > 0 else cut
            lines.append((start, start + len(text[start:cut].rstrip(" "))))
            start = cut + len(text[cut:end]) - len(text[cut:end].lstrip(" "))
        lines.append((start, max(start, end)))
    return lines
