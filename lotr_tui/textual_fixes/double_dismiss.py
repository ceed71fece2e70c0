"""Dismissing a screen twice closes the screen below.

Seen in Textual 8.2.8. `Screen.dismiss` pops whichever screen is on top. Where two keys that both close a dialog are
queued, such as enter pressed twice, the second one closes the screen below it, or a palette that was opened meanwhile.
Upstream, `Screen.dismiss` would have to do nothing unless the screen is the active one.
"""

from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.await_complete import AwaitComplete


class DoubleDismissFix:
    """Screen mixin: a screen that is not on top cannot be dismissed."""

    if TYPE_CHECKING:
        app: App[Any]

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close this screen with a result, unless another screen is on top."""
        if self.app.screen is not self:  # type: ignore[comparison-overlap]
            return AwaitComplete()
        closing: AwaitComplete = super().dismiss(result)  # type: ignore[misc]
        return closing
