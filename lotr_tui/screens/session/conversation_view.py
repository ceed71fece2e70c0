"""The conversation on the screen: its transcript while it is written, the cursor on its words, and its answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.timer import Timer

from engine.data.tokenizers import EOS, UNK
from engine.errors import InvalidInputError, LotrError, printable
from engine.generation.complete_words import word_around
from engine.generation.generate import NUM_TOP_TOKENS, Candidate, NextTokenProbs
from engine.generation.settings import SamplerSettings
from lotr_tui.background_task import run_in_thread
from lotr_tui.clipboard import copy_to_clipboard
from lotr_tui.formatting import format_lone_token
from lotr_tui.screens.session.keys import parse_scene
from lotr_tui.screens.session.model_slot import ModelSlot
from lotr_tui.screens.session.preview import Preview
from lotr_tui.screens.session.transcript import SearchBar, Transcript
from lotr_tui.session.cast import name_column_width
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.export import check_session_target, export_session
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_file import load_session, session_path
from lotr_tui.session.transcript import Note

POLL_INTERVAL = 0.05  # seconds between two looks at the words that are being written
FIRST_WORD_INTERVAL = 0.01  # before the first word, for which the user waits

Begin = Callable[[SamplerSettings, int], Reply]
"""Function that begins a reply with sampler settings and a seed, or raises a LotrError."""


@dataclass(frozen=True)
class InspectedToken:
    """Token of a reply, and the distribution it was sampled from, whose candidates may not be known yet."""

    reply: Reply
    index: int
    preview: NextTokenProbs

    @classmethod
    def before_reading(cls, reply: Reply, index: int) -> "InspectedToken":
        size, entropy = len(reply.session_model.model.tokenizer), reply.tokens[index].entropy or 0.0
        return cls(reply, index, NextTokenProbs((), 0, size, entropy, "token", "token", is_final=False))

    @cached_property
    def word(self) -> str:
        """Word that the token belongs to."""
        if self.reply.read_only_reason:  # the token ids belong to another model
            return self.reply.tokens[self.index].text
        ids = [*self.reply.context_ids, *self.reply.ids]
        return word_around(self.reply.session_model.model.tokenizer, ids, len(self.reply.context_ids) + self.index)

    @cached_property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The likeliest tokens or words, to branch to; the one in the reply may be among them."""
        return self.preview.candidates[:NUM_TOP_TOKENS]

    @cached_property
    def written_text(self) -> str:
        return self.word if self.preview.candidate_unit == "word" else self.reply.tokens[self.index].text

    @cached_property
    def marked(self) -> int:
        """Number, counted from 1, of the alternative that enter branches to: the first that is not in the reply."""
        texts = [each.text for each in self.alternatives]
        return next((number for number, text in enumerate(texts, 1) if text != self.written_text), 1)


class ConversationView(Vertical):
    """Transcript of one conversation. A full conversation is closed, and another one begins in its place.

    The actions on replies apply to the one under the cursor, or without a cursor to the latest one.
    """

    DEFAULT_CSS = """
    ConversationView { width: 1fr; }
    ConversationView Transcript { height: 1fr; }
    """

    def __init__(
        self,
        slot: ModelSlot,
        on_change: Callable[[bool], None],
        on_inspect: Callable[[InspectedToken | None], None],
    ) -> None:
        """Start an empty conversation with the model in `slot`.

        `on_change` is called when a reply begins, grows, ends (True) or is replaced (True), and `on_inspect` when the
        cursor is on another token (None: on none).
        """
        super().__init__(id="conversation")
        self.slot, self.conversation = slot, Conversation(slot.pace)
        self.transcript = Transcript(slot.session_model.welcome_text(), self._inspect, self.branch, self.step_answer)
        self.search_bar = SearchBar(self.transcript)
        self.inspected: InspectedToken | None = None
        self.edited_reply: Reply | None = None  # whose prompt is in the prompt input
        self._on_change, self._on_inspect = on_change, on_inspect
        reader = self.conversation.reader  # of all conversations in this view
        self._inspection = Preview(self, self._show_alternatives, NUM_TOP_TOKENS, NUM_TOP_TOKENS, reader=reader)
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

    def adapt_to_model(self) -> None:
        """Make room for the names of the model's cast, and say what to type, now or in a new session."""
        model = self.slot.session_model
        label, welcome = "" if model.chat is None else model.label, Note(model.welcome_text())
        self.transcript.set_name_width(name_column_width(model.cast, label))
        before, *others = self.transcript.entries
        if welcome != before and self.conversation.current_reply is None and self.transcript.is_attached:
            self.transcript.replace_entries(0, [welcome, *others])

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
            self._on_change(active is None)
        if self.conversation.active_reply is None:
            self._poll_timer.pause()
            self._show_notice()

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

    def _show_notice(self) -> None:
        if self.conversation.notice:
            self.notify(self.conversation.notice, severity="warning", markup=False)
            self.conversation.notice = ""

    # Replies

    def previous_reply(self) -> Reply | None:
        """Return the reply that the next prompt answers, or None at the start of a text."""
        edited, mode = self.edited_reply, self.slot.reply_mode
        previous = self.conversation.current_reply if edited is None else edited.turn.previous_reply
        if previous is None:
            return None
        return previous if mode != "continue" and previous.reply_mode == mode else None

    def submit(self, text: str) -> bool:
        """Send a line, or add a turn if it is empty. Return True if a reply begins."""
        conversation, model, previous = self.conversation, self.slot.session_model, self.previous_reply()
        roles, mode, best_of = self.slot.roles, self.slot.reply_mode, self.slot.settings.best_of
        if mode != "conversation" or not model.cast:
            return self._start(
                lambda settings, seed: conversation.submit_prompt(model, text, mode, settings, seed, previous, roles),
                _next_reply(previous),
            )
        if not text.strip() and self.edited_reply is None:
            return self.go_on()
        return self._start(
            lambda settings, seed: conversation.say(model, text, roles, settings, seed, previous, best_of),
            _next_reply(previous),
        )

    def go_on(self, num_turns: int = 1, cast: Sequence[str] | None = None) -> bool:
        """Add turns without the user, by speakers of `cast` (None: who is chosen to answer, or else anyone).

        A single turn of another mode continues the reply instead. Return True if a reply begins.
        """
        model, speaker = self.slot.session_model, self.slot.roles.speaker
        if not model.cast or (self.slot.reply_mode != "conversation" and num_turns == 1):
            return self.continue_reply()
        self.slot.set_reply_mode("conversation")
        go_on, previous, best_of = self.conversation.go_on, self.previous_reply(), self.slot.settings.best_of
        names = (speaker,) if speaker and num_turns == 1 and cast is None else cast
        return self._start(
            lambda settings, seed: go_on(model, names, num_turns, settings, seed, previous, best_of),
            _next_reply(previous),
        )

    def play_scene(self, argument: str) -> None:
        """Add the turns of a typed scene, such as `6 Frodo, Sam`."""
        self.go_on(*parse_scene(argument, self.slot.session_model.cast))

    def _start(self, begin: Begin, replaced: Reply | None, cursor_at: int | None = None) -> bool:
        """Begin a reply, and show it while it is written; return False, after a notice, if it cannot begin.

        It takes the place of the reply `replaced`, whose cursor moves to token `cursor_at` once that is written.
        """
        try:
            if self.conversation.is_full:
                raise InvalidInputError("this session is full; /new begins another one, and this one stays saved")
            reply = begin(self.slot.sampler.settings, self.slot.sampler.draw_seed())
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
        self._on_change(False)
        return True

    def _replace_reply(self, old: Reply, new: Reply) -> None:
        """Show another reply of the same turn, and the turns that follow it."""
        index = self.transcript.entries.index(old)
        hidden = set(old.selected_path())
        rest = [entry for entry in self.transcript.entries[index + 1 :] if entry not in hidden]
        self.conversation.select_reply(new)
        self.transcript.replace_entries(index, [*new.selected_path(), *rest])

    def again(self) -> None:
        """Draw the reply again with another seed, in a conversation as the chosen speaker, or else as the same one."""
        reply, answer_as, best_of = self.target_reply, self.conversation.answer_as, self.slot.settings.best_of
        if reply is None:
            self.notify("There is no reply yet; say something first.")
        elif reply.speaker and reply.reply_mode == "conversation":
            name = self.slot.roles.speaker or reply.speaker
            self._start(lambda settings, seed: answer_as(reply, name, settings, seed, best_of), reply, 0)
        else:
            self._branch(reply, 0)

    def continue_reply(self) -> bool:
        """Keep going after the last word of the reply, on a new line if the model has ended the line."""
        reply = self.target_reply
        if reply is None:
            return False
        cursor_at = len(reply.tokens) + reply.has_ended_line
        return self._start(partial(self.conversation.continue_reply, reply), reply, cursor_at)

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
        self._start(
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
        self._on_change(True)

    def copy_reply(self) -> None:
        """Copy the prompt and its reply to the terminal's clipboard."""
        text = "" if self.target_reply is None else self.target_reply.text()
        self.notify(copy_to_clipboard(self.app, text), markup=False)

    # Cursor

    def leave_words(self) -> None:
        """Remove the cursor."""
        was_inspecting = self.inspected is not None
        self.inspected = self._pending_cursor = None
        self._inspection.cancel()
        self.transcript.remove_cursor()
        if was_inspecting:
            self._on_inspect(None)

    def put_cursor(self) -> None:
        """Put the cursor on the last word of the latest reply."""
        if self.conversation.current_reply is None:
            self.notify("There is no reply yet; type a prompt first.")
        else:
            self.transcript.put_cursor()

    def step_vertically(self, offset: int) -> None:
        """Go to another reply, or while searching to another match."""
        if self.search_bar.has_focus_within:
            self.search_bar.step_match(offset)
        else:
            self.transcript.step_reply(offset)

    def scroll_by_pages(self, pages: int) -> None:
        (self.transcript.scroll_page_up if pages < 0 else self.transcript.scroll_page_down)(animate=False)

    def update_preview_unit(self) -> None:
        """Show words or tokens as the alternatives to the token under the cursor."""
        if self.inspected is not None:
            self._inspect(self.inspected.reply, self.inspected.index)

    def _inspect(self, reply: Reply, index: int) -> None:
        """Show a token at once, and its alternatives once the model has read the text before it."""
        before = self.inspected
        if before is None or (before.reply, before.index) != (reply, index):
            self._set_inspected(InspectedToken.before_reading(reply, index))
        is_idle = self.conversation.active_reply is None  # otherwise a slow model is left to the reply
        text = NextTokenContext.of_reply(reply, index)
        self._inspection.request(text, reply.settings, self.slot.preview_unit, may_read=is_idle, pause=0)

    def _show_alternatives(self, context: NextTokenContext, settings: SamplerSettings, probs: NextTokenProbs) -> None:
        if self.inspected is not None:
            self._set_inspected(replace(self.inspected, preview=probs))

    def _set_inspected(self, inspected: InspectedToken) -> None:
        self.inspected = inspected
        self._on_inspect(inspected)

    # Saved sessions

    def export(self, path: str = "") -> None:
        """Export the session to a path that does not exist yet, or ask for one."""
        from lotr_tui.screens.dialogs.sessions import ask_to_export_session  # with the exporters, only if needed

        if not self.conversation.name:
            raise InvalidInputError("this session has no reply yet that could be exported")
        session = session_path(self.conversation.name)
        if path:
            self.run_worker(self._export_to(session, path), group="export")
        else:
            ask_to_export_session(self.screen, session, "md", partial(self.notify, markup=False))  # type: ignore[arg-type]

    async def _export_to(self, session: Path, path: str) -> None:
        try:
            target = await run_in_thread(check_session_target, path)
            if target.missing_folder is not None:
                raise InvalidInputError(f"the folder {target.missing_folder} does not exist; choose another one")
            await run_in_thread(lambda: export_session(load_session(session), target.path))
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
        else:
            self.notify(f"Exported to {printable(str(target.path))}", markup=False)

    def begin_session(self) -> None:
        """Show an empty conversation in place of the current one, which stays saved."""
        if self._can_leave():
            self._show_conversation(Conversation(self.slot.pace, reader=self.conversation.reader))

    def choose_session(self) -> None:
        """List the saved sessions, and open the chosen one in place of this one."""
        from lotr_tui.screens.dialogs.sessions import SessionChoice, SessionsScreen

        def chosen(choice: SessionChoice | None) -> None:
            if choice == "new":
                self.begin_session()
            elif choice is not None:
                self.open_session(choice)

        self.app.push_screen(SessionsScreen(self.conversation), chosen)

    def open_session(self, path: Path) -> bool:
        """Open a saved session in place of the current conversation, and return True if that was possible."""
        if not self._can_leave():
            return False
        try:
            reader = self.conversation.reader
            conversation = Conversation.resume(path, self.slot.session_model, self.slot.pace, reader)
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
        self.edited_reply = None
        self.leave_words()
        self.search_bar.close()
        self.conversation.close()
        self.conversation = conversation
        welcome = Note(self.slot.session_model.welcome_text())
        self.transcript.replace_entries(0, [welcome, *conversation.selected_replies()])
        self.transcript.scroll_end(animate=False)
        self._show_notice()
        self._on_change(True)


def _next_reply(previous: Reply | None) -> Reply | None:
    """Return the reply whose place a new one after `previous` takes."""
    return None if previous is None or previous.next_turn is None else previous.next_turn.selected_reply
