"""Sessions go on: the tree of replies is built again from what was saved.

What the model had read is not saved. It is read again where it is needed, as where it was let go.
"""

from collections.abc import Sequence
from pathlib import Path

from engine.data.vocabulary import EOS_ID
from engine.errors import printable
from engine.generation.generate import Done, TokenEvent
from lotr_tui.session.conversation import Conversation, Reply, Turn
from lotr_tui.session.player import Player
from lotr_tui.session.saved_session import Node, SavedSession, Word
from lotr_tui.session.session_file import SessionError, SessionWriter, load_session


def resume(path: Path, player: Player, pace: float) -> Conversation:
    """Go on with a saved session, in its file; `player` reads what is needed of it.

    Where the file is not to be had, another window's for instance, what comes is saved as a new session, and
    `notice` says so.

    Raises:
        SessionError: it is gone, or damaged; then it has been set aside.
    """
    try:
        writer = SessionWriter.resume(path)
    except SessionError as error:
        try:
            session = load_session(path)
        except SessionError:
            raise error from None
        conversation = rebuild(session, player, pace)
        conversation.notice = f"{error}; what you add here is saved as a new session"
        return conversation
    return rebuild(writer.session, player, pace, writer)


def rebuild(session: SavedSession, player: Player, pace: float, writer: SessionWriter | None = None) -> Conversation:
    """The conversation as it was left, the same branch looked at; it goes on in `writer` (None: in a new file)."""
    conversation = Conversation(pace, writer)
    replies: dict[int, Reply] = {}
    for node in sorted(session.nodes, key=lambda node: node.id):  # the order in which they came
        parent = None if node.parent is None else replies[node.parent]
        if parent is None or node.prompt is not None:
            reply = _prompted(node, player, parent)
        else:
            reply = _branch(node, player, parent)
        reply.turn.replies.append(reply)
        reply.turn.chosen = len(reply.turn.replies) - 1
        _fill(reply, node)
        replies[node.id] = conversation.replies[reply.exchange] = reply
        conversation.last = reply
    for reply in replies.values():
        reply.turn.mark()
    looked_at = conversation.last if session.current is None else replies[session.current]
    if looked_at is not None:
        conversation.last = _look_at(looked_at)
    return conversation


def shown(conversation: Conversation) -> list[Reply]:
    """The replies that are looked at, in the order in which their turns came."""
    turns = list(dict.fromkeys(reply.turn for reply in conversation.replies.values()))
    lines = [reply for turn in turns if turn.before is None for reply in turn.reply.line()]
    place = {turn: number for number, turn in enumerate(turns)}
    return sorted(lines, key=lambda reply: place[reply.turn])


def _prompted(node: Node, player: Player, after: Reply | None) -> Reply:
    """A reply that begins its turn, without its words. Where prompts were edited, several share a turn."""
    if after is None:
        turn = Turn(None)
    else:
        turn = after.next = after.next or Turn(after)
    vocabulary = player.model.vocabulary
    prompt = printable(node.prompt or "")
    line = vocabulary.tokenize(prompt)
    context = vocabulary.encode(line).tolist()
    if node.way == "reply":
        context.append(EOS_ID)
    if after is not None:
        context = [*after.ids(), EOS_ID, *context]
    reply = Reply(node.id, turn, player, prompt, node.unknown, node.way, node.settings, node.seed, context)
    reply.parent, reply.at = after, node.at
    reply.foreign = "" if after is None else after.foreign
    _check(reply, [word for word in line if word not in node.unknown])
    return reply


def _branch(node: Node, player: Player, parent: Reply) -> Reply:
    """A reply that goes on from another one of its turn, with the words that it shares with it."""
    turn, context = parent.turn, parent.context
    reply = Reply(node.id, turn, player, parent.prompt, parent.unknown, node.way, node.settings, node.seed, context)
    reply.parent, reply.at, reply.shared = parent, node.at, parent.shared + node.at
    reply.words = parent.words[: reply.shared]
    reply.readings = [None] * reply.shared
    reply.exchange.words = [word.text for word in reply.words]
    reply.foreign = parent.foreign
    goes_on = reply.shared == len(parent.words) and parent in turn.replies
    if not goes_on:
        reply.exchange.shared = reply.shared
    elif parent.next is None:  # it took the place of what it was
        turn.replies.remove(parent)
    return reply


def _fill(reply: Reply, node: Node) -> None:
    """Its own words, its name, and how it ended."""
    _check(reply, [word.text for word in node.words])
    for word in node.words:
        event = _event(word, len(reply.words), reply.player)
        reply.words.append(event)
        reply.exchange.add([event])
    reply.saved = node
    reply.name = printable(node.name)
    if node.reason == "error":
        reply.exchange.fail("by an error, or the end of the session")
        return
    tokens = node.settings.max_tokens if node.reason == "length" else len(node.words)
    reply.done = Done(node.reason, node.seed, tokens, node.words_per_second)
    reply.exchange.add([reply.done])


def _check(reply: Reply, words: Sequence[str]) -> None:
    """Note that the model at hand cannot read these words, where it does not know one of them."""
    unknown = next((word for word in words if word not in reply.player.model.vocabulary), None)
    if unknown is not None and not reply.foreign:
        reply.foreign = f"{reply.player.name} does not know {unknown!r}, so that it cannot go on from here"


def _event(word: Word, index: int, player: Player) -> TokenEvent:
    """A word as it came, with the id that the model at hand knows it by."""
    id = int(player.model.vocabulary.encode([word.text])[0])
    logprob = min(word.logprob, 0.0)  # a file that somebody wrote may have any
    return TokenEvent(index, id, word.text, logprob, word.prob, word.rank, word.entropy, kept=0, top=(), seconds=0.0)


def _look_at(reply: Reply) -> Reply:
    """Choose it in its turn, and what it answers in the turns before: the reply at the end of what is seen then."""
    at: Reply | None = reply
    while at is not None:
        if at in at.turn.replies:  # else another one took its place
            at.turn.chosen = at.turn.replies.index(at)
        at = at.turn.before
    return reply.turn.reply.line()[-1]
