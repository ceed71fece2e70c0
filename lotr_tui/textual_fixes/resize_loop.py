"""Two quick changes of the terminal's size make the layout alternate between them for ever.

Seen in Textual 8.2.8. A screen whose layout has changed is sent a `Resize` with the size of that layout. Where two
sizes arrive in quick succession, the messages for the old and the new size follow each other in an endless loop.
Upstream, `Screen._on_resize` would have to ignore a size that the app no longer has.
"""

from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.events import Resize


class ResizeLoopFix:
    """Screen mixin: a size that the terminal no longer has is ignored."""

    if TYPE_CHECKING:
        app: App[Any]

    async def _on_resize(self, event: Resize) -> None:
        if event.size != self.app.size:
            event.prevent_default()
