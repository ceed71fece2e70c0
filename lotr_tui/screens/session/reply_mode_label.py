"""Whether the model goes on behind the prompt or answers it."""

from textual.message import Message
from textual.widgets import Label

from lotr_tui.session.settings import Way


class WayLabel(Label):
    """Shows the way of playing; a click changes it."""

    DEFAULT_CSS = """
    WayLabel { width: auto; margin-left: 2; color: $foreground 60%; }
    """

    class Toggled(Message):
        """It was clicked."""

    def __init__(self, way: Way, *, id: str | None = None) -> None:
        super().__init__(way, id=id, markup=False)

    def on_click(self) -> None:
        """Tell the screen."""
        self.post_message(self.Toggled())
