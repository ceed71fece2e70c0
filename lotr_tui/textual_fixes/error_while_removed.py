"""A screen that is closed while it is being mounted, or has work queued, crashes the app.

Seen in Textual 8.2.8. A screen can be popped before its mount handler or its callbacks have run; they run nevertheless,
and fail to find widgets that were never mounted or are gone. Upstream, the removal of a widget would have to drop its
pending handlers and callbacks.
"""

from textual._context import active_message_pump
from textual.app import App
from textual.css.query import NoMatches
from textual.dom import NoScreen
from textual.widget import Widget


class ErrorWhileRemovedFix(App[None]):
    """App that ignores errors of a widget under removal that finds its widgets or its screen no more."""

    def _handle_exception(self, error: Exception) -> None:
        node = active_message_pump.get(None)
        is_removed = isinstance(node, Widget) and (node._pruning or not node.is_attached)
        if not (is_removed and isinstance(error, (NoMatches, NoScreen))):
            super()._handle_exception(error)
