"""What is said in a session, as a tree: replies, what was read with each of their words, and who writes now."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from engine.data.vocabulary import EOS_ID
from engine.errors import UnusableInput, printable, reason_of
from engine.generation.generate import Done, Reading, TokenEvent, choose, encode_prompt, go_on, read
from engine.generation.settings import SamplerSettings
from engine.runtime.worker import Cancellation, Worker, paced
from lotr_tui.session.entries import Exchange
from lotr_tui.session.player import Player
from lotr_tui.session.saved_session import Node, Word
from lotr_tui.session.session_file import SessionError, SessionWriter
from lotr_tui.session.settings import Way
from lotr_tui.session.state_cache import KeptReadings, let_models_go

MOST_WORDS = 20_000
"""After so many a conversation is full: it is put away, so that neither memory nor its file grows for ever."""

STOPS_SECONDS = 0.5
"""Waited at most for the words to end, when all does; a long prompt may still be read then."""

Event = Reading | tuple[TokenEvent, Reading] | Done


class Turn:
    """A place where the model spoke: its replies there, of which one is looked at."""

    def __init__(self, before: "Reply | None") -> None:
        self.before = before
        """The reply that this turn answers, in a conversation."""
        self.replies: list[Reply] = []
        self.chosen = 0

    @property
    def reply(self) -> "Reply":
        """The one that is looked at."""
        return self.replies[self.chosen]

    def mark(self) -> None:
        """Write on each reply which branch it is."""
        many = len(self.replies) > 1
        for number, reply in enumerate(self.replies, 1):
            where = f"branch {number} of {len(self.replies)}" if many else ""
            reply.exchange.mark = f"{where} {reply.name!r}".strip() if reply.name else where


class Reply:
    """The words that the model said behind a prompt, from its first one on: a node of the tree."""

    def __init__(
        self,
        id: int,
        turn: Turn,
        player: Player,
        prompt: str,
        unknown: tuple[str, ...],
        way: Way,
        settings: SamplerSettings,
        seed: int,
        context: Sequence[int],
    ) -> None:
        self.id = id
        self.turn = turn
        self.player = player
        self.prompt = prompt
        self.unknown = unknown
        self.way = way
        self.settings = settings
        self.seed = seed
        self.context = context
        """Ids before its first word."""
        self.parent: Reply | None = None
        """The reply it goes on from: that of the turn before, or the one of its turn that it branches off."""
        self.at = 0
        """So many of the parent's own words stand before it."""
        self.shared = 0
        """So many of the words are the parent's, or of those before it in this turn."""
        self.words: list[TokenEvent] = []
        self.readings: list[Reading | None] = []
        """Before each word, and behind the last; what was let go is None, or not there."""
        self.done: Done | None = None
        self.name = ""
        self.saved: Node | None = None
        """What it was built from, in a session that was resumed."""
        self.foreign = ""
        """Why its player cannot go on from it, where another model said it."""
        self.next: Turn | None = None
        """What was said after it, in a conversation."""
        self.exchange = Exchange(prompt, unknown, seed, settings.chain())

    @property
    def prompted(self) -> bool:
        """Whether it begins its turn; else it branches off a reply that does."""
        return self.parent is None or self.parent.turn is not self.turn

    def ids(self, words: int | None = None) -> list[int]:
        """What was read up to a word of it, prompt and earlier turns included; None: all."""
        return [*self.context, *(word.id for word in self.words[:words])]

    def text(self) -> str:
        """Its prompt and its words."""
        return " ".join([self.prompt, *(word.text for word in self.words)])

    def reading(self, word: int) -> Reading | None:
        """What was read before a word, where it is kept."""
        return self.readings[word] if word < len(self.readings) else None

    def place(self, word: int) -> tuple["Reply", int]:
        """Whose word it is, and the how manieth of its own. The first word of a branch is a choice of its parent's."""
        reply = self
        while word <= reply.shared and not reply.prompted:
            assert reply.parent is not None
            reply = reply.parent
        return reply, word - reply.shared

    def line(self) -> list["Reply"]:
        """It, and the replies looked at in the turns that followed."""
        line = [self]
        while line[-1].next is not None:
            line.append(line[-1].next.reply)
        return line

    def node(self) -> Node:
        """As it is saved."""
        if self.saved is not None:
            return replace(self.saved, name=self.name)
        return Node(
            id=self.id,
            parent=None if self.parent is None else self.parent.id,
            at=self.at,
            prompt=self.prompt if self.prompted else None,
            way=self.way,
            words=tuple(Word.of(word) for word in self.words[self.shared :]),
            seed=self.seed,
            settings=self.settings,
            reason="error" if self.done is None else self.done.reason,
            words_per_second=0.0 if self.done is None else self.done.tokens_per_second,
            model=self.player.name,
            unknown=self.unknown if self.prompted else (),
            name=self.name,
        )


class Conversation:
    """All that was said. One reply is written at a time, in a thread; `poll` takes in what came of it.

    A reply that goes on, or branches off another one, starts from the reading kept there: nothing is read again.
    """

    def __init__(self, pace: float, writer: SessionWriter | None = None) -> None:
        """What is said is saved by `writer`; None: in a file of its own, made with the first reply."""
        self.pace = pace
        """Words a second; 0 is as fast as they come."""
        self.writing: Reply | None = None
        self.last: Reply | None = None
        """The reply at the end of what is looked at: a conversation goes on from it."""
        self.replies: dict[Exchange, Reply] = {}
        self.notice = ""
        """What there is to say about saving, once."""
        self._worker: Worker[Event] | None = None
        self._writer = writer
        self._kept = KeptReadings()

    @property
    def name(self) -> str:
        """Of the session, which its file is called after; empty before there is one."""
        return "" if self._writer is None else self._writer.session.name

    @property
    def full(self) -> bool:
        """Whether it has as many words as are kept."""
        return sum(len(reply.words) - reply.shared for reply in self.replies.values()) > MOST_WORDS

    # Ways to have the model speak

    def prompt(
        self, player: Player, text: str, way: Way, settings: SamplerSettings, seed: int, after: Reply | None
    ) -> Reply:
        """Have a prompt continued, or answered, behind the reply `after`; None begins a text.

        Raises:
            PromptError: it has no word that the model knows.
        """
        prompt = encode_prompt(text, player.model.vocabulary)
        if way == "continue":
            after = None
        kept, unread, context = self.lead(player, prompt.ids, way, after)
        turn = Turn(after) if after is None or after.next is None else after.next
        reply = self._new(turn, player, printable(prompt.text), prompt.unknown, way, settings, seed, context)
        if after is not None:
            after.next = turn
        reply.parent = after
        reply.at = 0 if after is None else len(after.words) - after.shared
        self._write(reply, kept, unread, None)
        return reply

    def lead(
        self, player: Player, line: Sequence[int], way: Way, after: Reply | None
    ) -> tuple[Reading | None, list[int], list[int]]:
        """What comes before a reply to `line`: a reading that is kept, what is to be read behind it, and all ids."""
        if way == "continue":
            return None, list(line), list(line)
        line = [*line, EOS_ID]
        if after is None:
            return None, line, line
        if after.player.model is player.model and (kept := after.reading(len(after.words))) is not None:
            return kept, [EOS_ID, *line], [*after.ids(), EOS_ID, *line]
        words = after.player.model.vocabulary.words  # perhaps another model's
        said = player.model.vocabulary.encode([words[id] for id in after.ids()]).tolist()
        return None, [*said, EOS_ID, *line], [*said, EOS_ID, *line]

    def branch(self, reply: Reply, word: int, token: int | None, settings: SamplerSettings, seed: int) -> Reply:
        """Say it anew from a word on, `token` in its place; None: whatever is drawn there.

        Behind the last word the reply goes on, and takes the place of what it was.

        Raises:
            UnusableInput: words are still coming, or another model said it in words that its player does not know.
        """
        if reply.foreign:
            raise UnusableInput(reply.foreign)
        goes_on = word == len(reply.words)
        parent, at = (reply, word - reply.shared) if goes_on else reply.place(word)
        new = self._new(reply.turn, reply.player, reply.prompt, reply.unknown, reply.way, settings, seed, reply.context)
        if goes_on and reply.next is None and reply in reply.turn.replies:
            new.name = reply.name
            new.turn.replies.remove(reply)
            new.turn.chosen = len(new.turn.replies) - 1
            new.turn.mark()
        new.parent, new.at, new.shared = parent, at, word
        new.words = reply.words[:word]
        new.exchange.words = [event.text for event in new.words]
        new.exchange.shared = 0 if token is None else word
        kept = reply.reading(word)
        for reading in reply.readings[:word] if kept is not None else [None] * word:
            self._kept.add(new, reading)
        self._write(new, kept, () if kept is not None else reply.ids(word), token)
        return new

    def stop(self) -> None:
        """Ask the words to end; those that came stay."""
        if self._worker is not None:
            self._worker.cancel()

    def poll(self) -> Reply | None:
        """Take in the words that came since the last call: the reply they belong to, if there are any."""
        worker, reply = self._worker, self.writing
        if worker is None or reply is None:
            return None
        ended = not worker.running
        events = worker.drain()
        for event in events:
            if isinstance(event, Done):
                reply.done = event
                reply.exchange.add([event])
            elif isinstance(event, Reading):
                self._kept.add(reply, event)
            else:
                # What else it might have been is computed anew for who asks: of every word it takes most of the room.
                reply.words.append(replace(event[0], top=()))
                self._kept.add(reply, event[1])
                reply.exchange.add([event[0]])
        if ended:
            self._worker = self.writing = None
            if worker.failure is not None:
                reply.exchange.fail(reason_of(worker.failure))
            let_models_go(self.replies.values())
            self.save(reply)
        return reply if events or ended else None

    # The tree

    def show(self, reply: Reply) -> None:
        """Look at this reply of its turn."""
        reply.turn.chosen = reply.turn.replies.index(reply)
        self.last = reply.line()[-1]
        if self._writer is not None:
            with suppress(SessionError):  # told when a reply could not be saved
                self._writer.look_at(self.last.id)  # it tells the branches in the turns before, too

    def rename(self, reply: Reply, name: str) -> None:
        """Call a branch something."""
        reply.name = printable(name)
        reply.turn.mark()
        self.save(reply)

    def save(self, reply: Reply) -> None:
        """Keep it in the session's file; what goes wrong there is in `notice`."""
        if reply is self.writing:
            return  # when it ends
        replies = [reply]
        if self._writer is None:
            self._writer = SessionWriter(reply.player.name)
            replies = [each for each in self.replies.values() if each is not self.writing]  # what it goes on from, too
        try:
            for each in replies:
                self._writer.keep(each.node())
            if self.last is not None and self.last is not self.writing:  # else it is saved when it ends
                self._writer.look_at(self.last.id)
        except SessionError as error:
            self.notice = str(error)

    def close(self) -> None:
        """Leave no thread behind, and the file to others; what came until now is saved."""
        self.stop()
        if self._worker is not None and self._worker.join(STOPS_SECONDS):
            self.poll()
        reply = self.writing
        if reply is not None:
            self._worker = self.writing = None
            self.save(reply)
        if self._writer is not None:
            self._writer.close()

    def _new(
        self,
        turn: Turn,
        player: Player,
        prompt: str,
        unknown: tuple[str, ...],
        way: Way,
        settings: SamplerSettings,
        seed: int,
        context: Sequence[int],
    ) -> Reply:
        if self.writing is not None:
            raise UnusableInput("words are still coming; esc stops them")
        id = max((each.id for each in self.replies.values()), default=-1) + 1
        reply = Reply(id, turn, player, prompt, unknown, way, settings, seed, context)
        self.replies[reply.exchange] = reply
        turn.replies.append(reply)
        turn.chosen = len(turn.replies) - 1
        turn.mark()
        self.last = reply
        return reply

    def _write(self, reply: Reply, kept: Reading | None, unread: Sequence[int], token: int | None) -> None:
        """Read what is unread, take `token` if one is given, then draw."""
        model, settings, seed, pace = reply.player.model, reply.settings, reply.seed, self.pace
        history = [id for id in reply.ids() if id != EOS_ID]  # the end of a line is no word to be repeated
        first = not reply.words

        def source(cancellation: Cancellation) -> Iterator[Event]:
            reading = read(model, unread, kept)
            yield reading
            if token is not None:
                event, reading = choose(model, reading, history, settings, token, first=first)
                history.append(token)
                yield event, reading
            words = go_on(model, reading, history, settings, seed, cancellation, first=first and token is None)
            yield from paced(words, pace, cancellation)

        self.writing = reply
        self._worker = Worker("generation", source).start()
