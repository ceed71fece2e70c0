"""Base class of the screens of the app."""

from collections.abc import Callable
from typing import TypeVar

from textual.screen import Screen

from lotr_tui.app_state import AppState
from lotr_tui.textual_fixes.app import TextualFixesScreen

ResultT = TypeVar("ResultT")


class AppScreen(TextualFixesScreen, Screen[ResultT]):
    """Screen of `LotrApp`, dismissed with a result of type `ResultT`."""

    @property
    def state(self) -> AppState:
        state: AppState = self.app.state  # type: ignore[attr-defined]  # `LotrApp` imports the screens
        return state

    def choose_run(self, on_chosen: Callable[[str], object]) -> None:
        """Show the runs, and pass the name or the path of the selected one to `on_chosen`."""
        from lotr_tui.screens.runs.screen import RunsScreen  # imports numpy, which the first paint does not need

        def choose(name: str | None) -> None:
            if name is not None:
                on_chosen(name)

        self.app.push_screen(RunsScreen(self.state.runs_dir), choose)

    def save_again(self) -> str:
        """Try to save what could not be saved. Return the reason why it would be lost, or an empty text."""
        return ""

    def on_resize(self) -> None:
        """Update the footer: some keys work on narrow terminals only, and Textual sets the width classes last."""
        self.call_later(self.refresh_bindings)
