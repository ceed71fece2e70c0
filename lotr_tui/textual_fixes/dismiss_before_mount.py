"""Dismissing a screen before it is mounted crashes the app.

Seen in Textual 8.2.8. A key right after the one that opens a screen may dismiss the screen while it is still mounting;
its widgets are then removed before its `on_mount`, which fails to find them. Upstream, `Screen.dismiss` would have to
wait for the mount.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.await_complete import AwaitComplete


class DismissBeforeMountFix:
    """Screen mixin: a dismissal during the mount waits for the mount."""

    if TYPE_CHECKING:
        is_mounted: bool
        call_later: Callable[..., bool]

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close this screen with a result, once it is mounted."""
        if not self.is_mounted:
            self.call_later(self._dismiss_when_mounted, result)
            return AwaitComplete()
        closing: AwaitComplete = super().dismiss(result)  # type: ignore[misc]
        return closing

    def _dismiss_when_mounted(self, result: Any) -> None:
        self.dismiss(result)  # not returned: a screen cannot await its own dismissal
