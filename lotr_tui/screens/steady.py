"""What every screen of ours does otherwise than Textual's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.await_complete import AwaitComplete
from textual.events import Resize


class Steady:
    """Put before `Screen`: a screen that closes no other, and is laid out for no size but the terminal's.

    Textual closes whichever is on top. Of two keys that both close one, as two times enter, the second would close the
    screen below, and one that comes late the palette above. And it tells a screen that was laid out anew of its new
    size: two sizes that come close behind one another would be told again in turn for ever.
    """

    if TYPE_CHECKING:
        app: App[Any]
        is_mounted: bool
        call_later: Callable[..., bool]

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close it, `result` being what comes of it."""
        if self.app.screen is not self:  # type: ignore[comparison-overlap]
            return AwaitComplete()
        if not self.is_mounted:  # else its parts would go while it still arranges them
            self.call_later(self._close, result)
            return AwaitComplete()
        closing: AwaitComplete = super().dismiss(result)  # type: ignore[misc]
        return closing

    def _close(self, result: Any) -> None:
        self.dismiss(result)  # without its return: a screen cannot wait for its own end

    async def _on_resize(self, event: Resize) -> None:
        if event.size != self.app.size:  # the terminal has another one by now, of which it is told too
            event.prevent_default()
