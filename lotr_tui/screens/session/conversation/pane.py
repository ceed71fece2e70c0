"""Pane with the transcript of a conversation that is being written, a cursor on its words, and a search."""

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer

from engine.generation.generate import NUM_TOP_TOKENS
from engine.generation.sampling import NextTokenProbs
from engine.generation.settings import SamplerSettings
from lotr_tui.app_base import LotrAppBase
from lotr_tui.screens.session.conversation.inspection import InspectedToken, TokenInspection
from lotr_tui.screens.session.conversation.inspection_reader import InspectionReader
from lotr_tui.screens.session.conversation.search_bar import SearchBar
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.next_words import NextWords
from lotr_tui.session.cast import name_column_width
from lotr_tui.session.conversation import Conversation, describe_full_context
from lotr_tui.session.next_tokens import NextTokenContext
from lotr_tui.session.reply import Reply
from lotr_tui.session.settings import PreviewUnit
from lotr_tui.session.transcript import Note

POLL_INTERVAL = 0.05
"""Seconds between two looks at the words that are being written."""
FIRST_WORD_INTERVAL = 0.01
"""Seconds between two looks before the first word, for which the user waits."""


class ConversationPane(Vertical):
    """Transcript of one conversation. A full conversation is closed, and another one begins in its place."""

    DEFAULT_CSS = """
    ConversationPane { width: 1fr; }
    ConversationPane Transcript { height: 1fr; }
    """

    class Changed(Message):
        """Posted when words were written or another reply is shown."""

        def __init__(self, *, ended: bool) -> None:
            super().__init__()
            self.ended = ended
            """True if no more words are to come."""

    class ReplyStarted(Message):
        """Posted when a reply is being generated, before its first word."""

    class InspectionChanged(Message):
        """Posted when the cursor is on another token or another alternative is highlighted."""

        def __init__(self, inspected: InspectedToken | None) -> None:
            super().__init__()
            self.inspected = inspected
            """Token under the cursor, or None outside cursor mode."""

    def __init__(self, welcome: str, pace: float, *, id: str | None = None) -> None:
        """Start an empty conversation at a pace in words per second, with a `welcome` at the top of the transcript."""
        super().__init__(id=id)
        self.conversation = Conversation(pace)
        self._welcome = welcome
        self._inspected: InspectedToken | None = None
        self._inspection = TokenInspection()
        self._inspected_words = NextWords(self, NUM_TOP_TOKENS, NUM_TOP_TOKENS, self._show_inspected_words)
        self._inspection_reader = InspectionReader(self, lambda reply, at: self._inspect_token(reply, at))
        self._noted_contexts: set[str] = set()
        """Names of the models whose full context is noted in this conversation."""
        self._preview_unit: PreviewUnit = "word"
        self._pending_cursor: int | None = None  # index of a branch's first token, which is not written yet

    def compose(self) -> ComposeResult:
        """Compose the transcript and the hidden search bar."""
        yield Transcript(self._welcome, id="transcript")
        yield SearchBar(id="search")

    def on_mount(self) -> None:
        """Prepare the timers that poll for words; they run only while some are being written."""
        self._poll_timer: Timer = self.set_interval(POLL_INTERVAL, self._poll, pause=True)
        self._first_word_timer: Timer = self.set_interval(FIRST_WORD_INTERVAL, self._poll_first_word, pause=True)

    def on_unmount(self) -> None:
        """Close the conversation."""
        self._inspected_words.cancel()
        self._inspection_reader.cancel()
        if (problem := self.conversation.close()) and isinstance(self.app, LotrAppBase):
            self.app.exit_message = f"the session is not saved: {problem}"

    @property
    def transcript(self) -> Transcript:
        """The transcript."""
        return self.query_one("#transcript", Transcript)

    @property
    def target_reply(self) -> Reply | None:
        """Reply under the cursor, or without a cursor the latest one; None if there is none."""
        cursor = self.transcript.cursor
        entry = None if cursor is None else self.transcript.entries[cursor[0]]
        if isinstance(entry, Reply):
            return entry if entry in self.conversation else None
        return self.conversation.current_reply

    @property
    def highlighted(self) -> int:
        """Number, counted from 1, of the highlighted alternative of the token under the cursor."""
        return 1 if self._inspected is None else self._inspected.highlighted

    def set_names(self, cast: Sequence[str], model_label: str = "") -> None:
        """Make room for the names of a cast, or of a model without one, before the lines of a conversation."""
        for transcript in self.query(Transcript):  # none if the app is exiting
            transcript.set_name_width(name_column_width(cast, model_label))

    def add_note(self, text: str) -> None:
        """Append a note to the transcript."""
        self.transcript.append(Note(text))

    # Polling

    def _poll_first_word(self) -> None:
        """Show the first word of a reply as soon as it is there."""
        self._poll()
        active = self.conversation.active_reply
        if active is None or active.tokens:
            self._first_word_timer.pause()

    def _poll(self) -> None:
        """Show the words written since the last poll."""
        reply = self.conversation.poll()
        if reply is not None:
            self._note_full_context(reply)
            if reply in self.transcript.entries:  # another branch may be shown instead
                self._refresh_reply(reply)
            self._show_next_turn(reply)
            self.post_message(self.Changed(ended=self.conversation.active_reply is None))
        if self.conversation.active_reply is None:
            self._poll_timer.pause()
            self._show_notice()
            if self.conversation.is_full and self.transcript.cursor is None and not self.conversation.save_again():
                self._start_next_conversation()

    def _note_full_context(self, reply: Reply) -> None:
        """Add a note once the beginning of the conversation has left the context of the model."""
        name, text = reply.session_model.name, describe_full_context(reply)
        if text and name not in self._noted_contexts:
            self._noted_contexts.add(name)
            self.add_note(text)

    def _show_next_turn(self, last: Reply) -> None:
        """Show the turn of a scene that has begun after the turn of `last`, unless another branch is shown."""
        active = self.conversation.active_reply
        if active is not None and active is self.conversation.current_reply and active is not last:
            self.transcript.append(active, follow=self.transcript.is_vertical_scroll_end)

    def _start_next_conversation(self) -> None:
        """Replace a full conversation by an empty one; its last reply stays visible."""
        full, last = self.conversation, self.conversation.current_reply
        full.close()
        self.close_search()
        self.conversation = Conversation(full.pace)
        saved = f"The previous one is saved as {full.name}; ctrl+s opens it."
        note = Note(f"This session is full, so a new one begins here. {saved}")
        self.transcript.replace_entries(0, [*([last] if last else []), note])
        self.transcript.scroll_end(animate=False)

    def _show_notice(self) -> None:
        if self.conversation.notice:
            self.notify(self.conversation.notice, severity="warning", markup=False)
            self.conversation.notice = ""

    def _refresh_reply(self, reply: Reply) -> None:
        """Show new words of a reply, and the cursor if it waits for one of them."""
        index = self._entry_index(reply)
        self.transcript.refresh_entry(index)
        if self._pending_cursor is not None and len(reply.tokens) > self._pending_cursor:
            self.transcript.enter_cursor_mode(index, self._pending_cursor)
            self._pending_cursor = None
        cursor = self.transcript.cursor
        if self.conversation.active_reply is None and cursor is not None and cursor[0] == index:
            self._inspect_token(reply, cursor[1])  # the inspector shows the number of words

    def show_new_reply(self, reply: Reply, replaced: Reply | None) -> None:
        """Show a reply that is being written, at the end or instead of the one that was shown until now."""
        if replaced is None:
            self.transcript.append(reply)
        else:
            self.replace_reply(replaced, reply)
        self._poll_timer.resume()
        self._first_word_timer.resume()
        self._inspection_reader.cancel()  # a slow model is left to the reply
        self.post_message(self.ReplyStarted())

    def replace_reply(self, old: Reply, new: Reply) -> None:
        """Show another reply of the same turn, and the turns that follow it."""
        index = self._entry_index(old)
        hidden = old.selected_path()
        rest = [entry for entry in self.transcript.entries[index + 1 :] if entry not in hidden]
        self.conversation.select_reply(new)
        self.transcript.replace_entries(index, [*new.selected_path(), *rest])

    def _entry_index(self, reply: Reply) -> int:
        return self.transcript.entries.index(reply)

    # Cursor

    def action_enter_cursor_mode(self) -> None:
        """Put the cursor on the last word of the latest reply."""
        if not self.transcript.enter_cursor_mode():
            self.notify("There is no reply yet; type a prompt first.")

    def exit_cursor_mode(self) -> bool:
        """Remove the cursor, and return True if there was one."""
        was_inspecting = self._inspected is not None
        self._inspected = self._pending_cursor = None
        self._inspection.clear()
        self._inspected_words.cancel()
        self._inspection_reader.cancel()
        self.transcript.exit_cursor_mode()
        if was_inspecting:
            self.post_message(self.InspectionChanged(None))
        return was_inspecting

    @on(Transcript.CursorMoved)
    def _cursor_moved(self, event: Transcript.CursorMoved) -> None:
        event.stop()
        self._inspect_token(event.reply, event.token_index)

    def _inspect_token(self, reply: Reply, token_index: int) -> None:
        if reply not in self.conversation or token_index >= len(reply.tokens):
            return
        self._inspection_reader.cancel()
        if not self._inspection.is_known(reply, token_index):
            self._inspect_before_reading(reply, token_index)
            return
        before, inspected = self._inspected, self._inspection.inspect(reply, token_index)
        shows_words = self._preview_unit == "word" and inspected.preview.token_unit == "token"
        if shows_words:
            inspected = inspected.without_alternatives("word")
        if (
            before is not None
            and before.token is inspected.token
            and before.preview.candidate_unit == inspected.preview.candidate_unit
            and (before.alternatives or shows_words)
        ):
            inspected = inspected.with_alternatives(before.preview).with_highlight(before.highlighted)
        self._set_inspected(inspected)
        if shows_words:
            self._inspected_words.search(self._inspection.context(reply, token_index), reply.settings)
        else:
            self._inspected_words.cancel()

    def _inspect_before_reading(self, reply: Reply, token_index: int) -> None:
        """Show a token without its alternatives until a slow model has read the text before it, in a thread."""
        before, inspected = self._inspected, self._inspection.inspect_without_alternatives(reply, token_index)
        if before is None or before.token is not inspected.token:
            self._set_inspected(inspected)
        if self.conversation.active_reply is None:  # otherwise the model is left to the reply
            self._inspection_reader.read(self._inspection, reply, token_index)

    def _show_inspected_words(
        self, context: NextTokenContext, settings: SamplerSettings, words: NextTokenProbs
    ) -> None:
        """Show words as the alternatives to the token under the cursor; a highlight that was moved stays."""
        before = self._inspected
        if before is None or before.preview.candidate_unit != "word":
            return
        inspected = before.with_alternatives(words)
        self._set_inspected(inspected.with_highlight(before.highlighted) if before.alternatives else inspected)

    def set_preview_unit(self, unit: PreviewUnit) -> None:
        """Show words or tokens as the alternatives to the token under the cursor."""
        self._preview_unit = unit
        cursor = None if self._inspected is None else self.transcript.cursor
        if cursor is not None and isinstance(reply := self.transcript.entries[cursor[0]], Reply):
            self._inspect_token(reply, cursor[1])

    def _set_inspected(self, inspected: InspectedToken) -> None:
        self._inspected = inspected
        self.post_message(self.InspectionChanged(inspected))

    def action_step_highlight(self, offset: int) -> None:
        """Highlight the next or previous alternative of the token under the cursor."""
        if self._inspected is not None:
            self._set_inspected(self._inspected.with_highlight(self._inspected.highlighted + offset))

    # Search

    def action_open_search(self) -> None:
        """Open the search bar, or focus it."""
        self.query_one(SearchBar).open()

    def close_search(self) -> bool:
        """Close the search bar, and return True if it was open."""
        search_bar = self.query_one(SearchBar)
        was_open = search_bar.is_open
        if was_open:
            search_bar.close()
        return was_open

    @on(SearchBar.SearchRequested)
    def _search(self, event: SearchBar.SearchRequested) -> None:
        event.stop()
        self.query_one(SearchBar).show_match_count(*self.transcript.find(event.query, event.offset))
