"""Line above the prompt: who the user is, who answers, and how."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Label

from engine.data.speakers import display_name
from engine.errors import printable
from lotr_tui.formatting import truncate
from lotr_tui.screens.session.best_of_label import BestOfLabel
from lotr_tui.screens.session.reply_mode_label import ReplyModeLabel
from lotr_tui.session.cast import A_STRANGER, MAX_NAME_WIDTH, UNCAST_STYLE, speaker_style
from lotr_tui.session.settings import ReplyMode
from lotr_tui.theme import MUTED


class RoleLabel(Label):
    """Role of the user or of the model; a click asks for another one."""

    DEFAULT_CSS = "RoleLabel { width: auto; margin-right: 3; }"

    class Clicked(Message):
        """Posted when the label is clicked."""

        def __init__(self, label: "RoleLabel") -> None:
            super().__init__()
            self.label = label

        @property
        def control(self) -> "RoleLabel":
            """The label, for the selectors of `textual.on`."""
            return self.label

    def __init__(self, help_line: str, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._help_line = help_line

    def get_help_line(self) -> str:
        """Return what the role means, and which key changes it."""
        return self._help_line

    def on_click(self) -> None:
        """Post `Clicked`."""
        self.post_message(self.Clicked(self))

    def show_text(self, relation: str, text: str, unnamed: str) -> None:
        """Show a text after a `relation` such as "system"; without a text, show `unnamed`."""
        self.update(Content.assemble((f"{relation} ", MUTED), text or (unnamed, MUTED)))

    def show(self, relation: str, name: str, unnamed: str, cast: Sequence[str]) -> None:
        """Show a member of the cast in its colour after a `relation` such as "to"; without a name, show `unnamed`."""
        if not name:
            self.update(Content.styled(f"{relation} {unnamed}", MUTED))
            return
        style = speaker_style(name, cast)
        color = "" if style == UNCAST_STYLE else f" ${style}"
        shown = truncate(display_name(name), MAX_NAME_WIDTH)
        self.update(Content.assemble((f"{relation} ", MUTED), (shown, f"bold{color}")))


class RoleLabels(Horizontal):
    """Labels for the reply mode, and in a conversation for the role of the user and the speaker who answers."""

    DEFAULT_CSS = """
    RoleLabels {
        height: 1;
        padding: 0 1;
    }
    RoleLabels #system { max-width: 70%; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._speaking_as = RoleLabel("Who you are in the conversation; ctrl+d or a click changes it", id="as")
        self._answering = RoleLabel("Who answers; ctrl+d or a click changes it", id="to")
        self._system = RoleLabel("Who the model is; /system, ctrl+d or a click changes it", id="system")
        self._reply_mode = ReplyModeLabel(id="reply-mode")
        self._best_of = BestOfLabel(id="best-of")

    def compose(self) -> ComposeResult:
        """Create the labels."""
        yield self._speaking_as
        yield self._answering
        yield self._system
        yield self._reply_mode
        yield self._best_of

    def show(self, cast: Sequence[str], speaking_as: str, answering: str, reply_mode: ReplyMode, best_of: int) -> None:
        """Show the roles, each a name or "", the reply mode and the number of answers.

        A model with an empty cast knows no speakers, so that it has no roles.
        """
        is_conversation = reply_mode == "conversation"
        self._system.display = False
        self._speaking_as.display = is_conversation
        self._speaking_as.show("as", speaking_as, A_STRANGER, cast)
        self._answering.display = bool(cast)
        if is_conversation:
            self._answering.show("to", answering, "anyone", cast)
        else:
            self._answering.show("a line of", answering, "someone", cast)
        self._reply_mode.show(reply_mode)
        self._best_of.display = is_conversation
        self._best_of.show(best_of)

    def show_chat(self, system_prompt: str) -> None:
        """Show the system prompt of a conversation with a model that has a chat template; "" for none."""
        self._speaking_as.display = self._answering.display = self._best_of.display = False
        self._system.display = True
        self._system.show_text("system", printable(system_prompt), "none")
        self._reply_mode.show("conversation")
