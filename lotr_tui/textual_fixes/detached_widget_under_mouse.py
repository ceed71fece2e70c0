"""Pressing the mouse on a widget that was just removed crashes the app.

Seen in Textual 8.2.8, not in 8.2.5. Until the next layout the compositor finds removed widgets, such as a notification
that has expired; starting a text selection on one of them fails because the widget has no parent. Upstream,
`Screen.get_widget_and_offset_at` would have to skip widgets that are not attached.
"""

from textual.geometry import Offset
from textual.widget import Widget


class DetachedWidgetFix:
    """Screen mixin: a removed widget cannot be selected with the mouse."""

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        """Return the widget at a screen coordinate and the offset in its content, or None for a removed widget."""
        widget, offset = super().get_widget_and_offset_at(x, y)  # type: ignore[misc]
        return (widget, offset) if widget is None or widget.parent is not None else (None, None)
