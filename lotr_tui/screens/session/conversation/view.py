"""Conversation pane with the actions on its replies: regenerate, continue, branch, compare, rename and copy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.message import Message

from engine.data.tokenizers.base import EOS, UNK
from engine.errors import LotrError
from engine.generation.settings import SamplerSettings
from lotr_tui.clipboard import copy_to_clipboard
from lotr_tui.formatting import format_lone_token
from lotr_tui.screens.dialogs.questions import NameDialog
from lotr_tui.screens.session.conversation.bindings import CONVERSATION_BINDINGS
from lotr_tui.screens.session.conversation.saved_sessions_pane import SavedSessionsPane
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.session.cast import NO_ROLES, Roles
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.read_text import TextReader
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import REPLY_MODE_NOTE, ReplyMode

SettingsProvider = Callable[[], tuple[SamplerSettings, int]]
"""Function that returns the sampler settings and a seed, and raises InvalidInputError if a control is out of range."""


class ConversationView(SavedSessionsPane):
    """Conversation pane whose actions apply to the reply under the cursor, or without a cursor to the latest one."""

    BINDING_GROUP_TITLE = "Conversation"
    BINDINGS: ClassVar[list[BindingType]] = CONVERSATION_BINDINGS

    class EditRequested(Message):
        """Posted when the prompt of a reply is to be edited."""

        def __init__(self, reply: Reply) -> None:
            super().__init__()
            self.reply = reply

    def __init__(self, welcome: str, pace: float, get_settings: SettingsProvider, *, id: str | None = None) -> None:
        """Start an empty conversation, whose replies use the settings that `get_settings` returns."""
        super().__init__(welcome, pace, id=id)
        self._get_settings = get_settings
        self.best_of = 0
        """Number of answers that are drawn for a turn of a conversation; 0 draws several where that is fast."""
        self._explained_models: set[str] = set()
        """Names of the models whose limits in reply mode are noted in this session."""

    def send(
        self,
        session_model: SessionModel,
        text: str,
        reply_mode: ReplyMode,
        previous_reply: Reply | None,
        roles: Roles = NO_ROLES,
        reader: TextReader | None = None,
    ) -> None:
        """Let a model continue or answer a prompt, after `previous_reply` or at the start of a text.

        A model that knows speakers continues the prompt as a line of the speaker in `roles`, or else of someone.
        `reader` may have read a part of the text already.

        Raises:
            LotrError: If the prompt has no known word, a control is out of range, or a reply is being written.
        """
        shown = _reply_after(previous_reply)
        settings, seed = self._get_settings()
        reply = self.conversation.submit_prompt(
            session_model,
            text,
            reply_mode,
            settings,
            seed,
            previous_reply,
            roles,
            reader,
        )
        if reply_mode == "reply":
            self.explain_reply_mode(session_model)
        self.show_new_reply(reply, shown)

    def say(self, session_model: SessionModel, text: str, roles: Roles, previous_reply: Reply | None) -> None:
        """Say a line to a model that knows speakers, after `previous_reply` or at the start of a scene.

        Args:
            session_model: Model with a cast.
            text: The line.
            roles: Who says it, and who answers; empty lets the model choose.
            previous_reply: Reply that the line follows.

        Raises:
            LotrError: If the line has no known word, a control is out of range, or a reply is being written.
        """
        shown = _reply_after(previous_reply)
        settings, seed = self._get_settings()
        reply = self.conversation.say(session_model, text, roles, settings, seed, previous_reply, self.best_of)
        self.show_new_reply(reply, shown)

    def go_on(
        self, session_model: SessionModel, cast: Sequence[str] | None, num_turns: int, previous_reply: Reply | None
    ) -> None:
        """Add turns without the user, by speakers of `cast` (None: by all) after `previous_reply`.

        Raises:
            LotrError: If a control is out of range, or a reply is being written.
        """
        shown = _reply_after(previous_reply)
        settings, seed = self._get_settings()
        reply = self.conversation.go_on(session_model, cast, num_turns, settings, seed, previous_reply, self.best_of)
        self.show_new_reply(reply, shown)

    def answer_as(self, speaker: str) -> None:
        """Answer again as a speaker, or as whom the model chooses (empty), as another branch of the turn."""
        reply = self.target_reply
        if reply is None:
            self.notify("There is no reply yet; say something first.")
        elif reply.reply_mode != "conversation" or reply.is_chat:
            self.notify("Only an answer of a conversation has a speaker; F6 starts one.")
        else:
            answer = self.conversation.answer_as
            self._start(reply, lambda settings, seed: answer(reply, speaker, settings, seed, self.best_of), 0)

    def explain_reply_mode(self, session_model: SessionModel) -> None:
        """Add a note about what to expect of a model in reply mode, once for each session and model."""
        name = session_model.name
        if name in self._explained_models or (session_model.predicts_eos and session_model.answers_depend_on_prompt):
            return
        self._explained_models.add(name)
        if session_model.is_by_others:
            self.add_note(f"Reply mode: {session_model.chat_problem}; it continues your text after a line break.")
        elif session_model.predicts_eos:
            self.add_note(f"Reply mode: {REPLY_MODE_NOTE}.")
        else:
            self.add_note(f"Reply mode: {name} was trained without line ends, so it rarely answers, or stops.")

    def _show_conversation(self, conversation: Conversation) -> None:
        self._explained_models.clear()
        self._noted_contexts.clear()
        super()._show_conversation(conversation)

    def action_regenerate(self) -> None:
        """Regenerate the reply with another seed, as the same speaker."""
        reply = self.target_reply
        if reply is not None and reply.speaker and reply.reply_mode == "conversation":
            self.answer_as(reply.speaker)
        elif reply is not None:
            self._branch(reply, 0)

    def action_continue_reply(self) -> None:
        """Keep going after the last word of the reply, on a new line if the model has ended the line."""
        reply = self.target_reply
        if reply is not None:
            self._start(
                reply, partial(self.conversation.continue_reply, reply), len(reply.tokens) + reply.has_ended_line
            )

    def action_edit_prompt(self) -> None:
        """Edit the prompt of the reply."""
        if self.target_reply is not None:
            self.post_message(self.EditRequested(self.target_reply))

    def action_copy_reply(self) -> None:
        """Copy the prompt and its reply to the terminal's clipboard."""
        text = "" if self.target_reply is None else self.target_reply.text()
        self.notify(copy_to_clipboard(self.app, text), markup=False)

    # Branches

    @on(Transcript.TokenActivated)
    def action_branch_highlighted(self) -> None:
        """Branch to the highlighted alternative."""
        self.action_branch(self.highlighted)

    def action_branch(self, number: int) -> None:
        """Branch to an alternative of the word under the cursor, counted from 1."""
        inspected, cursor, reply = self._inspected, self.transcript.cursor, self.target_reply
        if inspected is None or cursor is None or reply is None or number > len(inspected.alternatives):
            return
        candidate, unit = inspected.alternatives[number - 1], inspected.preview.candidate_unit
        name = repr(format_lone_token(candidate.text))
        if reply.read_only_reason:
            self.notify(reply.read_only_reason, severity="warning", markup=False)
        elif candidate.text == inspected.written_text:
            self.notify(f"{name} is already the {unit} here; choose another one.", markup=False)
        elif candidate.text in (EOS, UNK):
            self.notify(f"{name} is not a {unit}; choose another one to branch to.", markup=False)
        else:
            self._branch(reply, cursor[1], candidate.ids, ends_word=unit == "word")

    def action_step_branch(self, offset: int) -> None:
        """Show the next or previous branch."""
        reply = self.target_reply
        if reply is not None:
            replies = reply.turn.replies
            self._switch_branch(reply, replies[(replies.index(reply) + offset) % len(replies)])

    def action_parent_branch(self) -> None:
        """Show the branch that this one starts from."""
        reply = self.target_reply
        parent = None if reply is None or reply.starts_turn else reply.parent
        if reply is not None and parent is not None and parent in reply.turn.replies:
            self._switch_branch(reply, parent)

    def action_toggle_comparison(self) -> None:
        """Show or hide all other branches below this one."""
        reply = self.target_reply
        if reply is None:
            return
        if not reply.shows_branches and len(reply.turn.replies) == 1:
            self.notify("There is no other branch to compare with.")
            return
        reply.shows_branches = not reply.shows_branches
        self.transcript.refresh_entry(self._entry_index(reply))

    def action_rename_branch(self) -> None:
        """Ask for the name of the branch."""
        reply = self.target_reply
        if reply is None:
            return

        def rename(name: str | None) -> None:
            if name is not None:
                self.conversation.rename_branch(reply, name)
                self.transcript.refresh_entry(self._entry_index(reply))

        self.app.push_screen(NameDialog(reply.name), rename)

    def _branch(
        self, reply: Reply, token_index: int, forced_ids: Sequence[int] = (), *, ends_word: bool = False
    ) -> None:
        """Generate the reply again from a token on, with other tokens there: see `Conversation.branch`."""
        start = partial(self.conversation.branch, reply, token_index, forced_ids, ends_word=ends_word)
        self._start(reply, start, token_index)

    def _start(self, reply: Reply, start: Callable[[SamplerSettings, int], Reply], token_index: int) -> None:
        """Show a new reply in the place of `reply`; a cursor moves to its token `token_index` once that is written."""
        try:
            new = start(*self._get_settings())
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        has_cursor = self.transcript.cursor is not None
        self.show_new_reply(new, reply)
        if has_cursor:
            self._pending_cursor = token_index

    def _switch_branch(self, old: Reply, new: Reply) -> None:
        if new is old:
            self.notify("There is no other branch yet; a digit branches to an alternative.")
            return
        cursor, self._pending_cursor = self.transcript.cursor, None
        new.shows_branches, old.shows_branches = old.shows_branches, False
        self.replace_reply(old, new)
        if cursor is not None:
            if new.tokens:
                self.transcript.enter_cursor_mode(self._entry_index(new), min(cursor[1], len(new.tokens) - 1))
            else:
                self._pending_cursor = 0
        self.post_message(self.Changed(ended=True))


def _reply_after(reply: Reply | None) -> Reply | None:
    """Return the selected reply of the turn after `reply`, which a new reply in that turn replaces on the screen."""
    return None if reply is None or reply.next_turn is None else reply.next_turn.selected_reply
