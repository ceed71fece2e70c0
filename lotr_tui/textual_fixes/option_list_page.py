"""Page keys in an option list without visible rows crash the app.

Seen in Textual 8.2.8. `OptionList._move_page` indexes the list of painted lines, which is empty while the list has no
height, as on a very small terminal. Upstream, the method would have to return if there are no lines.
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from textual.geometry import Region


class OptionListPageFix:
    """Option list mixin: page keys do nothing while no row is visible."""

    if TYPE_CHECKING:
        scrollable_content_region: Region

    def _move_page(self, direction: Literal[-1, 1]) -> None:
        if self.scrollable_content_region:
            super()._move_page(direction)  # type: ignore[misc]
