"""Lists to choose from that also bear a terminal in which nothing of them is seen, and clicks on rows that are gone."""

from typing import TYPE_CHECKING, Literal

from textual.command import CommandList
from textual.events import Click
from textual.widgets import OptionList

if TYPE_CHECKING:
    from textual.geometry import Region


class _Bears:
    """What Textual's list lacks, put before each kind of it."""

    if TYPE_CHECKING:
        scrollable_content_region: "Region"
        option_count: int

    def _move_page(self, direction: Literal[-1, 1]) -> None:
        if self.scrollable_content_region:  # without height a page is none
            super()._move_page(direction)  # type: ignore[misc]

    async def _on_click(self, event: Click) -> None:
        """The row was painted before the list was another one."""
        if event.style.meta.get("option", -1) >= self.option_count:
            event.prevent_default()


class Rows(_Bears, OptionList):
    """A list of rows."""


class FoundCommands(_Bears, CommandList):
    """The list of the palette, which becomes another one with each key."""
