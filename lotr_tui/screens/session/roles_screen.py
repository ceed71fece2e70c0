"""Session screen with the roles of a conversation: who the user is, and who answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual import on

from engine.data.speakers import SOMEONE, STRANGER, display_name, find_speaker
from engine.errors import InvalidInputError, LotrError
from lotr_tui.screens.dialogs.questions import CastColumn, CastDialog
from lotr_tui.screens.session.best_of_label import BestOfLabel
from lotr_tui.screens.session.chat_screen import ChatSessionScreen
from lotr_tui.screens.session.reply_mode_label import ReplyModeLabel
from lotr_tui.screens.session.role_labels import RoleLabel, RoleLabels
from lotr_tui.screens.session.slash_commands.parsing import CAST_COMMANDS
from lotr_tui.screens.session.slash_commands.table import SlashCommand
from lotr_tui.session.cast import Roles, describe_unknown_name, read_name
from lotr_tui.session.settings import ReplyMode, check_best_of

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.generation.turns import SpeakerProb
    from lotr_tui.screens.session.who_answers_bars import WhoAnswersBars
    from lotr_tui.session.next_tokens import NextTokenContext
    from lotr_tui.session.session_model import SessionModel

SCENE_TURNS = 4
"""Turns that the command for a scene adds by default."""
MAX_SCENE_TURNS = 100
ANYONE = ("anyone", "anybody")
"""Words that let the model choose who answers."""
STRANGER_WORDS = ("stranger", "a stranger", "me")
"""Words that let the user be nobody of the cast."""
PLACEHOLDERS: dict[ReplyMode, str] = {"conversation": "say something; / lists commands"}
"""Placeholders of the prompt by reply mode, where they differ from the one of the prompt."""


class RolesSessionScreen(ChatSessionScreen):
    """Session screen that knows who speaks. The roles are kept in the settings."""

    _speaker_probs: "Sequence[SpeakerProb]" = ()
    """Probabilities of who answers the draft."""

    def _after_open(self) -> None:
        """Begin with a conversation if the model knows speakers, or else in the saved reply mode."""
        super()._after_open()
        self.reply_mode = self.session_model.reply_mode_at_start(self.app.settings_store.current.reply_mode)
        self._adapt_to_speakers()

    def set_session_model(self, session_model: "SessionModel", message: str = "") -> None:
        """Replace the model; begin with a conversation if the new one knows speakers and the old one does not."""
        if self.is_ready and (
            session_model.knows_speakers != self.knows_speakers
            or session_model.reply_modes != self.session_model.reply_modes
        ):
            self.reply_mode = session_model.reply_mode_at_start(self.app.settings_store.current.reply_mode)
        super().set_session_model(session_model, message)
        if self.is_ready:
            self._adapt_to_speakers()

    def _adapt_to_speakers(self) -> None:
        """Show the roles of a conversation if the model knows speakers."""
        chat = self.session_model.chat
        self._first_steps.set_hints("conversation" if self.knows_speakers else "plain" if chat is None else "chat")
        self._panes.conversation.set_names(self._cast, "" if chat is None else self.session_model.label)
        self._panes.conversation.set_welcome(self.session_model.welcome_text())
        self._show_roles()
        self.refresh_bindings()

    # Roles

    @property
    def knows_speakers(self) -> bool:
        """True if the model has a cast."""
        return bool(self._cast)

    @property
    def _cast(self) -> tuple[str, ...]:
        return self.session_model.cast if self.is_ready else ()

    @property
    def roles(self) -> Roles:
        """Saved roles of the user and of the model."""
        settings = self.model_settings
        return Roles(settings.speaking_as, settings.answering, self.app.settings_store.current.system_prompt)

    def next_roles(self) -> Roles:
        """Return the roles of the next line and its answer, which the likeliest speaker says if none is chosen."""
        roles = self.roles
        if not roles.speaker and self.reply_mode == "conversation" and self._speaker_probs:
            return roles._replace(speaker=self._speaker_probs[0].name)
        return roles

    def set_roles(self, roles: Roles) -> None:
        """Use other roles from the next line on."""
        self.change_model_settings(answering=roles.speaker, speaking_as=roles.speaking_as)
        self._first_steps.finish("cast")
        self._show_roles()
        self._update_keys()

    def _show_roles(self) -> None:
        """Show the roles and the reply mode around the prompt, and what they change in the previews."""
        labels, roles, best_of = self.query_one(RoleLabels), self.roles, self.model_settings.best_of
        chat = self.session_model.chat
        if chat is not None and self.is_chatting:
            labels.show_chat(roles.system_prompt or chat.default_system_prompt)
        else:
            labels.show(self._cast, roles.speaking_as, roles.speaker, self.reply_mode, best_of)
        self._panes.conversation.best_of = best_of
        self._panes.side.set_class(self.reply_mode == "conversation" and self.knows_speakers, "-conversation")
        self._prompt.set_placeholder(PLACEHOLDERS.get(self.reply_mode))
        self._update_prompt_mark()
        self._show_preview()

    def _show_context(self, context: "NextTokenContext") -> None:
        """Show what can come next, and who answers."""
        if context.speakers:
            self._speaker_probs = context.speakers
            self._panes.who_answers.show(context.speakers, self._cast, self.roles.speaker)
        super()._show_context(context)

    def _update_prompt_mark(self) -> None:
        """Show the reply mode and an edit before the prompt."""
        raise NotImplementedError

    @on(RoleLabel.Clicked, "#as")
    def _change_own_role(self) -> None:
        self.action_choose_cast("speaking-as")

    @on(RoleLabel.Clicked, "#to")
    def _change_answering(self) -> None:
        self.action_choose_cast("answering")

    def action_choose_cast(self, column: CastColumn = "answering") -> None:
        """Ask who answers, or who the user is."""
        if not self.knows_speakers:
            self.action_edit_system_prompt()
            return

        def use(choice: Roles | None) -> None:
            if choice is not None:
                self.set_roles(choice)

        cast = self._cast
        people = [name for name in cast if name not in (STRANGER, SOMEONE)]
        probs = {speaker.name: speaker.prob for speaker in self._speaker_probs}
        self.app.push_screen(CastDialog(cast, [*people, SOMEONE], people, self.roles, probs, column), use)

    def on_who_answers_bars_speaker_selected(self, event: "WhoAnswersBars.SpeakerSelected") -> None:
        """Let the clicked speaker answer."""
        self.set_roles(self.roles._replace(speaker=event.name))

    # Reply mode

    @on(ReplyModeLabel.Toggled)
    def action_toggle_reply_mode(self) -> None:
        """Switch between continuing the prompt and answering it, in a conversation if the model knows speakers."""
        modes = self.session_model.reply_modes
        self.reply_mode = modes[(modes.index(self.reply_mode) + 1) % len(modes)]
        # The first mode of a model without speakers must not keep the next session from being a conversation.
        self.app.update_settings(reply_mode="conversation" if self.reply_mode == modes[0] else self.reply_mode)
        self._show_roles()
        self._update_keys()
        if self.reply_mode == "reply":
            self._panes.conversation.explain_reply_mode(self.session_model)

    def _footer_words(self) -> dict[str, str]:
        """Return the words of the footer for a conversation, or else those of the base class."""
        if not self.knows_speakers:
            words = {"cast": "system", "mode": "continue" if self.reply_mode == "conversation" else "talk"}
            return super()._footer_words() | (words if self._is_chat_model else {})
        is_conversation = self.reply_mode == "conversation"
        words = {"more": "go on", "mode": "continue"} if is_conversation else {"mode": "talk"}
        return super()._footer_words() | words

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for the actions of a conversation without speakers; see also the base class."""
        if action == "go_on" and self.is_ready and not self.knows_speakers:
            return False
        if action == "choose_cast" and self.is_ready and not (self.knows_speakers or self._is_chat_model):
            return False
        return super().check_action(action, parameters)

    # Turns

    async def action_continue(self) -> None:
        """Add the next turn of the conversation, or in the other modes continue the reply."""
        self._first_steps.finish("again")
        if self.reply_mode == "conversation" and self.knows_speakers:
            self.action_go_on(1, self._next_cast())  # after the whole conversation, wherever the cursor is
        else:
            await self._panes.conversation.run_action("continue_reply")

    def _next_cast(self) -> tuple[str, ...] | None:
        """Return who can speak in the next turn: who is chosen to answer, or else the whole cast (None)."""
        return (self.roles.speaker,) if self.roles.speaker else None

    def action_go_on(self, num_turns: int = SCENE_TURNS, cast: Sequence[str] | None = None) -> None:
        """Add turns without the user, by speakers of `cast` (None: by the whole cast), in conversation mode."""
        if self.reply_mode != "conversation":
            self.action_toggle_reply_mode()
        try:
            self._panes.conversation.go_on(self.session_model, cast, num_turns, self._previous_reply())
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    async def action_regenerate(self) -> None:
        """Answer again with another seed."""
        self._first_steps.finish("again")
        await self._panes.conversation.run_action("regenerate")

    # Number of answers

    @on(BestOfLabel.Clicked)
    def _next_best_of(self, event: BestOfLabel.Clicked) -> None:
        self._set_best_of(event.next_number)

    def _set_best_of(self, number: int) -> None:
        self.change_model_settings(best_of=number)
        self._show_roles()

    # Commands

    def _argument_choices(self, command: SlashCommand) -> Sequence[str]:
        """Return the names of the cast for the commands that take one; see also the base class."""
        names = [display_name(name) for name in self._cast]
        if command.name in CAST_COMMANDS:
            others = {"to": ANYONE[:1], "again": ANYONE[:1], "as": STRANGER_WORDS[:1]}
            return [*names, *others.get(command.name, ())]
        return ("auto",) if command.name == "best" else super()._argument_choices(command)

    def _run_with_argument(self, command: SlashCommand, argument: str) -> None:
        if command.name not in (*CAST_COMMANDS, "best"):
            super()._run_with_argument(command, argument)
            return
        if not self.knows_speakers:
            raise self._unavailable(command)
        match command.name:
            case "as":
                self.set_roles(self.roles._replace(speaking_as=self._read_role(argument, STRANGER_WORDS)))
            case "to":
                self.set_roles(self.roles._replace(speaker=self._read_role(argument, ANYONE)))
            case "scene":
                num_turns, cast = parse_scene(argument, self._cast)
                self.action_go_on(num_turns, cast)
            case "best":
                self._set_best_of(_parse_best_of(argument))
            case "again":
                self._panes.conversation.answer_as(self._read_role(argument, ANYONE))

    def _read_role(self, argument: str, nobody: Sequence[str]) -> str:
        """Return the speaker that an argument names, in the cast or not, or "" for one of the words for `nobody`."""
        name = "" if argument.casefold() in nobody else read_name(argument, self._cast)
        if note := describe_unknown_name(name, self._cast):
            self.notify(note, markup=False)
        return name

    def _unavailable(self, command: SlashCommand) -> InvalidInputError:
        """Return the error for a command that the model of the session has no use for."""
        if command.name in ("tokens", "system") or not self.is_ready:
            return super()._unavailable(command)
        return InvalidInputError(
            f"/{command.name} needs a model that knows speakers: /model bundled, or train one with --mode dialogue"
        )


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


def _parse_best_of(argument: str) -> int:
    """Return the number of answers to draw; 0 for the number of the model."""
    if argument.casefold() == "auto":
        return 0
    if not argument.isdecimal() or len(argument) > 9:
        raise InvalidInputError(f"{argument[:20]!r} is no number of answers; use auto or a number from 1")
    number = int(argument)
    check_best_of(number)
    return number
