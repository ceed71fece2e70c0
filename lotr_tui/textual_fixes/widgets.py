"""Option lists, the command palette, and painting at once. No issue reports these defects."""

from typing import TYPE_CHECKING, Any, Literal

from textual import command, work
from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.css.query import NoMatches
from textual.errors import NoWidget
from textual.events import Click
from textual.theme import Theme
from textual.widget import Widget
from textual.widgets import OptionList

from lotr_tui.textual_fixes.app import TextualFixesScreen

if TYPE_CHECKING:
    from textual.geometry import Region


class _OptionListFix:
    """Option list mixin: clicks on rows that are gone, and page keys while no row is visible, do nothing."""

    if TYPE_CHECKING:
        option_count: int
        scrollable_content_region: Region

    async def _on_click(self, event: Click) -> None:
        if event.style.meta.get("option", -1) >= self.option_count:
            event.prevent_default()

    def _move_page(self, direction: Literal[-1, 1]) -> None:
        if self.scrollable_content_region:
            super()._move_page(direction)  # type: ignore[misc]


class RobustOptionList(_OptionListFix, OptionList):
    """Option list that ignores clicks on removed rows and page keys without rows."""


class _RobustCommandList(_OptionListFix, CommandList):
    pass


command.CommandList = _RobustCommandList  # type: ignore[misc]  # `CommandPalette.compose` creates it by name


class RobustCommandPalette(TextualFixesScreen, CommandPalette):
    """Command palette that can be closed at any time, and follows the theme.

    Textual's searches for its list after it was closed, keeps its timers running, fails on a click outside a terminal
    that has become smaller, and is not restyled by a new theme, as `App.refresh_css` updates the screen below.
    """

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self._restyle)

    def _restyle(self, _: Theme) -> None:
        self.app.stylesheet.update(self)
        self.refresh(layout=True)

    def _on_click(self, event: Click) -> None:  # type: ignore[override]
        try:
            self.get_widget_at(event.screen_x, event.screen_y)
        except NoWidget:
            event.prevent_default()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for every action while the palette is being closed."""
        return super().check_action(action, parameters) if self.query(CommandList) else False

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close the palette, and stop its search and its timers."""
        self._cancel_gather_commands()
        self._stop_no_matches_countdown()
        self._stop_busy_countdown()
        return super().dismiss(result)

    @work(exclusive=True, group=CommandPalette._GATHER_COMMANDS_GROUP)
    async def _gather_commands(self, search_value: str) -> None:
        try:
            await CommandPalette._gather_commands.__wrapped__(self, search_value)  # type: ignore[attr-defined]
        except NoMatches:
            if self.query(CommandList):
                raise


def paint(widget: Widget) -> None:
    """Paint a widget at once, unless its screen is hidden, not painted yet, or changes as a whole.

    Textual paints a changed widget after all that other widgets have to do, and at most 60 times a second.
    """
    screen = widget.screen
    compositor, waiting = screen._compositor, screen._dirty_widgets.copy()
    if screen.is_current and not screen.app._batch_count and widget in compositor.visible_widgets:
        compositor.update_widgets({widget})
        screen._compositor_refresh()
        screen._dirty_widgets.update(waiting)  # they may have no place yet
