"""The conversation on the screen: its transcript while it is written, and what the keys do to its replies."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from textual import app, containers, screen

from engine.analysis.activations import find_attention_model
from engine.errors import InvalidInputError, LotrError, printable
from lotr_tui.clipboard import copy_to_clipboard
from lotr_tui.screens.session import keys, transcript
from lotr_tui.screens.session.model_slot import ModelSlot
from lotr_tui.session import export, session_file
from lotr_tui.session.cast import Roles
from lotr_tui.session.conversation import Conversation, Request
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.read_text import PromptContext, find_context, to_prompt_line
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import SessionSetup
from lotr_tui.session.transcript import Entry, Note
from lotr_tui.widgets.speaker_bars import name_column_width

POLL_INTERVAL = 0.05  # seconds between two looks at the words that are being written
FIRST_WORD_INTERVAL = 0.01  # before the first word, for which the user waits


class ConversationView(containers.Vertical):
    """Transcript of one conversation. A full conversation is closed, and another one begins in its place.

    The actions on replies apply to the one under the cursor, or without a cursor to the latest one.
    """

    def __init__(
        self,
        slot: ModelSlot,
        on_change: Callable[[bool], None],
        on_cursor: Callable[[Reply | None, int], None],
    ) -> None:
        """Start an empty conversation with the model in `slot`.

        `on_change` is called when a reply begins, grows, ends (True) or is replaced (True), and `on_cursor` with the
        reply and the index of the token under the cursor (None: there is no cursor any more).
        """
        super().__init__(id="conversation")
        self.slot, self.conversation = slot, Conversation(slot.pace)
        self.edited_reply: Reply | None = None  # whose prompt is in the prompt input
        self._on_change, self._on_cursor = on_change, on_cursor
        welcome = slot.session_model.welcome_text(slot.roles.speaker)
        self.transcript = transcript.Transcript(welcome, on_cursor, self.step_answer)
        self.search_bar = transcript.SearchBar(self.transcript)
        self._noted_contexts: set[str] = set()  # names of the models whose full context is noted
        self._pending_cursor: int | None = None  # index of a branch's first token, which is not written yet

    def compose(self) -> app.ComposeResult:
        yield self.transcript
        yield self.search_bar

    def on_mount(self) -> None:
        self._poll_timer = self.set_interval(POLL_INTERVAL, self._poll, pause=True)
        self._first_word_timer = self.set_interval(FIRST_WORD_INTERVAL, self._poll, pause=True)

    def on_unmount(self) -> None:
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
        """Make room for the names of the model's cast, and say what to type in a conversation that has not begun."""
        model = self.slot.session_model
        self.transcript.set_name_width(name_column_width(model.cast, "" if model.chat is None else model.label))
        welcome, (before, *others) = Note(model.welcome_text(self.slot.roles.speaker)), self.transcript.entries
        if welcome != before and self.conversation.current_reply is None and self.transcript.is_attached:
            self.transcript.replace_entries(0, [welcome, *others])

    # Words that are being written

    def _poll(self) -> None:
        reply, entries = self.conversation.poll(), self.transcript.entries
        active = self.conversation.active_reply
        if reply is not None:
            name, full = reply.session_model.name, self.conversation.describe_full_context(reply)
            if full and name not in self._noted_contexts:
                self._noted_contexts.add(name)
                self.add_note(full)
            if reply in entries:  # another branch may be shown instead
                index = entries.index(reply)
                self.transcript.refresh_entry(index)
                if self._pending_cursor is not None and len(reply.tokens) > self._pending_cursor:
                    self.transcript.put_cursor(index, self._pending_cursor)
                    self._pending_cursor = None
            if active is not None and active is self.conversation.current_reply and active is not reply:
                # The next turn of a scene, unless another branch is shown.
                self.transcript.append(active)
            self._on_change(active is None)
            cursor = self.transcript.cursor if active is None else None
            if cursor is not None and isinstance(shown := entries[cursor[0]], Reply):
                self._on_cursor(shown, cursor[1])  # its number of words, and alternatives that had to wait
        if active is None or active.tokens:
            self._first_word_timer.pause()
        if active is None:
            self._poll_timer.pause()
            self._show_notice()

    def _show_notice(self) -> None:
        if self.conversation.notice:
            self.notify(self.conversation.notice, severity="warning", markup=False)
            self.conversation.notice = ""

    # Replies

    @property
    def context(self) -> PromptContext:
        """Mode, roles and earlier replies of the next prompt."""
        edited, mode = self.edited_reply, self.slot.reply_mode
        previous = self.conversation.current_reply if edited is None else edited.turn.previous_reply
        is_answered = previous is not None and mode != "continue" and previous.reply_mode == mode
        first = edited if edited is not None and edited.turn.previous_reply is None else None
        return PromptContext(mode, previous if is_answered else None, self.slot.roles, first)

    def submit(self, text: str) -> bool:
        """Send a line, or add a turn if it is empty. Return True if a reply begins."""
        is_turn = self.slot.reply_mode == "conversation" and self.slot.session_model.cast
        if is_turn and not text.strip() and self.edited_reply is None:
            return self.go_on()
        return self._begin(partial(self.conversation.say, text))

    def go_on(self, num_turns: int = 1, cast: Sequence[str] | None = None) -> bool:
        """Add turns without the user, by speakers of `cast` (None: who is chosen to answer, or else anyone).

        A single turn of another mode continues the reply instead, on a new line if the model has ended the line. Return
        True if a reply begins.
        """
        slot, conversation, reply = self.slot, self.conversation, self.target_reply
        model, speaker = slot.session_model, slot.roles.speaker
        if not model.cast or (slot.reply_mode != "conversation" and num_turns == 1):
            if reply is None:
                return False
            cursor_at = len(reply.tokens) + reply.has_ended_line
            return self._begin(partial(conversation.continue_reply, reply), reply, cursor_at)
        slot.set_reply_mode("conversation")
        names = (speaker,) if speaker and num_turns == 1 and cast is None else cast
        return self._begin(partial(conversation.go_on, names, num_turns))

    def steer(self, argument: str) -> None:
        """Steer the model to a speaker, or to the first of two files of lines, and tell what that changes."""
        from lotr_tui.session.steering import Steering  # not needed for the first paint

        model = self.slot.session_model
        if isinstance(self.slot.loader, ModelLoader):  # whose model would not be steered
            raise InvalidInputError(f"{self.slot.loader.describe_briefly()}; try again when that is done")
        reply = self.conversation.current_reply
        steering = Steering(argument, model, find_context(model, reply, "", self.context))

        async def steer() -> None:
            await self.slot.load_with(steering)
            if steering.effect and self.conversation.current_reply is reply:
                self.add_note(steering.effect)
            elif steering.effect:  # a note would stand below replies without the steering
                self.notify(steering.effect, markup=False)

        self.screen.run_worker(steer(), exclusive=True, group="load")

    def play_scene(self, argument: str) -> None:
        self.go_on(*keys.parse_scene(argument, self.slot.session_model.cast))

    def _begin(
        self,
        begin: Callable[[Request], Reply],
        replaced: Reply | None = None,
        cursor_at: int | None = None,
        *,
        is_again: bool = False,
    ) -> bool:
        """Show the reply that `begin` starts; return False, after a notice, if it cannot.

        It takes the place of the reply `replaced`, or in a new turn of the one that answered the same reply, whose
        cursor moves to token `cursor_at` once that is written.
        """
        slot, context = self.slot, self.context
        edited, previous = context.edited_reply, context.previous_reply
        turn = edited.turn if edited is not None else None if previous is None else previous.next_turn
        if replaced is None and turn is not None:
            replaced = turn.selected_reply
        try:
            if self.conversation.is_full:
                raise InvalidInputError("this session is full; /new begins another one, and this one stays saved")
            settings = slot.sampler.settings
            drawn = replaced.turn.replies if is_again and replaced is not None else []
            way = settings, slot.sampler.strengths
            seed = slot.sampler.draw_seed({each.seed for each in drawn if (each.settings, each.strengths) == way})
            self.conversation.session.setup = slot.setup
            reply = begin(Request(slot.session_model, settings, seed, context, slot.settings.best_of))
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return False
        has_cursor = self.transcript.cursor is not None
        if replaced is None:
            self.transcript.append(reply, follow=True)
        else:
            self._replace_reply(replaced, reply)
        if has_cursor and cursor_at is not None:
            self._pending_cursor = cursor_at
        self._poll_timer.resume()
        self._first_word_timer.resume()
        self._on_change(False)
        return True

    def _replace_reply(self, old: Reply, new: Reply) -> None:
        entries, hidden = self.transcript.entries, set(old.selected_path())
        index = entries.index(old)
        rest = [entry for entry in entries[index + 1 :] if entry not in hidden]
        self.conversation.select_reply(new)
        self.transcript.replace_entries(index, [*new.selected_path(), *rest])

    def again(self) -> None:
        """Draw the reply again with another seed, in a conversation as the chosen speaker, or else as the same one.

        After a fixed seed, the next ones follow that have drawn no reply of the turn with these settings.
        """
        reply = self.target_reply
        if reply is None:
            self.notify("There is no reply yet; say something first.")
        elif reply.speaker and reply.reply_mode == "conversation":
            name = self.slot.roles.speaker or reply.speaker
            self._begin(partial(self.conversation.answer_as, reply, name), reply, 0, is_again=True)
        else:
            self._begin(partial(self.conversation.branch, reply, 0, ()), reply, 0, is_again=True)

    def branch(self, reply: Reply, index: int, forced_ids: Sequence[int] = (), *, ends_word: bool = False) -> None:
        self._begin(partial(self.conversation.branch, reply, index, forced_ids, ends_word=ends_word), reply, index)

    def step_answer(self, offset: int, reply: Reply | None = None) -> None:
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
        text = "" if self.target_reply is None else self.target_reply.text()
        self.notify(copy_to_clipboard(self.app, text), markup=False)

    # Cursor

    def leave_words(self) -> None:
        self._pending_cursor = None
        self.transcript.remove_cursor()
        self._on_cursor(None, 0)

    def take_keys(self) -> None:
        """Make letters keys of the conversation until the focus leaves it, with the cursor on a word."""
        if self.transcript.cursor is None:
            self.transcript.put_cursor()
        self.screen.set_focus(self.transcript, scroll_visible=False)  # at once: the next keys are for the cursor

    def step_vertically(self, offset: int) -> None:
        (self.search_bar.step_match if self.search_bar.has_focus_within else self.transcript.step_reply)(offset)

    def scroll_by_pages(self, pages: int) -> None:
        (self.transcript.scroll_page_up if pages < 0 else self.transcript.scroll_page_down)(animate=False)

    def create_inspector(self, inspector: str, draft: str) -> screen.Screen[None]:
        """Create the screen of an inspector on the `draft`, or on the reply under the cursor or the latest one."""
        from lotr_tui.screens.inspect import comparison, copied, lens  # imported when one is opened

        slot, model, reply = self.slot, self.slot.session_model, self.target_reply
        if inspector in ("strengths", "tuning") and not model.strengths:
            raise InvalidInputError(f"{model.name} has no adapter; /model bundled has one")
        if inspector in ("temperatures", "strengths", "compare"):
            prompt, seed, context = draft, slot.sampler.seed, self.context
            if slot.reply_mode == "conversation" and not context.roles.speaker:
                context = replace(context, roles=context.roles._replace(speaker=slot.answerer))
            if reply is not None and not draft:
                roles = Roles(reply.speaking_as, reply.speaker, reply.system_prompt)
                prompt, context = reply.prompt or "", PromptContext(reply.reply_mode, reply.turn.previous_reply, roles)
                seed = seed if reply.num_shared_tokens else reply.seed  # of a whole reply, which a column then repeats
            ladders = {"temperatures": comparison.LadderScreen, "strengths": comparison.StrengthLadderScreen}
            columns, reader = ladders.get(inspector, comparison.SideBySideScreen), self.conversation.reader
            return columns(model, prompt, slot.sampler.settings, seed, slot.pace, context, reader)
        text = to_prompt_line(draft) if reply is None else reply.full_text()
        is_own = reply is not None and (inspector != "tuning" or bool(reply.session_model.strengths))
        if reply is not None and is_own and not (reply.session_model.cast and model.cast):
            model = reply.session_model  # a conversation is the same text for all models that know speakers
        path = [] if reply is None else reply.path()
        names = tuple(dict.fromkeys(name for each in path for name in (each.speaking_as, each.speaker) if name))
        if inspector in ("lens", "tuning"):
            reads_line_ends, shows_tuning = "\n" in text and not model.cast, inspector == "tuning"
            return lens.LensScreen(
                model, text, names, reads_line_ends=reads_line_ends, shows_tuning=shows_tuning,
                num_written=0 if reply is None else len(reply.reply_text()),
            )  # fmt: skip
        return (copied.CopiedScreen if inspector == "copied" else create_inside_screen)(model, text, names)

    # Saved sessions

    def export(self, path: str = "") -> None:
        """Export the session to a path that does not exist yet, or ask for one."""
        from lotr_tui.screens.dialogs.sessions import ask_to_export_session  # with the dialogs, only if needed

        if not self.conversation.session.name:
            raise InvalidInputError("this session has no reply yet that could be exported")
        session = self.conversation.session.path
        if not path:
            ask_to_export_session(self.screen, session, partial(self.notify, markup=False))  # type: ignore[arg-type]
            return
        target = export.check_session_target(path)
        if target.missing_folder is not None:
            raise InvalidInputError(f"the folder {target.missing_folder} does not exist; choose another one")
        export.export_session(session_file.load_session(session), target.path)
        self.notify(f"Exported to {printable(str(target.path))}", markup=False)

    def choose_session(self) -> None:
        from lotr_tui.screens.dialogs.sessions import SessionChoice, SessionsScreen

        def chosen(choice: SessionChoice | None) -> None:
            if choice is not None:
                self.open_session(None if choice == "new" else choice)

        self.app.push_screen(SessionsScreen(self.conversation.session), chosen)

    def open_session(self, path: Path | None = None) -> bool:
        """Show a saved session, or an empty one, in place of the current one; return True if that was possible."""
        if problem := self.conversation.session.save_again():
            text = f"this conversation is not saved and would be lost: {problem}; free some space first"
            self.notify(text, severity="warning", markup=False)
            return False
        model, pace, reader = self.slot.session_model, self.slot.pace, self.conversation.reader
        try:
            new = Conversation(pace, reader=reader) if path is None else Conversation.resume(path, model, pace, reader)
        except LotrError as error:
            self.notify(str(error), severity="error", markup=False)
            return False
        self._noted_contexts.clear()
        self.edited_reply = None
        self.leave_words()
        self.search_bar.close()
        self.conversation.close()
        self.conversation = new
        self.transcript.replace_entries(0, [Note(model.welcome_text(self.slot.roles.speaker)), *new.selected_replies()])
        if new.session.setup is not None:
            self.screen.run_worker(self._restore(new, new.session.setup), exclusive=True, group="load")
        self.transcript.scroll_end(animate=False)
        self._show_notice()
        self._on_change(True)
        return True

    async def _restore(self, conversation: Conversation, setup: SessionSetup) -> None:
        """Bring back what a saved session had, meanwhile shown with the model before it, and note what is missing."""
        missing = await self.slot.restore(setup)
        while conversation.active_reply is not None:
            await asyncio.sleep(POLL_INTERVAL)
        if conversation is not self.conversation:
            return
        model = self.slot.session_model
        conversation.restore(model)
        self.leave_words()
        entries: list[Entry] = [Note(model.welcome_text(self.slot.roles.speaker))]
        entries += conversation.selected_replies()
        entries += [entry for entry in self.transcript.entries[1:] if isinstance(entry, Note)]
        entries += [Note(printable(line)) for line in missing]
        self.transcript.replace_entries(0, entries)
        self._on_change(True)


def create_inside_screen(model: SessionModel, text: str, names: tuple[str, ...] = ()) -> screen.Screen[None]:
    """Create the screen of the attention of a model, or else of its gates, on a text."""
    from lotr_tui.screens.inspect import attention, layers

    has_attention = find_attention_model(model.model) is not None
    return (attention.AttentionScreen if has_attention else layers.ActivationsScreen)(model, text, names)
