"""View of a text in which the passages copied from the training text are marked."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.message import Message

from engine.analysis.memorization import Passage
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.view import TokenTextView
from lotr_tui.widgets.bindings import binding_table


class PassageTextView(TokenTextView):
    """Text with copied passages underlined and in numbered brackets, as 1[in this example]; the keys select one.

    Passages may overlap, but none contains another, so each closing bracket ends the passage that was opened first.
    """

    DEFAULT_CSS = """
    PassageTextView > .passage-text-view--passage {
        color: $foreground; background: $accent 20%; text-style: underline;
    }
    PassageTextView:ansi > .passage-text-view--passage { color: $accent; background: $background; }
    PassageTextView > .passage-text-view--highlighted { color: $foreground; text-style: reverse; }
    PassageTextView:focus > .passage-text-view--highlighted { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"passage-text-view--passage", "passage-text-view--highlighted"}
    BINDING_GROUP_TITLE = "Copied passages"
    HELP_LINE = "1[…] is in the training text word for word; ← → passage"
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "passage-text-view",
            """
            next | right,down | step_passage(1) | passage | The next passage | ←→
            """,
            show=True,
        ),
        *binding_table(
            "passage-text-view",
            """
            previous | left,up | step_passage(-1) | previous | The previous passage
            """,
        ),
        *binding_table(
            "passage-text-view",
            """
            back      | shift+tab | tab_passage(-1)  | back      | The previous passage or pane
            tab       | tab       | tab_passage(1)   | next      | The next passage or pane
            first     | home      | step_to_end(-1)  | first     | The first passage
            last      | end       | step_to_end(1)   | last      | The last passage
            page-up   | pageup    | scroll_pages(-1) | page up   | A page up
            page-down | pagedown  | scroll_pages(1)  | page down | A page down
            """,
        ),
    ]

    class PassageHighlighted(Message):
        """Posted when another passage is highlighted."""

    def __init__(self, placeholder: str, *, id: str | None = None) -> None:
        super().__init__(placeholder, id=id)
        self._passages: Sequence[Passage] = ()
        self.highlighted = 0
        """Index of the highlighted passage."""

    def show_passages(self, page: Page, passages: Sequence[Passage]) -> None:
        """Show another text with its passages, and highlight the first one."""
        self._passages, self.highlighted = passages, 0
        self.show(mark_passages(page, passages), passages[0].start if passages else 0)

    def token_component_classes(self, index: int) -> list[str]:
        """Return the component class of a word in the highlighted passage, in another one, or in none."""
        if self._is_in_highlighted(index):
            return ["passage-text-view--highlighted"]
        if self.is_in_passage(index):
            return ["passage-text-view--passage"]
        return ["token-text-view--unknown" if self.page.unknown_mask[index] else "token-text-view--token"]

    def gap_component_classes(self, index: int) -> list[str]:
        """Return the component class of the gap before a word; gaps inside a passage are marked as well."""
        if self._is_in_highlighted(index - 1) and self._is_in_highlighted(index):
            return ["passage-text-view--highlighted"]
        if any(passage.start < index < passage.start + passage.length for passage in self._passages):
            return ["passage-text-view--passage"]
        return super().gap_component_classes(index)

    def highlight_passage(self, index: int) -> None:
        """Highlight the passage nearest to `index` and scroll it into view."""
        if not self._passages:
            return
        index = max(0, min(index, len(self._passages) - 1))
        moved, self.highlighted = index != self.highlighted, index
        # Scroll to the end first and then to the start, which must be visible.
        passage = self._passages[index]
        self.cursor = passage.start + passage.length - 1
        self._scroll_to_cursor()
        self.cursor = passage.start
        self._scroll_to_cursor()
        if moved:
            self.refresh()
            self.post_message(self.PassageHighlighted())

    def action_step_passage(self, offset: int) -> None:
        """Move the highlight by a number of passages."""
        self.highlight_passage(self.highlighted + offset)

    def action_step_to_end(self, direction: int) -> None:
        """Highlight the first passage if `direction` is -1, or the last one if it is 1."""
        self.action_step_passage(direction * len(self._passages))

    def action_tab_passage(self, direction: int) -> None:
        """Highlight the next or previous passage, or leave the text at its last or first one."""
        if 0 <= self.highlighted + direction < len(self._passages):
            self.action_step_passage(direction)
        elif direction > 0:
            self.screen.focus_next()
        else:
            self.screen.focus_previous()

    def action_scroll_pages(self, pages: int) -> None:
        """Scroll by a number of pages and keep the highlight."""
        self.scroll_to(y=self.scroll_offset.y + pages * max(1, self.size.height - 1), animate=False)

    def on_click(self, event: events.Click) -> None:
        """Highlight the clicked passage; of overlapping ones, the longest."""
        event.prevent_default()  # the base class would move the cursor
        offset = event.get_content_offset(self)
        if offset is None or (word := self.token_at(offset.x, offset.y)) is None:
            return
        clicked = [index for index, passage in enumerate(self._passages) if _contains_word(passage, word)]
        if clicked:
            self.highlight_passage(max(clicked, key=lambda index: self._passages[index].length))

    def is_in_passage(self, index: int) -> bool:
        """Return True if a word is part of a copied passage."""
        return any(_contains_word(passage, index) for passage in self._passages)

    def _is_in_highlighted(self, index: int) -> bool:
        return bool(self._passages) and _contains_word(self._passages[self.highlighted], index)


def _contains_word(passage: Passage, index: int) -> bool:
    return passage.start <= index < passage.start + passage.length


def mark_passages(page: Page, passages: Sequence[Passage]) -> Page:
    """Return the page with brackets around the passages, numbered from 1."""
    if not passages:
        return page
    num_words = len(page.starts)
    before, after = [""] * num_words, [""] * num_words
    for number, passage in enumerate(passages, 1):
        before[passage.start] += f"{number}["
        after[passage.start + passage.length - 1] += "]"
    return page.with_marks(before, after)
