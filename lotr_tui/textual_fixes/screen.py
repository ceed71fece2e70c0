"""What every screen of ours does otherwise than Textual's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.await_complete import AwaitComplete
from textual.events import Resize
from textual.geometry import Offset
from textual.widget import Widget


class Steady:
    """Put before `Screen`: it closes no other, is laid out for the terminal's size only, and has no part that is gone.

    Textual closes whichever is on top. Of two keys that both close one, as two times enter, the second would close the
    screen below, and one that comes late the palette above. And it tells a screen that was laid out anew of its new
    size: two sizes that come close behind one another would be told again in turn for ever. And it finds under the
    mouse what is seen no more only after the next drawing, as a notice that was just taken away.
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

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        """What can be selected there with the mouse, and where in it."""
        widget, offset = super().get_widget_and_offset_at(x, y)  # type: ignore[misc]
        return (widget, offset) if widget is None or widget.parent is not None else (None, None)
