"""The command palette fails when it is closed while it searches, on a smaller terminal, or when the theme changes.

Seen in Textual 8.2.8.

- The search starts in a worker and looks for its list even after the palette was closed: `NoMatches`.
- The countdown to "No matches found" and the busy indicator keep running after the palette was closed.
- Page keys reach a palette whose list is already removed.
- A click outside a terminal that has become smaller raises `NoWidget`.
- A theme that changes while the palette is open does not restyle the palette: `App.refresh_css` updates the screen
  below a system modal screen, as `App.children` does, and all other screens but the active one.
- `CommandPalette.compose` creates its `CommandList` by name, so a subclass cannot replace the list.

Upstream, `CommandPalette.dismiss` would have to stop its workers and timers, `_on_click` would have to handle
`NoWidget`, `App.refresh_css` would have to update `App.screen`, and the class of the list should be an attribute.
"""

from typing import Any

from textual import command, work
from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.css.query import NoMatches
from textual.errors import NoWidget
from textual.events import Click
from textual.theme import Theme

from lotr_tui.textual_fixes.option_list import RobustCommandList
from lotr_tui.textual_fixes.screen import TextualFixesScreen

command.CommandList = RobustCommandList  # type: ignore[misc]


class RobustCommandPalette(TextualFixesScreen, CommandPalette):
    """Command palette that can be closed at any time, and follows the theme."""

    def on_mount(self) -> None:
        """Follow the theme."""
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
