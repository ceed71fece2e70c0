"""Line above the prompt: who the user is, who answers, and how."""

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Label

from engine.data.speakers import display_name
from engine.errors import printable
from lotr_tui.formatting import truncate
from lotr_tui.session.cast import A_STRANGER, MAX_NAME_WIDTH, UNCAST_STYLE, Roles, speaker_style
from lotr_tui.session.settings import ReplyMode
from lotr_tui.theme import MUTED

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from lotr_tui.session.session_model import SessionModel

_ACTIONS = {  # of the screen, that a click on a label runs
    "as": "call('side.ask_roles', 'speaking-as')",
    "to": "call('side.ask_roles')",
    "system": "call('side.ask_roles')",
    "reply-mode": "call('slot.next_mode')",
    "best-of": "call('slot.next_best_of')",
}


class RoleLabel(Label):
    """Text that says how the next reply is made; a click changes that."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._action = _ACTIONS[id]

    async def on_click(self) -> None:
        await self.app.run_action(self._action, self.screen)


class RoleLabels(Horizontal):
    """Labels for the reply mode, and in a conversation for who speaks, who is spoken to and the number of answers."""

    DEFAULT_CSS = """
    RoleLabels { height: 1; padding: 0 1; }
    RoleLabels RoleLabel { width: auto; margin-right: 3; }
    RoleLabels #system { max-width: 70%; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def compose(self) -> ComposeResult:
        yield from map(RoleLabel, _ACTIONS)

    def show(self, model: "SessionModel", roles: Roles, mode: ReplyMode, best_of: int) -> None:
        """Show the roles in a conversation with a cast, the system prompt of a chat, and the reply mode."""
        cast, chat = model.cast, model.chat if mode == "conversation" else None

        def name(relation: str, name: str, unnamed: str) -> Content:
            style = speaker_style(name, cast)
            color = "" if style == UNCAST_STYLE else f" ${style}"
            shown = (truncate(display_name(name), MAX_NAME_WIDTH), f"bold{color}") if name else (unnamed, MUTED)
            return Content.assemble((f"{relation} ", MUTED), shown)

        texts = {"reply-mode": Content.styled(mode, MUTED)}
        if chat is not None:
            system = printable(roles.system_prompt or chat.default_system_prompt)
            texts["system"] = Content.assemble(("system ", MUTED), system or ("none", MUTED))
        elif cast and mode == "conversation":
            texts["as"] = name("as", roles.speaking_as, A_STRANGER)
            texts["to"] = name("to", roles.speaker, "anyone")
            number = "first answer" if best_of == 1 else f"best of {best_of or 'auto'}"
            texts["best-of"] = Content.styled(number, MUTED)
        elif cast:
            texts["to"] = name("a line of", roles.speaker, A_STRANGER)
        for label in self.query(RoleLabel):
            label.display = label.id in texts
            label.update(texts.get(label.id or "", Content("")))
