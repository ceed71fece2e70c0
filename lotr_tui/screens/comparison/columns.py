"""Widget that shows generated texts in columns and marks where each one differs from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from lotr_tui.formatting import describe_finish_reason, format_percent, plural, truncate
from lotr_tui.session.columns import ColumnOutput, first_difference, fraction_differing, mean_surprisal
from lotr_tui.widgets.drawing import StripWidget

DIFFERENCE_MARK = "▸"
"""Mark before the first word that differs; that word is also underlined."""
COLUMN_GAP = 2
MAX_DESCRIPTION_LINES = 4
MIN_WIDTH_FOR_ONE_LINE_STATS = 25
"""Column width in cells from which both statistics are on one line."""

StyledWord = tuple[str, Style]
CompareWith = Literal["left", "first"]
"""Column with which each column is compared: the one to its left, or the first one."""


class GenerationColumns(StripWidget, can_focus=True):
    """Columns of text that scroll together; as many as fit are visible, the selected one among them.

    All lines are drawn again when a token arrives, but only changed lines are repainted.
    """

    DEFAULT_CSS = """
    GenerationColumns { height: 1fr; padding: 0 1; }
    GenerationColumns > .generation-columns--title { text-style: bold; }
    GenerationColumns > .generation-columns--selected { color: $accent; text-style: bold; }
    GenerationColumns > .generation-columns--rule { color: $border; }
    GenerationColumns > .generation-columns--muted { color: $muted; text-style: $muted-style; }
    GenerationColumns > .generation-columns--mark { color: $accent; text-style: bold underline; }
    GenerationColumns > .generation-columns--failure { color: $warning; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"generation-columns--{name}" for name in ("title", "selected", "rule", "muted", "mark", "failure")
    }

    @dataclass
    class ColumnSelected(Message):
        """Posted when a column was clicked."""

        index: int

    def __init__(self, min_column_width: int, compare_with: CompareWith, *, id: str | None = None) -> None:
        """Show columns of at least `min_column_width` cells, unless the widget itself is narrower."""
        super().__init__(id=id)
        self.outputs: list[ColumnOutput] = []
        """Columns from left to right."""
        self.selected_index = 0
        """Index of the selected column."""
        self._min_column_width = min_column_width
        self._compare_with = compare_with
        self._first_visible = 0
        self._scroll_top: int | None = None  # first visible line; None keeps the end visible
        self._max_scroll_top = 0
        self._body_height = 1

    def show(self, outputs: Sequence[ColumnOutput], selected_index: int) -> None:
        """Show these columns, and select the one nearest to `selected_index`."""
        self.outputs, self.selected_index = list(outputs), max(0, min(selected_index, len(outputs) - 1))
        self.redraw_changes()

    def scroll_lines(self, lines: int) -> None:
        """Scroll by a number of lines; at the end, the view follows new tokens again."""
        top = (self._max_scroll_top if self._scroll_top is None else self._scroll_top) + lines
        self._scroll_top = None if top >= self._max_scroll_top else max(0, top)
        self.redraw_changes()

    def scroll_pages(self, pages: int) -> None:
        """Scroll by a number of pages, which overlap by one line."""
        self.scroll_lines(pages * max(1, self._body_height - 1))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll up by two lines."""
        event.stop()
        self.scroll_lines(-2)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll down by two lines."""
        event.stop()
        self.scroll_lines(2)

    def on_click(self, event: events.Click) -> None:
        """Post the clicked column."""
        num_visible, width = self._column_layout(self.size.width)
        index = self._first_visible + min(event.x // (width + COLUMN_GAP), num_visible - 1)
        if index < len(self.outputs):
            self.post_message(self.ColumnSelected(index))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Draw the headings, a rule and the texts: exactly `height` lines."""
        if not self.outputs or width < 1:
            return [Strip.blank(width, self.rich_style)] * height
        num_visible, column_width = self._column_layout(width)
        self._first_visible = min(
            max(self._first_visible, self.selected_index - num_visible + 1),
            self.selected_index,
            len(self.outputs) - num_visible,
        )
        visible = range(self._first_visible, self._first_visible + num_visible)
        headings = self._headings(visible, column_width)
        if height < len(headings) + 3:
            headings = headings[:1]  # on a very low terminal, the title leaves room for the text
        bodies = [self._body_lines(index, column_width) for index in visible]
        self._body_height = height - len(headings)
        self._max_scroll_top = max(0, max(len(body) for body in bodies) - self._body_height)
        top = self._max_scroll_top if self._scroll_top is None else min(self._scroll_top, self._max_scroll_top)
        rows = headings + [_line_of_each(bodies, y) for y in range(top, top + self._body_height)]
        base_style = self.rich_style  # Textual computes the style at each access
        return [self._join_row(cells, column_width, base_style) for cells in rows[:height]]

    def _column_layout(self, width: int) -> tuple[int, int]:
        """Return the number of visible columns and the width of each."""
        count = max(1, min(len(self.outputs), (width + COLUMN_GAP) // (self._min_column_width + COLUMN_GAP)))
        return count, max(1, (width + COLUMN_GAP) // count - COLUMN_GAP)

    def _join_row(self, cells: Sequence[list[Segment]], width: int, base_style: Style) -> Strip:
        """Join one line of every column, each padded to the column width."""
        gap = Strip.blank(COLUMN_GAP, base_style)
        strips: list[Strip] = []
        for segments in cells:
            strips += [Strip(segments).adjust_cell_length(width, base_style), gap]
        return Strip.join(strips[:-1]).simplify()

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"generation-columns--{name}")

    # Headings

    def _headings(self, visible: range, width: int) -> list[list[list[Segment]]]:
        """Return the lines above the texts, each with one list of segments per visible column.

        The lines are the title, the description, the statistics, the difference and a rule.
        """
        base_style, muted = self.rich_style, self._style("muted")
        outputs = [self.outputs[index] for index in visible]
        lines = [[[Segment(truncate(output.title, width), self._style("title"))] for output in outputs]]
        descriptions = [[output.description] for output in outputs]
        if any(cell_len(output.description) > width for output in outputs):
            parts = [output.description.split(" · ") for output in outputs]
            descriptions = [
                [line for part in each for line in (part.split(", ") if cell_len(part) > width else [part])]
                for each in parts
            ]
        texts = [[[Segment(truncate(part, width), muted)] for part in parts] for parts in descriptions]
        if any(output.description for output in outputs):
            lines += [_line_of_each(texts, y) for y in range(min(MAX_DESCRIPTION_LINES, max(map(len, texts))))]
        stats = [_output_stats(output) for output in outputs]
        if width >= MIN_WIDTH_FOR_ONE_LINE_STATS:
            stats = [[" · ".join(part for part in parts if part)] for parts in stats]
        for y in range(len(stats[0])):
            lines.append([[Segment(truncate(parts[y], width), base_style)] for parts in stats])
        labels = [self._difference_label(index, width) for index in visible]
        lines.append([[Segment(truncate(label, width), base_style)] for label in labels])
        return [*lines, self._rules(visible, width)]

    def _rules(self, visible: range, width: int) -> list[list[Segment]]:
        """Return the rule of each visible column; the last one says if there are more columns."""
        rules = []
        for index in visible:
            char, style = ("━", "selected") if index == self.selected_index else ("─", "rule")
            hidden = ""
            if index == visible[-1] and len(visible) < len(self.outputs):
                hidden = f" {visible[0] + 1}–{visible[-1] + 1} of {len(self.outputs)} "
            segments = [Segment(char * max(0, width - len(hidden)), self._style(style))]
            rules.append([*segments, Segment(hidden, self._style("muted"))] if hidden else segments)
        return rules

    def _reference_output(self, index: int) -> ColumnOutput | None:
        """Return the column that a column is compared with, or None for the first one."""
        if index == 0:
            return None
        return self.outputs[0] if self._compare_with == "first" else self.outputs[index - 1]

    def _difference_label(self, index: int, width: int) -> str:
        """Describe where a column differs from the one it is compared with."""
        output, reference = self.outputs[index], self._reference_output(index)
        if reference is None or not output.events or not reference.events:
            return ""
        words, reference_words = output.words_to_compare(reference), reference.words_to_compare(output)
        first = first_difference(words, reference_words)
        both_done = output.done_event and reference.done_event
        if first is None:
            return "= same words" if both_done else "= same so far"
        short = f"≠ at word {first + 1}"
        long = f"{short} · {format_percent(fraction_differing(words, reference_words))} differ"
        return long if both_done and cell_len(long) <= width else short

    # Texts

    def _body_lines(self, index: int, width: int) -> list[list[Segment]]:
        """Return the text of a column, with the first difference marked and the reason of its end."""
        output = self.outputs[index]
        base_style, muted, mark = self.rich_style, self._style("muted"), self._style("mark")
        if output.is_empty:
            return _wrap_words([(word, muted) for word in output.placeholder.split()], width, base_style)
        reference = self._reference_output(index)
        first = None
        if reference is not None:
            first = first_difference(output.words_to_compare(reference), reference.words_to_compare(output))
        words: list[StyledWord] = [(word, base_style) for word in output.shown_words]
        end: list[StyledWord] = []
        if output.done_event:
            end = [(word, muted) for word in describe_finish_reason(output.done_event, output.noun).split()]
        elif not output.failure:
            words.append(("▌", self._style("selected")))
        if first is not None:
            # A text that ends where the reference continues differs in its end, so the reason is marked.
            marked, position = (words, first) if first < len(words) else (end, 0)
            marked[position] = (DIFFERENCE_MARK + marked[position][0], mark)
        failure = [(word, self._style("failure")) for word in output.failure.split()]
        return [line for part in (words, end, failure) for line in _wrap_words(part, width, base_style)]


def _output_stats(output: ColumnOutput) -> list[str]:
    """Return the number of words and the mean surprisal, or empty texts before the first word."""
    surprisal = mean_surprisal(output.events)
    if surprisal is None:
        return ["", ""]
    num_decimals = 0 if output.noun == "token" and surprisal >= 10 else 2  # a word of several tokens can have many bits
    return [plural(len(output.shown_words), "word"), f"{surprisal:.{num_decimals}f} bits/word"]


def _line_of_each(texts: Sequence[list[list[Segment]]], y: int) -> list[list[Segment]]:
    """Return line `y` of each text, empty after its end."""
    return [text[y] if y < len(text) else [] for text in texts]


def _wrap_words(words: Sequence[StyledWord], width: int, space_style: Style) -> list[list[Segment]]:
    """Break words into lines of at most `width` cells; a longer word is split, and a line feed begins a line."""
    lines: list[list[Segment]] = []
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
