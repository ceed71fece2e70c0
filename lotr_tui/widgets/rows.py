"""A list to choose from that also bears a terminal in which nothing of it is seen."""

from typing import Literal

from textual.widgets import OptionList


class Rows(OptionList):
    """Textual's; there a page up or down is an error where the list has no height."""

    def _move_page(self, direction: Literal[-1, 1]) -> None:
        if self.scrollable_content_region:
            super()._move_page(direction)
