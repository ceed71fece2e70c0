"""Label with the reply mode."""

from textual.message import Message
from textual.widgets import Label

from lotr_tui.session.settings import ReplyMode


class ReplyModeLabel(Label):
    """Reply mode of the session, "continue" or "reply"; a click asks for the other one."""

    HELP_LINE = "continue: the model continues your text; reply: it answers. F6 switches"
    DEFAULT_CSS = """
    ReplyModeLabel { width: auto; margin-left: 2; color: $muted; text-style: $muted-style; }
    """

    class Toggled(Message):
        """Posted when the label is clicked."""

    def __init__(self, reply_mode: ReplyMode, *, id: str | None = None) -> None:
        super().__init__(reply_mode, id=id, markup=False)

    def on_click(self) -> None:
        """Post `Toggled`."""
        self.post_message(self.Toggled())
