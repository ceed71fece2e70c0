"""Apps, screens and lists that can be closed at any time: keys, errors and sizes that arrive too late are dropped."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from textual import actions, await_complete, command, constants, dom, events, widgets, work
from textual._context import active_message_pump
from textual.app import App
from textual.css.query import NoMatches
from textual.drivers.linux_driver import LinuxDriver
from textual.errors import NoWidget
from textual.widget import Widget

from lotr_tui.textual_fixes import is_plain_tmux, is_served
from lotr_tui.textual_fixes.terminal import ContinuableLinuxDriver


class TextualFixesApp(App[None]):
    """Textual app that exits promptly, ignores keys of removed widgets, and can be stopped and continued."""

    failure: Exception | None = None  # the first that ended the app

    def __init__(self) -> None:
        if constants.COLOR_SYSTEM == "auto" and is_plain_tmux():
            constants.COLOR_SYSTEM = "256"  # type: ignore[misc]
        super().__init__()

    def get_driver_class(self) -> type[Any]:
        if is_served():
            from lotr_tui.textual_fixes.web_driver import ClosableWebDriver  # not needed in a terminal

            return ClosableWebDriver
        driver_class = super().get_driver_class()
        return ContinuableLinuxDriver if driver_class is LinuxDriver else driver_class

    async def on_event(self, event: events.Event) -> None:
        """Drop queued input once the app is exiting: after a burst, its layouts take seconds; or without a screen."""
        too_late = (events.InputEvent, events.Resize) if self._exit else (events.InputEvent,)
        if isinstance(event, too_late) and (self._exit or not self.screen_stack):
            return
        if isinstance(event, events.Key) and not event.is_forwarded and isinstance(self.screen, TextualFixesScreen):
            self.screen.before_key(event)
        await super().on_event(event)

    def on_key(self, event: events.Key) -> None:
        """Give a text field the letters of a burst: they were sent before a key among them had given it the focus."""
        if self.focused is not None and self.focused.check_consume_key(event.key, event.character):
            event.prevent_default()
            self.focused.post_message(events.Key(event.key, event.character))

    async def run_action(
        self,
        action: "str | actions.ActionParseResult",
        default_namespace: dom.DOMNode | None = None,
        namespaces: Mapping[str, dom.DOMNode] | None = None,
    ) -> bool:
        """Run an action, unless its widget was removed since its key arrived, or is not mounted yet."""
        widget = default_namespace
        if isinstance(widget, Widget) and (widget._pruning or not (widget.is_attached and widget.is_mounted)):
            return False
        return await super().run_action(action, default_namespace, namespaces)

    def _watch_app_focus(self, focus: bool) -> None:
        """Focus the first widget of a screen that was opened while its page had no focus: keys would miss it."""
        super()._watch_app_focus(focus)
        if focus and self.screen_stack and self.screen.focused is None:
            self.screen._update_auto_focus()

    def _handle_exception(self, error: Exception) -> None:
        """Ignore errors of handlers that do not find their widgets while a screen or the app is closed."""
        node = active_message_pump.get(None)
        is_removed = isinstance(node, Widget) and (node._pruning or not node.is_attached)
        if not self._exit and not (is_removed and isinstance(error, (NoMatches, dom.NoScreen))):
            self.failure = self.failure or error
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Leave the report to the caller of `run`: Textual prints hundreds of lines."""
        self._close_messages_no_wait()


class TextualFixesScreen:
    """Mixin for `Screen` and its subclasses; name it before them."""

    if TYPE_CHECKING:
        app: App[Any]
        is_mounted: bool
        call_later: Any

    def before_key(self, event: events.Key) -> None:
        """Move the focus to where a key belongs, before it is sent there; so that a burst of keys keeps its order."""

    def dismiss(self, result: Any = None) -> await_complete.AwaitComplete:
        """Close this screen once it is mounted, and only while it is on top: Textual pops any screen that is there."""
        if self.app.screen is not self:  # type: ignore[comparison-overlap]
            return await_complete.AwaitComplete()
        if not self.is_mounted:
            self.call_later(self._dismiss_when_mounted, result)
            return await_complete.AwaitComplete()
        closing: await_complete.AwaitComplete = super().dismiss(result)  # type: ignore[misc]
        return closing

    def _dismiss_when_mounted(self, result: Any) -> None:
        self.dismiss(result)  # not returned: a screen cannot await its own dismissal

    async def _on_resize(self, event: events.Resize) -> None:
        """Ignore a size that the terminal no longer has: two sizes in quick succession alternate for ever."""
        if event.size != self.app.size:
            event.prevent_default()

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Any]:
        """Return the widget at a coordinate, unless it is removed, which fails when text in it is selected."""
        widget, offset = super().get_widget_and_offset_at(x, y)  # type: ignore[misc]
        return (widget, offset) if widget is None or widget.parent is not None else (None, None)


class _OptionListFix:
    """Option list mixin: clicks on rows that are gone, and page keys while no row is visible, do nothing."""

    if TYPE_CHECKING:
        option_count: int
        scrollable_content_region: Any

    async def _on_click(self, event: events.Click) -> None:
        if event.style.meta.get("option", -1) >= self.option_count:
            event.prevent_default()

    def _move_page(self, direction: Literal[-1, 1]) -> None:
        if self.scrollable_content_region:
            super()._move_page(direction)  # type: ignore[misc]


class RobustOptionList(_OptionListFix, widgets.OptionList):
    pass


class _RobustCommandList(_OptionListFix, command.CommandList):
    pass


command.CommandList = _RobustCommandList  # type: ignore[misc]  # `CommandPalette.compose` creates it by name


class RobustCommandPalette(TextualFixesScreen, command.CommandPalette):
    """Command palette that can be closed at any time, and follows the theme.

    Textual's searches for its list after it was closed, keeps its timers running, fails on a click outside a terminal
    that has become smaller, and is not restyled by a new theme, as `App.refresh_css` updates the screen below.
    """

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self._restyle)

    def _restyle(self, _: object) -> None:
        self.app.stylesheet.update(self)
        self.refresh(layout=True)

    def _on_click(self, event: events.Click) -> None:  # type: ignore[override]
        try:
            self.get_widget_at(event.screen_x, event.screen_y)
        except NoWidget:
            event.prevent_default()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return super().check_action(action, parameters) if self.query(command.CommandList) else False

    def dismiss(self, result: Any = None) -> await_complete.AwaitComplete:
        self._cancel_gather_commands()
        self._stop_no_matches_countdown()
        self._stop_busy_countdown()
        return super().dismiss(result)

    @work(exclusive=True, group=command.CommandPalette._GATHER_COMMANDS_GROUP)
    async def _gather_commands(self, search_value: str) -> None:
        try:
            await command.CommandPalette._gather_commands.__wrapped__(self, search_value)  # type: ignore[attr-defined]
        except NoMatches:
            if self.query(command.CommandList):
                raise


def paint(widget: Widget) -> None:
    """Paint a widget at once, before the work of other widgets, unless its screen is hidden or changes as a whole."""
    screen = widget.screen
    compositor, waiting = screen._compositor, screen._dirty_widgets.copy()
    if screen.is_current and not screen.app._batch_count and widget in compositor.visible_widgets:
        compositor.update_widgets({widget})
        screen._compositor_refresh()
        screen._dirty_widgets.update(waiting)  # they may have no place yet
