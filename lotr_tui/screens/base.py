"""Base class of the screens that use the app: its settings, training and navigation."""

from typing import TYPE_CHECKING, TypeVar

from textual.screen import Screen

from lotr_tui.app_base import LotrAppBase
from lotr_tui.textual_fixes.app import TextualFixesScreen

ResultT = TypeVar("ResultT")


class AppScreen(TextualFixesScreen, Screen[ResultT]):
    """Screen of `LotrApp`, dismissed with a result of type `ResultT`."""

    if TYPE_CHECKING:

        @property
        def app(self) -> LotrAppBase:  # type: ignore[override]
            """Return the app."""

    def save_again(self) -> str:
        """Try to save what could not be saved. Return the reason why it would be lost, or an empty text."""
        return ""

    def on_resize(self) -> None:
        """Update the footer: some keys work on narrow terminals only, and Textual sets the width classes last."""
        self.call_later(self.refresh_bindings)
