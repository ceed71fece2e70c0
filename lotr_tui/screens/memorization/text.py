"""A text in which the passages that stand in the training text are marked."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from engine.analysis.memorization import Passage
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.view import PageText


class PassageText(PageText):
    """Passages stand underlined in numbered brackets, 1[like this]; the cursor goes from one to the next.

    They may overlap but never lie within one another, so each ] closes the passage that was opened first.
    """

    DEFAULT_CSS = """
    PassageText > .passage-text--known { color: $foreground; background: $accent 20%; text-style: underline; }
    PassageText > .passage-text--chosen { color: $foreground; text-style: reverse; }
    PassageText:focus > .passage-text--chosen { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"passage-text--known", "passage-text--chosen"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "passage(-1)", "before", id="passage-text.before", show=False, tooltip="The passage before"),
        Binding(
            "right,down", "passage(1)", "passage", key_display="←→", id="passage-text.next", tooltip="The next passage"
        ),
        Binding("tab", "tab(1)", "next", id="passage-text.tab", show=False, tooltip="The next passage; then, on"),
        Binding("shift+tab", "tab(-1)", "back", id="passage-text.back", show=False, tooltip="The passage before; back"),
        Binding("home", "passage(-999999)", "first", id="passage-text.first", show=False, tooltip="The first passage"),
        Binding("end", "passage(999999)", "last", id="passage-text.last", show=False, tooltip="The last passage"),
        Binding("pageup", "scroll(-1)", "page up", id="passage-text.page-up", show=False, tooltip="A page up"),
        Binding("pagedown", "scroll(1)", "page down", id="passage-text.page-down", show=False, tooltip="A page down"),
    ]

    class PassageChosen(Message):
        """The cursor has gone to this passage."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, hint: str, *, id: str | None = None) -> None:
        super().__init__(hint, id=id)
        self._passages: Sequence[Passage] = ()
        self.chosen = 0
        """Number of the chosen passage, from 0."""

    def show_passages(self, page: Page, passages: Sequence[Passage]) -> None:
        """Another text with its passages; the first one is chosen."""
        self._passages, self.chosen = passages, 0
        self.show(mark(page, passages), passages[0].start if passages else 0)

    def style_names(self, index: int) -> list[str]:
        """In a passage, in the chosen one, or neither."""
        if self._in_chosen(index):
            return ["passage-text--chosen"]
        if self._in_passage(index):
            return ["passage-text--known"]
        return ["page-text--unknown" if self.page.words.unknown[index] else "page-text--word"]

    def gap_style_names(self, index: int) -> list[str]:
        """What stands between two words of a passage is part of it."""
        if self._in_chosen(index - 1) and self._in_chosen(index):
            return ["passage-text--chosen"]
        if any(item.start < index < item.start + item.length for item in self._passages):
            return ["passage-text--known"]
        return super().gap_style_names(index)

    def choose(self, number: int) -> None:
        """Put the cursor on a passage; there is no going beyond the first and last."""
        if not self._passages:
            return
        number = max(0, min(number, len(self._passages) - 1))
        moved, self.chosen = number != self.chosen, number
        # Its end into sight first, then its start, which matters more.
        passage = self._passages[number]
        self.cursor = passage.start + passage.length - 1
        self._into_sight()
        self.cursor = passage.start
        self._into_sight()
        if moved:
            self.refresh()
            self.post_message(self.PassageChosen(number))

    def action_passage(self, steps: int) -> None:
        """So many passages on, or back."""
        self.choose(self.chosen + steps)

    def action_tab(self, direction: int) -> None:
        """To the next passage; behind the last one the focus goes on."""
        if 0 <= self.chosen + direction < len(self._passages):
            self.choose(self.chosen + direction)
        elif direction > 0:
            self.screen.focus_next()
        else:
            self.screen.focus_previous()

    def action_scroll(self, pages: int) -> None:
        """A page up or down; the cursor stays."""
        self.scroll_to(y=self.scroll_offset.y + pages * max(1, self.size.height - 1), animate=False)

    def on_click(self, event: events.Click) -> None:
        """To the passage under the pointer; where two overlap, to the longer one."""
        event.prevent_default()  # of the base class
        place = event.get_content_offset(self)
        if place is None or (index := self.word_at(place.x, place.y)) is None:
            return
        there = [number for number, item in enumerate(self._passages) if _holds(item, index)]
        if there:
            self.choose(max(there, key=lambda number: self._passages[number].length))

    def _in_chosen(self, index: int) -> bool:
        return bool(self._passages) and _holds(self._passages[self.chosen], index)

    def _in_passage(self, index: int) -> bool:
        return any(_holds(item, index) for item in self._passages)


def _holds(passage: Passage, index: int) -> bool:
    return passage.start <= index < passage.start + passage.length


def mark(page: Page, passages: Sequence[Passage]) -> Page:
    """Put numbered brackets around the passages, from 1 on."""
    if not passages:
        return page
    count = len(page.starts)
    before, after = [""] * count, [""] * count
    for number, item in enumerate(passages, 1):
        before[item.start] += f"{number}["
        after[item.start + item.length - 1] += "]"
    pieces, behind, added = [], 0, 0
    starts, ends = np.empty_like(page.starts), np.empty_like(page.ends)
    for index in range(count):
        start, end = int(page.starts[index]), int(page.ends[index])
        pieces += [page.text[behind:start], before[index], page.text[start:end], after[index]]
        added += len(before[index])
        starts[index], ends[index] = start + added, end + added
        added += len(after[index])
        behind = end
    text = "".join([*pieces, page.text[behind:]])
    return Page(page.words, text, starts, ends, Page.without_words(text).cells)
