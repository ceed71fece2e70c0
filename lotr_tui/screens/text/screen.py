"""What the screens that look at a text have in common."""

from textual.content import Content
from textual.screen import Screen

from lotr_tui.session.player import Player
from lotr_tui.textual_fixes.screen import Steady
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar


class TextScreen(Steady, Screen[None]):
    """What a model makes of a text: with which model one looks, and the way back."""

    def __init__(self, player: Player) -> None:
        """Look with the model of `player`."""
        super().__init__()
        self._player = player

    def show_title(self, title: str) -> None:
        """The first line: what the screen shows, and of which model."""
        left = Content.assemble(
            ("lotr-tui", "bold $accent"),
            "  ",
            (title, "bold"),
            (f" · {self._player.name} · {self._player.description}", MUTED),
        )
        self.query_one("#status", StatusBar).show(left)

    def action_close(self) -> None:
        """Back to where one came from."""
        self.dismiss()
