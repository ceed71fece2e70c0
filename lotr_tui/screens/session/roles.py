"""Line above the prompt: who the user is, who answers, and how; and what is typed about them."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Label

from engine.data.speakers import display_name, find_speaker
from engine.errors import InvalidInputError, printable
from lotr_tui.formatting import truncate
from lotr_tui.session.cast import A_STRANGER, MAX_NAME_WIDTH, UNCAST_STYLE, Roles, speaker_style
from lotr_tui.session.settings import ReplyMode, check_best_of
from lotr_tui.theme import MUTED

SCENE_TURNS = 4  # that a scene adds by default
MAX_SCENE_TURNS = 100
ANYONE = ("anyone", "anybody")  # words that let the model choose who answers
STRANGER_WORDS = (A_STRANGER, "stranger", "me")  # words that let the user be nobody of the cast
MODE_HELP = {
    "conversation": "conversation: a speaker or the model answers; a click or /set mode switches",
    "continue": "continue: the model continues your text; a click or /set mode switches",
    "reply": "reply: the model answers, without speakers; a click or /set mode switches",
}


class RoleLabel(Label):
    """Text that says how the next reply is made; a click runs an action of the screen."""

    DEFAULT_CSS = "RoleLabel { width: auto; margin-right: 3; }"

    def __init__(self, help_line: str, action: str, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self.help_line, self._action = help_line, action

    def get_help_line(self) -> str:
        return self.help_line

    async def on_click(self) -> None:
        await self.app.run_action(self._action, self.screen)

    def show(self, relation: str, name: str, unnamed: str, cast: Sequence[str] = ()) -> None:
        """Show a name after a `relation` such as "to", a member of the cast in its colour; without one, `unnamed`."""
        style = speaker_style(name, cast)
        color = "" if style == UNCAST_STYLE else f" ${style}"
        shown = (truncate(display_name(name), MAX_NAME_WIDTH), f"bold{color}") if name else (unnamed, MUTED)
        self.update(Content.assemble((f"{relation} ", MUTED), shown))
        self.display = True


class RoleLabels(Horizontal):
    """Labels for the reply mode, and in a conversation for who speaks, who is spoken to and the number of answers."""

    DEFAULT_CSS = """
    RoleLabels { height: 1; padding: 0 1; }
    RoleLabels #system { max-width: 70%; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._as = RoleLabel("Who you are; /as NAME or a click changes it", "choose_cast('speaking-as')", id="as")
        self._to = RoleLabel("Who answers; /to NAME or a click changes it", "choose_cast('answering')", id="to")
        self._system = RoleLabel("Who the model is; /system TEXT or a click changes it", "choose_cast", id="system")
        self._mode = RoleLabel("", "next_mode", id="reply-mode")
        self._best_of = RoleLabel(
            "Answers that are drawn; the most relevant is shown; /set answers N", "next_best_of", id="best-of"
        )

    def compose(self) -> ComposeResult:
        yield from (self._as, self._to, self._system, self._mode, self._best_of)

    def show(self, cast: Sequence[str], roles: Roles, mode: ReplyMode, best_of: int, *, is_chat: bool) -> None:
        """Show the roles in a conversation with a cast, the system prompt of a chat, and the reply mode."""
        for label in (self._as, self._to, self._system, self._best_of):
            label.display = False
        self._mode.help_line = MODE_HELP[mode]
        self._mode.update(Content.styled(mode, MUTED))
        if is_chat:
            system = printable(roles.system_prompt)
            self._system.update(Content.assemble(("system ", MUTED), system or ("none", MUTED)))
            self._system.display = True
        elif cast and mode == "conversation":
            self._as.show("as", roles.speaking_as, A_STRANGER, cast)
            self._to.show("to", roles.speaker, "anyone", cast)
            text = "first answer" if best_of == 1 else f"best of {best_of or 'auto'}"
            self._best_of.update(Content.styled(text, MUTED))
            self._best_of.display = True
        elif cast:
            self._to.show("a line of", roles.speaker, A_STRANGER, cast)


def parse_scene(argument: str, cast: Sequence[str]) -> tuple[int, tuple[str, ...] | None]:
    """Return the number of turns and the speakers of a typed scene, such as `6 Frodo, Sam`; None for all speakers.

    Raises:
        InvalidInputError: If the number is out of range, or a name is not in the cast.
    """
    number, _, names = argument.partition(" ")
    if not number.isdecimal():
        number, names = str(SCENE_TURNS), argument
    num_turns = int(number) if len(number) < 10 else 0
    if not 1 <= num_turns <= MAX_SCENE_TURNS:
        raise InvalidInputError(f"{number[:20]} turns is out of range; use 1 to {MAX_SCENE_TURNS}")
    found = tuple(dict.fromkeys(find_speaker(name, cast) for name in names.split(",") if name.strip()))
    return num_turns, found or None


def parse_best_of(argument: str) -> int:
    """Return the number of answers to draw; 0 for the number of the model."""
    if argument.casefold() == "auto":
        return 0
    if not argument.isdecimal() or len(argument) > 9:
        raise InvalidInputError(f"{argument[:20]!r} is no number of answers; use auto or a number from 1")
    check_best_of(int(argument))
    return int(argument)
