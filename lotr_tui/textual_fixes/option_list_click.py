"""A click on a row that is no longer in an option list crashes the app.

Seen in Textual 8.2.8. A click carries the index of the row that was painted under the mouse; if the list has become
shorter since, `OptionList._on_click` raises `IndexError`. Upstream, the handler would have to check the index.
"""

from typing import TYPE_CHECKING

from textual.events import Click


class OptionListClickFix:
    """Option list mixin: a click on a removed row does nothing."""

    if TYPE_CHECKING:
        option_count: int

    async def _on_click(self, event: Click) -> None:
        if event.style.meta.get("option", -1) >= self.option_count:
            event.prevent_default()
