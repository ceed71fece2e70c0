"""Screens that close no other."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.await_complete import AwaitComplete


class ClosesOnce:
    """Put before `Screen`: a screen that is closed while it is the one on top.

    Textual closes whichever is. Of two keys that both close one, as two times enter, the second would close the
    screen below, and one that comes late the palette above.
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
