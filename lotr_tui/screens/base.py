"""Base class of the screens of the app."""

from typing import TypeVar

from textual.screen import Screen

from lotr_tui.app_state import AppState
from lotr_tui.textual_fixes.app import TextualFixesScreen

ResultT = TypeVar("ResultT")
ONE_TRAINING = "One training at a time in this program; start another with `lotr-tui train`."


class AppScreen(TextualFixesScreen, Screen[ResultT]):
    """Screen of `LotrApp`, dismissed with a result of type `ResultT`."""

    @property
    def state(self) -> AppState:
        state: AppState = self.app.state  # type: ignore[attr-defined]  # `LotrApp` imports the screens
        return state

    def save_again(self) -> str:
        """Try to save what could not be saved. Return the reason why it would be lost, or an empty text."""
        return ""

    def on_resize(self) -> None:
        """Update the footer: some keys work on narrow terminals only, and Textual sets the width classes last."""
        self.call_later(self.refresh_bindings)
