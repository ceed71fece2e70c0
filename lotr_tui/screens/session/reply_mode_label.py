"""Label with the reply mode."""

from textual.message import Message
from textual.widgets import Label

from lotr_tui.session.settings import ReplyMode

HELP_LINES: dict[ReplyMode, str] = {
    "conversation": "conversation: a speaker or the model answers. F6 switches",
    "continue": "continue: the model continues your text. F6 switches",
    "reply": "reply: the model answers, without speakers. F6 switches",
}


class ReplyModeLabel(Label):
    """Reply mode of the session; a click asks for the next one. The label is empty before a model is loaded."""

    DEFAULT_CSS = """
    ReplyModeLabel { width: auto; color: $muted; text-style: $muted-style; }
    """

    class Toggled(Message):
        """Posted when the label is clicked."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self._reply_mode: ReplyMode | None = None

    def show(self, reply_mode: ReplyMode) -> None:
        """Show a reply mode."""
        self._reply_mode = reply_mode
        self.update(reply_mode)

    def get_help_line(self) -> str:
        """Return what the reply mode means; "" before there is one."""
        return "" if self._reply_mode is None else HELP_LINES[self._reply_mode]

    def on_click(self) -> None:
        """Post `Toggled`."""
        self.post_message(self.Toggled())
