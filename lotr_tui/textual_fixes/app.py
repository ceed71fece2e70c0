"""Apps and screens that can be closed at any time: keys, errors and sizes that arrive too late are dropped.

No issue reports these defects.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textual._context import active_message_pump
from textual.actions import ActionParseResult
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.css.query import NoMatches
from textual.dom import DOMNode, NoScreen
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Event, InputEvent, Resize
from textual.geometry import Offset
from textual.widget import Widget

from lotr_tui.textual_fixes import is_served
from lotr_tui.textual_fixes.terminal import ContinuableLinuxDriver


class TextualFixesApp(App[None]):
    """Textual app that exits promptly, ignores keys of removed widgets, and can be stopped and continued."""

    def get_driver_class(self) -> type[Driver]:
        if is_served():
            from lotr_tui.textual_fixes.web_driver import ClosableWebDriver  # not needed in a terminal

            return ClosableWebDriver
        driver_class = super().get_driver_class()
        return ContinuableLinuxDriver if driver_class is LinuxDriver else driver_class

    async def on_event(self, event: Event) -> None:
        """Drop queued input once the app is exiting, or has closed its screens (`ScreenStackError`).

        Textual handles it all, with one layout per size, which takes seconds after a burst over a slow connection.
        """
        if self._exit:
            is_late = isinstance(event, (InputEvent, Resize))
        else:
            is_late = isinstance(event, InputEvent) and not self.screen_stack
        if not is_late:
            await super().on_event(event)

    async def run_action(
        self,
        action: "str | ActionParseResult",
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action, but not of a widget that is removed or not mounted yet.

        A binding is resolved when its key arrives; `App.run_action` would have to check its target again.
        """
        if isinstance(default_namespace, Widget):
            is_present = default_namespace.is_attached and default_namespace.is_mounted
            if not is_present or default_namespace._pruning:
                return False
        return await super().run_action(action, default_namespace, namespaces)

    def _watch_app_focus(self, focus: bool) -> None:
        """Focus the first widget of a screen that was opened while its page had no focus: keys would miss it."""
        super()._watch_app_focus(focus)
        if focus and self.screen_stack and self.screen.focused is None:
            self.screen._update_auto_focus()

    def _handle_exception(self, error: Exception) -> None:
        """Ignore errors of handlers that do not find their widgets while a screen is closed, or the app.

        `App.exit` and a closed screen would have to cancel handlers that are pending.
        """
        node = active_message_pump.get(None)
        is_removed = isinstance(node, Widget) and (node._pruning or not node.is_attached)
        if not self._exit and not (is_removed and isinstance(error, (NoMatches, NoScreen))):
            super()._handle_exception(error)


class TextualFixesScreen:
    """Mixin for `Screen` and its subclasses; name it before them."""

    if TYPE_CHECKING:
        app: App[Any]
        is_mounted: bool
        call_later: Any

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close this screen with a result, once it is mounted, and only while it is on top.

        `Screen.dismiss` pops whichever screen is on top, and before the mount handlers that then fail.
        """
        if self.app.screen is not self:  # type: ignore[comparison-overlap]
            return AwaitComplete()
        if not self.is_mounted:
            self.call_later(self._dismiss_when_mounted, result)
            return AwaitComplete()
        closing: AwaitComplete = super().dismiss(result)  # type: ignore[misc]
        return closing

    def _dismiss_when_mounted(self, result: Any) -> None:
        self.dismiss(result)  # not returned: a screen cannot await its own dismissal

    async def _on_resize(self, event: Resize) -> None:
        """Ignore a size that the terminal no longer has: two sizes in quick succession alternate for ever."""
        if event.size != self.app.size:
            event.prevent_default()

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        """Return the widget at a screen coordinate and the offset in its content.

        The compositor finds widgets that are removed until the next layout; selecting text in one fails.
        """
        widget, offset = super().get_widget_and_offset_at(x, y)  # type: ignore[misc]
        return (widget, offset) if widget is None or widget.parent is not None else (None, None)
