"""Texts of one prompt and one seed in columns that mark where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from textual import events, message
from textual.strip import Strip

from lotr_tui.formatting import describe_finish_reason, format_percent, plural, truncate
from lotr_tui.session import comparison
from lotr_tui.session.comparison import Column
from lotr_tui.widgets.drawing import StripWidget

DIFFERENCE_MARK = "▸"  # mark before the first word that differs; that word is also underlined
COLUMN_GAP = 2
MAX_DESCRIPTION_LINES = 4
MIN_WIDTH_FOR_ONE_LINE_STATS = 25  # column width in cells from which both statistics are on one line

StyledWord = tuple[str, Style]
Line = list[Segment]


class GenerationColumns(StripWidget, can_focus=True):
    """Columns of text that scroll together; as many as fit are visible, the selected one among them.

    All lines are drawn again when a token arrives, but only changed lines are repainted.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"generation-columns--{name}" for name in ("title", "selected", "rule", "muted", "mark", "failure")
    }

    @dataclass
    class ColumnSelected(message.Message):
        """Posted when a column was clicked."""

        index: int

    def __init__(self, min_column_width: int, *, compares_with_first: bool) -> None:
        """Compare each column with the first one, or else with the one to its left."""
        super().__init__(id="columns")
        self.outputs: Sequence[Column] = ()
        self.selected_index = 0
        self._min_column_width = min_column_width
        self._compares_with_first = compares_with_first
        self._first_visible = 0
        self._scroll_top: int | None = None  # first visible line; None keeps the end visible
        self._max_scroll_top = 0
        self._body_height = 1

    def show(self, outputs: Sequence[Column], selected_index: int) -> None:
        """Show these columns, and select the one nearest to `selected_index`."""
        self.outputs, self.selected_index = list(outputs), max(0, min(selected_index, len(outputs) - 1))
        self.redraw_changes()

    def visible_columns(self) -> range:
        """Return the indices of the columns that fit."""
        count, _ = self._layout_columns(self.size.width)
        first = max(self._first_visible, self.selected_index - count + 1)
        self._first_visible = min(first, self.selected_index, len(self.outputs) - count)
        return range(self._first_visible, self._first_visible + count)

    def scroll_text(self, lines: int, pages: int = 0) -> None:
        """Scroll by lines, and by pages that overlap by one; at the end, the view follows new tokens again."""
        top = self._max_scroll_top if self._scroll_top is None else self._scroll_top
        top += lines + pages * max(1, self._body_height - 1)
        self._scroll_top = None if top >= self._max_scroll_top else max(0, top)
        self.redraw_changes()

    def on_mouse_scroll_up(self) -> None:
        self.scroll_text(-2)

    def on_mouse_scroll_down(self) -> None:
        self.scroll_text(2)

    def on_click(self, event: events.Click) -> None:
        num_visible, width = self._layout_columns(self.size.width)
        index = self._first_visible + min(event.x // (width + COLUMN_GAP), num_visible - 1)
        if index < len(self.outputs):
            self.post_message(self.ColumnSelected(index))

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self.outputs or width < 1:
            return []
        visible, (_, column_width) = self.visible_columns(), self._layout_columns(width)
        headings = self._headings(visible, column_width)
        if height < len(headings) + 3:
            headings = headings[:1]  # on a very low terminal, the title leaves room for the text
        bodies = [self._body_lines(index, column_width) for index in visible]
        self._body_height = height - len(headings)
        self._max_scroll_top = max(0, max(len(body) for body in bodies) - self._body_height)
        top = self._max_scroll_top if self._scroll_top is None else min(self._scroll_top, self._max_scroll_top)
        shown = zip_longest(*(body[top : top + self._body_height] for body in bodies), fillvalue=[])
        style = self.rich_style  # Textual computes the style at each access
        gap = Strip.blank(COLUMN_GAP, style)
        lines = []
        for cells in [*headings, *shown][:height]:
            strips = [part for cell in cells for part in (Strip(cell).adjust_cell_length(column_width, style), gap)]
            lines.append(Strip.join(strips[:-1]).simplify())
        return lines

    def _layout_columns(self, width: int) -> tuple[int, int]:
        count = max(1, min(len(self.outputs), (width + COLUMN_GAP) // (self._min_column_width + COLUMN_GAP)))
        return count, max(1, (width + COLUMN_GAP) // count - COLUMN_GAP)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"generation-columns--{name}")

    def _headings(self, visible: range, width: int) -> list[Sequence[Line]]:
        plain, title, muted = self.rich_style, self._style("title"), self._style("muted")
        outputs = [self.outputs[index] for index in visible]
        titles = [_wrap_words([(word, title) for word in output.title.split()], width, plain) for output in outputs]
        is_wide = all(cell_len(output.description) <= width for output in outputs)
        descriptions: list[list[Line]] = []
        for output in outputs:
            parts = [output.description] if is_wide else output.description.replace(", ", " · ").split(" · ")
            words = [[(word, muted) for word in part.split()] for part in parts]
            descriptions.append([line for part in words for line in _wrap_words(part, width, muted)])
        stats = []
        for index, output in zip(visible, outputs, strict=True):
            surprisal, texts = comparison.mean_surprisal(output.events), ["", ""]
            if surprisal is not None:
                # A word of several tokens can have many bits.
                bits = f"{surprisal:.{0 if output.noun == 'token' and surprisal >= 10 else 2}f} bits/word"
                texts = [plural(len(output.shown_words), "word"), bits]
            if width >= MIN_WIDTH_FOR_ONE_LINE_STATS:
                texts = [" · ".join(filter(None, texts))]
            texts.append(self._difference_label(index, width))
            stats.append([[Segment(truncate(text, width), plain)] for text in texts])
        lines: list[Sequence[Line]] = []
        for part, most in ((titles, None), (descriptions, MAX_DESCRIPTION_LINES), (stats, None)):
            lines += islice(zip_longest(*part, fillvalue=[]), most)
        rules = [("━", "selected") if index == self.selected_index else ("─", "rule") for index in visible]
        return [*lines, [[Segment(char * width, self._style(name))] for char, name in rules]]

    def _compared_words(self, index: int) -> tuple[list[str], list[str]] | None:
        """Return the words of a column and those it is compared with, the first column or the left one, if any."""
        if index == 0:
            return None
        output, reference = self.outputs[index], self.outputs[0 if self._compares_with_first else index - 1]
        return output.words_to_compare(reference), reference.words_to_compare(output)

    def _difference_label(self, index: int, width: int) -> str:
        words, reference = self._compared_words(index), self.outputs[0 if self._compares_with_first else index - 1]
        if words is None or not self.outputs[index].events or not reference.events:
            return ""
        first, both_done = comparison.first_difference(*words), self.outputs[index].done_event and reference.done_event
        if first is None:
            other = "first" if self._compares_with_first else "left"
            return f"= same as {other}" if both_done else f"= {other} so far"
        short = f"≠ at word {first + 1}"
        long = f"{short} · {format_percent(comparison.fraction_differing(*words))} differ"
        return long if both_done and cell_len(long) <= width else short

    def _body_lines(self, index: int, width: int) -> list[Line]:
        output, plain, muted = self.outputs[index], self.rich_style, self._style("muted")
        if output.is_empty:
            return _wrap_words([(word, muted) for word in output.placeholder.split()], width, plain)
        words: list[StyledWord] = [(word, plain) for word in output.shown_words]
        end: list[StyledWord] = []
        if output.done_event:
            end = [(word, muted) for word in describe_finish_reason(output.done_event, output.noun).split()]
        elif not output.failure:
            words.append(("▌", self._style("selected")))
        compared = self._compared_words(index)
        if compared and (first := comparison.first_difference(*compared)) is not None:
            # A text that ends where the reference continues differs in its end, so the reason is marked.
            marked, position = (words, first) if first < len(words) else (end, 0)
            marked[position] = (DIFFERENCE_MARK + marked[position][0], self._style("mark"))
        failure = [(word, self._style("failure")) for word in output.failure.split()]
        return [line for part in (words, end, failure) for line in _wrap_words(part, width, plain)]


def _wrap_words(words: Sequence[StyledWord], width: int, space_style: Style) -> list[Line]:
    """Break words into lines of at most `width` cells; a longer word is split, and a line feed begins a line."""
    lines: list[Line] = []
    available = 0
    for text, style in words:
        word = text.removesuffix("\n")
        for number, part in enumerate([word] if cell_len(word) <= width else chop_cells(word, width)):
            part_width = cell_len(part)
            if lines and not lines[-1]:
                lines[-1] = [Segment(part, style)]
                available = width - part_width
            elif lines and number == 0 and part_width < available:
                lines[-1] += [Segment(" ", space_style), Segment(part, style)]
                available -= part_width + 1
            else:
                lines.append([Segment(part, style)])
                available = width - part_width
        if text.endswith("\n"):
            lines.append([])
    return lines
