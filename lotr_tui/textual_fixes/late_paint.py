"""A changed widget is painted after all that other widgets have to do, and at most 60 times a second.

Seen in Textual 8.2.8. A changed widget sends a message to its screen, which starts a timer; each of these steps waits
for the turns of all other widgets, such as those that are being created. Upstream, a widget would need a way to be
painted at once.
"""

from textual.widget import Widget


def paint(widget: Widget) -> None:
    """Paint a widget at once, unless its screen is hidden, not painted yet, or changes as a whole."""
    screen = widget.screen
    compositor, waiting = screen._compositor, screen._dirty_widgets.copy()
    if screen.is_current and not screen.app._batch_count and widget in compositor.visible_widgets:
        compositor.update_widgets({widget})
        screen._compositor_refresh()
        screen._dirty_widgets.update(waiting)  # they may have no place yet
