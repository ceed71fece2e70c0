"""The conversation on the screen: its transcript while it is written, the cursor on its words, and its answers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer

from engine.data.tokenizers import EOS, UNK
from engine.errors import LotrError
from engine.generation.generate import NUM_TOP_TOKENS, NextTokenProbs
from engine.generation.settings import SamplerSettings
from lotr_tui.clipboard import copy_to_clipboard
from lotr_tui.formatting import format_lone_token
from lotr_tui.screens.session.preview import Preview
from lotr_tui.screens.session.token_inspector import InspectedToken
from lotr_tui.screens.session.transcript import SearchBar, Transcript
from lotr_tui.session.cast import name_column_width
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.read_text import NextTokenContext, TextReader
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import PreviewUnit
from lotr_tui.session.transcript import Note

POLL_INTERVAL = 0.05  # seconds between two looks at the words that are being written
FIRST_WORD_INTERVAL = 0.01  # before the first word, for which the user waits

SettingsProvider = Callable[[], tuple[SamplerSettings, int]]
"""Function that returns the sampler settings and a seed, and raises InvalidInputError if a control is out of range."""


class ConversationView(Vertical):
    """Transcript of one conversation. A full conversation is closed, and another one begins in its place.

    The actions on replies apply to the one under the cursor, or without a cursor to the latest one.
    """

    DEFAULT_CSS = """
    ConversationView { width: 1fr; }
    ConversationView Transcript { height: 1fr; }
    """

    class Changed(Message):
        """Posted when words were written or another reply is shown; `ended` if no more words are to come."""

        def __init__(self, *, ended: bool) -> None:
            super().__init__()
            self.ended = ended

    class ReplyStarted(Message):
        """Posted when a reply is being generated, before its first word."""

    class InspectionChanged(Message):
        """Posted when the cursor is on another token, or its alternatives are known; None without a cursor."""

        def __init__(self, inspected: InspectedToken | None) -> None:
            super().__init__()
            self.inspected = inspected

    def __init__(self, welcome: str, pace: float, get_settings: SettingsProvider, *, id: str | None = None) -> None:
        """Start an empty conversation at a pace in words per second; `welcome` is at the top of the transcript."""
        super().__init__(id=id)
        self.reader = TextReader()
        self.conversation = Conversation(pace, reader=self.reader)
        self.transcript = Transcript(welcome, id="transcript")
        self.search_bar = SearchBar(self.transcript, id="search")
        self.inspected: InspectedToken | None = None
        self.best_of = 0  # answers that are drawn for a turn of a conversation; 0 draws several where that is fast
        self._welcome = welcome
        self._get_settings = get_settings
        self._inspection = Preview(self, self._show_alternatives, NUM_TOP_TOKENS, NUM_TOP_TOKENS, reader=self.reader)
        self._preview_unit: PreviewUnit = "word"
        self._noted_contexts: set[str] = set()  # names of the models whose full context is noted
        self._pending_cursor: int | None = None  # index of a branch's first token, which is not written yet

    def compose(self) -> ComposeResult:
        yield self.transcript
        yield self.search_bar

    def on_mount(self) -> None:
        self._poll_timer: Timer = self.set_interval(POLL_INTERVAL, self._poll, pause=True)
        self._first_word_timer: Timer = self.set_interval(FIRST_WORD_INTERVAL, self._poll_first_word, pause=True)

    def on_unmount(self) -> None:
        self._inspection.cancel()
        if problem := self.conversation.close():
            self.app.state.exit_message = f"the session is not saved: {problem}"  # type: ignore[attr-defined]

    @property
    def target_reply(self) -> Reply | None:
        """Reply under the cursor, or without a cursor the latest one; None if there is none."""
        cursor = self.transcript.cursor
        entry = None if cursor is None else self.transcript.entries[cursor[0]]
        return entry if isinstance(entry, Reply) else self.conversation.current_reply

    def add_note(self, text: str) -> None:
        self.transcript.append(Note(text))

    def set_names(self, cast: Sequence[str], model_label: str) -> None:
        """Make room for the names of a cast, or of a model without one, before the lines of a conversation."""
        self.transcript.set_name_width(name_column_width(cast, model_label))

    def set_welcome(self, welcome: str) -> None:
        """Show another text at the top of a new session, and now if nothing has been said yet."""
        if welcome != self._welcome and self.conversation.current_reply is None and self.transcript.is_attached:
            self.transcript.replace_entries(0, [Note(welcome), *self.transcript.entries[1:]])
        self._welcome = welcome

    # Words that are being written

    def _poll_first_word(self) -> None:
        self._poll()
        active = self.conversation.active_reply
        if active is None or active.tokens:
            self._first_word_timer.pause()

    def _poll(self) -> None:
        """Show the words written since the last poll."""
        reply = self.conversation.poll()
        if reply is not None:
            name, full = reply.session_model.name, self.conversation.describe_full_context(reply)
            if full and name not in self._noted_contexts:
                self._noted_contexts.add(name)
                self.add_note(full)
            if reply in self.transcript.entries:  # another branch may be shown instead
                self._refresh_reply(reply)
            active = self.conversation.active_reply
            if active is not None and active is self.conversation.current_reply and active is not reply:
                # The next turn of a scene, unless another branch is shown.
                self.transcript.append(active, follow=self.transcript.is_vertical_scroll_end)
            self.post_message(self.Changed(ended=active is None))
        if self.conversation.active_reply is None:
            self._poll_timer.pause()
            self._show_notice()
            if self.conversation.is_full and self.transcript.cursor is None and not self.conversation.save_again():
                self._start_next_conversation()

    def _refresh_reply(self, reply: Reply) -> None:
        """Show new words of a reply, and the cursor if it waits for one of them."""
        index = self.transcript.entries.index(reply)
        self.transcript.refresh_entry(index)
        if self._pending_cursor is not None and len(reply.tokens) > self._pending_cursor:
            self.transcript.put_cursor(index, self._pending_cursor)
            self._pending_cursor = None
        cursor = self.transcript.cursor
        if self.conversation.active_reply is None and cursor is not None and cursor[0] == index:
            self._inspect(reply, cursor[1])  # the inspector shows the number of words

    def _start_next_conversation(self) -> None:
        """Replace a full conversation by an empty one; its last reply stays visible."""
        full, last = self.conversation, self.conversation.current_reply
        full.close()
        self.search_bar.close()
        self.conversation = Conversation(full.pace, reader=self.reader)
        saved = f"The previous one is saved as {full.name}; /sessions opens it."
        note = Note(f"This session is full, so a new one begins here. {saved}")
        self.transcript.replace_entries(0, [*([last] if last else []), note])
        self.transcript.scroll_end(animate=False)
        self.post_message(self.Changed(ended=True))

    def _show_notice(self) -> None:
        if self.conversation.notice:
            self.notify(self.conversation.notice, severity="warning", markup=False)
            self.conversation.notice = ""

    # Replies

    def start(
        self, begin: Callable[[SamplerSettings, int], Reply], replaced: Reply | None, cursor_at: int | None = None
    ) -> bool:
        """Begin a reply with the settings and the seed of the controls, and show it while it is written.

        It takes the place of the reply `replaced`, whose cursor moves to token `cursor_at` once that is written. Return
        False, after a notice, if the reply cannot begin.
        """
        try:
            reply = begin(*self._get_settings())
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return False
        has_cursor = self.transcript.cursor is not None
        if replaced is None:
            self.transcript.append(reply)
        else:
            self._replace_reply(replaced, reply)
        if has_cursor and cursor_at is not None:
            self._pending_cursor = cursor_at
        self._poll_timer.resume()
        self._first_word_timer.resume()
        self.post_message(self.ReplyStarted())
        return True

    def _replace_reply(self, old: Reply, new: Reply) -> None:
        """Show another reply of the same turn, and the turns that follow it."""
        index = self.transcript.entries.index(old)
        hidden = set(old.selected_path())
        rest = [entry for entry in self.transcript.entries[index + 1 :] if entry not in hidden]
        new.shows_branches, old.shows_branches = old.shows_branches, False
        self.conversation.select_reply(new)
        self.transcript.replace_entries(index, [*new.selected_path(), *rest])

    def again(self, speaker: str = "") -> None:
        """Draw the reply again with another seed, as a chosen speaker, or else as the same one."""
        reply = self.target_reply
        if reply is not None and reply.speaker and reply.reply_mode == "conversation":
            self.answer_as(speaker or reply.speaker)
        elif reply is not None:
            self._branch(reply, 0)

    def answer_as(self, speaker: str) -> None:
        """Answer again as a speaker, or as whom the model chooses (empty), as another answer of the turn."""
        reply = self.target_reply
        if reply is None:
            self.notify("There is no reply yet; say something first.")
        elif reply.reply_mode != "conversation" or reply.is_chat:
            self.notify("Only an answer of a conversation has a speaker; /set mode conversation starts one.")
        else:
            answer_as = self.conversation.answer_as
            self.start(lambda settings, seed: answer_as(reply, speaker, settings, seed, self.best_of), reply, 0)

    def continue_reply(self) -> None:
        """Keep going after the last word of the reply, on a new line if the model has ended the line."""
        reply = self.target_reply
        if reply is not None:
            end = len(reply.tokens) + reply.has_ended_line
            self.start(lambda settings, seed: self.conversation.continue_reply(reply, settings, seed), reply, end)

    def branch(self, number: int | None = None) -> None:
        """Branch to an alternative of the word under the cursor, counted from 1; None is the marked one."""
        inspected = self.inspected
        number = inspected.marked if inspected is not None and number is None else number
        if inspected is None or number is None or number > len(inspected.alternatives):
            return
        candidate, unit = inspected.alternatives[number - 1], inspected.preview.candidate_unit
        name, reply = repr(format_lone_token(candidate.text)), inspected.reply
        if reply.read_only_reason:
            self.notify(reply.read_only_reason, severity="warning", markup=False)
        elif candidate.text == inspected.written_text:
            self.notify(f"{name} is already the {unit} here; choose another one.", markup=False)
        elif candidate.text in (EOS, UNK):
            self.notify(f"{name} is not a {unit}; choose another one to branch to.", markup=False)
        else:
            self._branch(reply, inspected.index, candidate.ids, ends_word=unit == "word")

    def _branch(self, reply: Reply, index: int, forced_ids: Sequence[int] = (), *, ends_word: bool = False) -> None:
        branch = self.conversation.branch
        self.start(
            lambda settings, seed: branch(reply, index, forced_ids, settings, seed, ends_word=ends_word), reply, index
        )

    def step_answer(self, offset: int, reply: Reply | None = None) -> None:
        """Show the next or previous answer of a turn."""
        old = reply or self.target_reply
        if old is None or old not in old.turn.replies:
            return
        answers = old.turn.replies
        new = answers[(answers.index(old) + offset) % len(answers)]
        if new is old:
            self.notify("There is no other answer yet: r draws one, and a digit branches to an alternative.")
            return
        cursor, self._pending_cursor = self.transcript.cursor, None
        self._replace_reply(old, new)
        if cursor is not None and new.tokens:
            self.transcript.put_cursor(self.transcript.entries.index(new), min(cursor[1], len(new.tokens) - 1))
        elif cursor is not None:
            self._pending_cursor = 0
        self.post_message(self.Changed(ended=True))

    def toggle_answers(self) -> None:
        """Show or hide all other answers below this one."""
        reply = self.target_reply
        if reply is not None and len(reply.turn.replies) == 1:
            self.notify("There is no other answer yet.")
        elif reply is not None:
            reply.shows_branches = not reply.shows_branches
            self.transcript.refresh_entry(self.transcript.entries.index(reply))

    def copy_reply(self) -> None:
        """Copy the prompt and its reply to the terminal's clipboard."""
        text = "" if self.target_reply is None else self.target_reply.text()
        self.notify(copy_to_clipboard(self.app, text), markup=False)

    # Cursor

    def leave_words(self) -> bool:
        """Remove the cursor, and return True if there was one."""
        was_inspecting = self.inspected is not None
        self.inspected = self._pending_cursor = None
        self._inspection.cancel()
        self.transcript.remove_cursor()
        if was_inspecting:
            self.post_message(self.InspectionChanged(None))
        return was_inspecting

    def set_preview_unit(self, unit: PreviewUnit) -> None:
        """Show words or tokens as the alternatives to the token under the cursor."""
        self._preview_unit = unit
        if self.inspected is not None:
            self._inspect(self.inspected.reply, self.inspected.index)

    @on(Transcript.CursorMoved)
    def _cursor_moved(self, event: Transcript.CursorMoved) -> None:
        event.stop()
        self._inspect(event.reply, event.token_index)

    @on(Transcript.TokenActivated)
    def _branch_to_marked(self) -> None:
        self.branch()

    @on(Transcript.AnswerRequested)
    def _answer_requested(self, event: Transcript.AnswerRequested) -> None:
        event.stop()
        self.step_answer(event.offset, event.reply)

    def _inspect(self, reply: Reply, index: int) -> None:
        """Show a token at once, and its alternatives once the model has read the text before it."""
        before = self.inspected
        if before is None or (before.reply, before.index) != (reply, index):
            self._set_inspected(InspectedToken.before_reading(reply, index))
        is_idle = self.conversation.active_reply is None  # otherwise a slow model is left to the reply
        text = NextTokenContext.of_reply(reply, index)
        self._inspection.request(text, reply.settings, self._preview_unit, may_read=is_idle, pause=0)

    def _show_alternatives(self, context: NextTokenContext, settings: SamplerSettings, probs: NextTokenProbs) -> None:
        if self.inspected is not None:
            self._set_inspected(replace(self.inspected, preview=probs))

    def _set_inspected(self, inspected: InspectedToken) -> None:
        self.inspected = inspected
        self.post_message(self.InspectionChanged(inspected))

    # Saved sessions

    def begin_session(self) -> None:
        """Show an empty conversation in place of the current one, which stays saved."""
        if self._can_leave():
            self._show_conversation(Conversation(self.conversation.pace, reader=self.reader))

    def open_session(self, path: Path, session_model: SessionModel) -> bool:
        """Open a saved session in place of the current conversation, and return True if that was possible."""
        if not self._can_leave():
            return False
        try:
            conversation = Conversation.resume(path, session_model, self.conversation.pace, self.reader)
        except LotrError as error:
            self.notify(str(error), severity="error", markup=False)
            return False
        self._show_conversation(conversation)
        return True

    def _can_leave(self) -> bool:
        """Return True if the current conversation is saved; otherwise say that it would be lost."""
        if problem := self.conversation.save_again():
            text = f"this conversation is not saved and would be lost: {problem}; free some space first"
            self.notify(text, severity="warning", markup=False)
        return not problem

    def _show_conversation(self, conversation: Conversation) -> None:
        """Close the current conversation, and show another one in its place."""
        self._noted_contexts.clear()
        self.leave_words()
        self.search_bar.close()
        self.conversation.close()
        self.conversation = conversation
        self.transcript.replace_entries(0, [Note(self._welcome), *conversation.selected_replies()])
        self.transcript.scroll_end(animate=False)
        self._show_notice()
        self.post_message(self.Changed(ended=True))
