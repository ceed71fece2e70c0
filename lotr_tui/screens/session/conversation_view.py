"""The conversation on the screen: its transcript, the walk over its words, and a search in it."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer

from engine.data.vocabulary import EOS, EOS_ID
from engine.errors import LotrError
from engine.generation.generate import ALTERNATIVES
from engine.generation.preview import preview
from engine.generation.settings import SamplerSettings
from lotr_tui.clipboard import copy
from lotr_tui.screens.session.conversation_bindings import CONVERSATION_KEYS
from lotr_tui.screens.session.search_bar import SearchBar
from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.screens.session.word_inspector import Inspected
from lotr_tui.session.conversation import Conversation, Reply
from lotr_tui.session.entries import Exchange, Note
from lotr_tui.session.player import Player, Reader
from lotr_tui.session.restore import resume, shown
from lotr_tui.session.settings import Way

DRAIN_SECONDS = 0.05

Asked = Callable[[], tuple[SamplerSettings, int]]
"""What the controls say now: settings, and a seed to use; raises UnusableInput."""


class ConversationView(Vertical):
    """Words come into it as they are written; what can be done with a reply is an action of it.

    An action is about the reply that the cursor is on, or else the latest.
    """

    DEFAULT_CSS = """
    ConversationView { width: 1fr; }
    ConversationView Transcript { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = CONVERSATION_KEYS

    class Changed(Message):
        """Words came, or the last ones have."""

        def __init__(self, *, ended: bool) -> None:
            super().__init__()
            self.ended = ended

    class Inspecting(Message):
        """A word is looked at; None: no more."""

        def __init__(self, inspected: Inspected | None) -> None:
            super().__init__()
            self.inspected = inspected

    class Marking(Message):
        """Another alternative is to be marked."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    class Editing(Message):
        """A prompt is to be typed anew."""

        def __init__(self, reply: Reply) -> None:
            super().__init__()
            self.reply = reply

    def __init__(self, welcome: str, pace: float, asked: Asked, *, id: str | None = None) -> None:
        """Ask `asked` for the settings of what is to be written."""
        super().__init__(id=id)
        self.conversation = Conversation(pace)
        self.marked = 1
        """The alternative that enter branches to."""
        self._welcome = welcome
        self._asked = asked
        self._inspected: Inspected | None = None
        self._reader: Reader | None = None  # of words whose readings are not kept
        self._cursor_to_be: int | None = None  # the word chosen for a branch, which has not come yet

    def compose(self) -> ComposeResult:
        """The transcript, and a line to search it, which is not seen before it is asked for."""
        yield Transcript(self._welcome, id="transcript")
        yield SearchBar(id="search")

    def on_mount(self) -> None:
        """Words are looked for only while there are some to come."""
        self._drain_timer: Timer = self.set_interval(DRAIN_SECONDS, self._drain, pause=True)

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        self.conversation.close()

    @property
    def transcript(self) -> Transcript:
        """Where it is shown."""
        return self.query_one("#transcript", Transcript)

    @property
    def reply(self) -> Reply | None:
        """The reply that the cursor is on, or else the latest."""
        place = self.transcript.cursor
        entry = None if place is None else self.transcript.entries[place[0]]
        return self.conversation.replies.get(entry) if isinstance(entry, Exchange) else self.conversation.last

    def note(self, text: str) -> None:
        """A line of our own."""
        self.transcript.append(Note(text))

    def send(self, player: Player, text: str, way: Way, after: Reply | None) -> None:
        """Have a prompt continued or answered, the latter behind `after`.

        Raises:
            LotrError: it cannot be read, or a control is out of range, or words are still coming.
        """
        shown = after.next.reply if after is not None and after.next is not None else None
        settings, seed = self._asked()
        reply = self.conversation.prompt(player, text, way, settings, seed, after)
        self._began(reply, shown)

    # The words that come

    def _drain(self) -> None:
        """Show the words that came since the last tick."""
        reply = self.conversation.poll()
        if reply is not None:
            if reply.exchange in self.transcript.entries:  # else another branch is looked at in the meantime
                self._show_words(reply)
            self.post_message(self.Changed(ended=self.conversation.writing is None))
        if self.conversation.writing is None:
            self._drain_timer.pause()
            self._tell_notice()
            if self.conversation.full and self.transcript.cursor is None:  # nobody walks over its words
                self._put_away()

    def _put_away(self) -> None:
        """So much was said that another conversation begins; of this one the last reply stays in sight."""
        full, last = self.conversation, self.conversation.last
        full.close()
        self.close_search()
        self.conversation = Conversation(full.pace)
        where = f"as {full.name}: ctrl+s opens it" if full.name else "nowhere, as it could not be saved"
        note = Note(f"So many words were said that another session begins here. The one before is kept {where}.")
        self.transcript.replace(0, [*([last.exchange] if last else []), note])
        self.transcript.scroll_end(animate=False)

    def _tell_notice(self) -> None:
        if self.conversation.notice:
            self.notify(self.conversation.notice, severity="warning", markup=False)
            self.conversation.notice = ""

    def _show_words(self, reply: Reply) -> None:
        """Words of it have come."""
        index = self._index(reply)
        self.transcript.changed(index)
        if self._cursor_to_be is not None and len(reply.words) > self._cursor_to_be:
            self.transcript.walk(index, self._cursor_to_be)
            self._cursor_to_be = None
        cursor = self.transcript.cursor
        if self.conversation.writing is None and cursor is not None and cursor[0] == index:
            self._look(reply.exchange, cursor[1])  # it is the word of so many now

    def _began(self, reply: Reply, shown: Reply | None) -> None:
        """A reply is being written, in place of the one shown until now; None: behind all."""
        if shown is None:
            self.transcript.append(reply.exchange)
        else:
            self._swap(shown, reply)
        self._drain_timer.resume()

    def _swap(self, old: Reply, new: Reply) -> None:
        """Show another reply of a turn, and what followed on it."""
        index = self._index(old)
        gone = {reply.exchange for reply in old.line()}
        rest = [entry for entry in self.transcript.entries[index + 1 :] if entry not in gone]
        self.conversation.show(new)
        self.transcript.replace(index, [*(reply.exchange for reply in new.line()), *rest])

    def _index(self, reply: Reply) -> int:
        return self.transcript.entries.index(reply.exchange)

    # Walking, branching

    def action_walk(self) -> None:
        """Put the cursor on the last word of the latest reply."""
        if not self.transcript.walk():
            self.notify("There is no reply yet: type a prompt first.")

    def leave(self) -> bool:
        """Take the cursor from the words; tells whether it was there."""
        was = self._inspected is not None
        self._inspected = self._cursor_to_be = self._reader = None
        self.transcript.leave()
        if was:
            self.post_message(self.Inspecting(None))
        return was

    @on(Transcript.Walked)
    def _inspect(self, event: Transcript.Walked) -> None:
        event.stop()
        self._look(event.exchange, event.word)

    def _look(self, exchange: Exchange, word: int) -> None:
        """What is known of a word."""
        reply = self.conversation.replies.get(exchange)
        if reply is None or word >= len(reply.words):
            return
        reading = reply.reading(word)
        ids = reply.ids(word)
        if reading is not None:
            log_probs = reading.log_probs
        else:  # let go, for there were too many, or of a session that was resumed
            if self._reader is None or self._reader.model is not reply.player.model:
                self._reader = Reader(reply.player.model)
            log_probs = self._reader.after(ids)
        history = [id for id in ids if id != EOS_ID]
        vocabulary = reply.player.model.vocabulary
        next_words = preview(log_probs, reply.settings, history, vocabulary, ALTERNATIVES, first=word == 0)
        self._inspected = Inspected(reply.words[word], word + 1, len(reply.words), next_words)
        self.post_message(self.Inspecting(self._inspected))

    def action_mark(self, step: int) -> None:
        """Mark another alternative."""
        self.post_message(self.Marking(step))

    def action_take_marked(self) -> None:
        """Branch to the alternative that is marked."""
        self.action_take(self.marked)

    def action_take(self, number: int) -> None:
        """Branch to an alternative of the word under the cursor."""
        inspected, place, reply = self._inspected, self.transcript.cursor, self.reply
        if inspected is None or place is None or reply is None or number > len(inspected.alternatives):
            return
        text = inspected.alternatives[number - 1].text
        if reply.foreign:
            self.notify(reply.foreign, severity="warning", markup=False)
        elif text == EOS:
            self.notify("<eos> is where the text would end; choose a word to branch to.", markup=False)
        elif text == inspected.word.text:
            self.notify(f"{text!r} is the word that stands there.", markup=False)
        else:
            self._branch(reply, place[1], reply.player.model.vocabulary.index[text])

    def action_again(self) -> None:
        """Say the reply anew, with another seed."""
        if self.reply is not None:
            reply = self.reply
            self._branch(reply, 0, None)

    def action_more(self) -> None:
        """Go on behind the reply's last word."""
        if self.reply is not None:
            self._branch(self.reply, len(self.reply.words), None)

    def _branch(self, reply: Reply, word: int, token: int | None) -> None:
        try:
            settings, seed = self._asked()
            new = self.conversation.branch(reply, word, token, settings, seed)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        walking = self.transcript.cursor is not None
        self._began(new, reply)
        if walking:
            self._cursor_to_be = word

    def action_edit(self) -> None:
        """Type its prompt anew."""
        if self.reply is not None:
            self.post_message(self.Editing(self.reply))

    def action_version(self, step: int) -> None:
        """The branch beside this one."""
        reply = self.reply
        if reply is not None:
            replies = reply.turn.replies
            self._show(reply, replies[(replies.index(reply) + step) % len(replies)])

    def action_parent(self) -> None:
        """The branch that this one left."""
        reply = self.reply
        parent = None if reply is None or reply.prompted else reply.parent
        if reply is not None and parent is not None and parent in reply.turn.replies:
            self._show(reply, parent)

    def _show(self, old: Reply, new: Reply) -> None:
        if new is old:
            self.notify("There is no other branch yet: a digit branches to an alternative.")
            return
        place, self._cursor_to_be = self.transcript.cursor, None
        comparing = bool(old.exchange.others)
        old.exchange.others = ()
        self._swap(old, new)
        if comparing:
            self._compare(new)
        if place is not None:
            if new.words:
                self.transcript.walk(self._index(new), min(place[1], len(new.words) - 1))
            else:
                self._cursor_to_be = 0
        self.post_message(self.Changed(ended=True))

    def action_compare(self) -> None:
        """Show all branches of the turn below this one, or no more."""
        reply = self.reply
        if reply is None:
            return
        if reply.exchange.others:
            reply.exchange.others = ()
        elif len(reply.turn.replies) == 1:
            self.notify("There is no other branch yet to compare with.")
        else:
            self._compare(reply)
        self.transcript.changed(self._index(reply))

    def _compare(self, reply: Reply) -> None:
        others = [other.exchange for other in reply.turn.replies if other is not reply]
        reply.exchange.others = [(other.mark, other.words) for other in others]
        self.transcript.changed(self._index(reply))

    def action_copy(self) -> None:
        """Send the prompt and its reply to the terminal's clipboard, and say what was done."""
        said = "" if self.reply is None else self.reply.text()
        self.notify(copy(self.app, said), markup=False)

    def action_name(self) -> None:
        """Ask what the branch is called."""
        from lotr_tui.screens.dialogs.name import AskName

        reply = self.reply
        if reply is None:
            return

        def named(name: str | None) -> None:
            if name is not None:
                self.conversation.rename(reply, name)
                self.transcript.changed(self._index(reply))

        self.app.push_screen(AskName(reply.name), named)

    # Sessions saved before

    def choose_session(self, player: Player, opened: Callable[[], None]) -> None:
        """List them; one that is chosen takes the place of this one, read by `player`, and `opened` is called."""
        from lotr_tui.screens.dialogs.sessions import SessionsScreen

        def chosen(path: Path | None) -> None:
            if path is not None and self._open(path, player):
                opened()

        self.app.push_screen(SessionsScreen(self.conversation.name), chosen)

    def _open(self, path: Path, player: Player) -> bool:
        try:
            conversation = resume(path, player, self.conversation.pace)
        except LotrError as error:
            self.notify(str(error), severity="error", markup=False)
            return False
        self.leave()
        self.close_search()
        self.conversation.close()
        self.conversation = conversation
        self.transcript.replace(0, [Note(self._welcome), *(reply.exchange for reply in shown(conversation))])
        self.transcript.scroll_end(animate=False)
        self._tell_notice()
        self.post_message(self.Changed(ended=True))
        return True

    # Searching

    def action_find(self) -> None:
        """Open the search, or go into it."""
        self.query_one(SearchBar).open()

    def close_search(self) -> bool:
        """Close it; tells whether it was open."""
        bar = self.query_one(SearchBar)
        was = bar.is_open
        if was:
            bar.close()
        return was

    @on(SearchBar.Asked)
    def _find(self, event: SearchBar.Asked) -> None:
        event.stop()
        self.query_one(SearchBar).show(*self.transcript.find(event.query, event.step))
