"""Saved sessions as scripts: the visible line of each turn under the name of its speaker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.data.speakers import MAX_NAME_CHARACTERS, SOMEONE, STRANGER, display_name
from engine.errors import printable
from lotr_tui.session.saved_session import SavedReply, SavedSession, SavedToken, join_pieces


class ScriptLine(NamedTuple):
    """Line of a script, printable on one line."""

    speaker: str
    """Name as a script has it, such as "Gandalf"; empty for a text without speakers."""
    text: str

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text}" if self.speaker else self.text


@dataclass(frozen=True)
class Scene:
    """Replies with one beginning: the visible path among them, and the answers in other branches."""

    lines: tuple[ScriptLine, ...]
    """Lines of the visible path, of the user and of the model."""
    other_answers: tuple[ScriptLine, ...]
    """Answers of other branches, without answers that were drawn together with a better one and never shown."""
    reply_ids: frozenset[int]
    """All replies of the scene."""
    has_speakers: bool
    """True if the path ends in a conversation."""


class _SavedTurn(NamedTuple):
    """The complete answer of a turn, and the reply that has the prompt of the turn."""

    answer: SavedReply
    start: SavedReply
    tokens: tuple[SavedToken, ...]

    def lines(self) -> Iterator[ScriptLine]:
        """Yield the prompt, if there is one, and the answer."""
        prompt, text = self.start.prompt or "", join_pieces(self.tokens)
        if self.answer.reply_mode == "continue":
            prompt, text = "", prompt + text
        prompt, text = printable(prompt), printable(text)
        is_dialogue = self.answer.reply_mode == "conversation"
        if prompt:
            yield ScriptLine(display_name(self.start.speaking_as or STRANGER) if is_dialogue else "", prompt)
        if text:
            speaker = display_name(self.answer.speaker)
            yield ScriptLine(speaker or (self._model_name if is_dialogue else ""), text)

    @property
    def _model_name(self) -> str:
        """Speaker of an answer without a cast: the name of a model with a chat template, or else someone."""
        is_chat = self.answer.tokenizer == "pretrained"
        return printable(self.answer.model)[:MAX_NAME_CHARACTERS] if is_chat else display_name(SOMEONE)


def to_text(session: SavedSession) -> str:
    """Return the visible lines of a session as a script, "Name: text", with an empty line between two scenes.

    A model can be trained on the script of conversations. Texts without speakers have no names.
    """
    return "\n".join("".join(f"{line}\n" for line in scene.lines) for scene in read_scenes(session))


def read_scenes(session: SavedSession) -> list[Scene]:
    """Return the scenes of a session in the order of their beginnings."""
    replies_by_root: dict[int, list[SavedReply]] = {}
    root_of: dict[int, int] = {}
    for reply in sorted(session.replies, key=lambda reply: reply.id):  # parents come before their replies
        root_of[reply.id] = reply.id if reply.parent_id is None else root_of[reply.parent_id]
        replies_by_root.setdefault(root_of[reply.id], []).append(reply)
    return [_read_scene(session, replies) for replies in replies_by_root.values()]


def _read_scene(session: SavedSession, replies: list[SavedReply]) -> Scene:
    shown = [reply for reply in replies if reply.score is None or reply.score.rank == 1]
    last = next((reply for reply in replies if reply.id == session.current_id), (shown or replies)[-1])
    turns: list[_SavedTurn] = []
    previous: SavedReply | None = last
    while previous is not None:
        turn = _complete_turn(session, previous)
        turns.append(turn)
        previous = None if turn.start.parent_id is None else session.replies_by_id[turn.start.parent_id]
    left_out = {turn.answer.id for turn in turns} | _continued_ids(session, replies)
    others = [_complete_turn(session, reply) for reply in shown if reply.id not in left_out]
    return Scene(
        lines=tuple(line for turn in reversed(turns) for line in turn.lines()),
        other_answers=tuple(line for turn in others for line in list(turn.lines())[-1:]),
        reply_ids=frozenset(reply.id for reply in replies),
        has_speakers=last.reply_mode == "conversation",
    )


def _continued_ids(session: SavedSession, replies: Sequence[SavedReply]) -> set[int]:
    """Return the replies that another reply of `replies` continues, so that all of their text is in that one."""
    return {
        parent.id
        for reply in replies
        if reply.prompt is None and reply.parent_id is not None
        if (parent := session.replies_by_id[reply.parent_id]).tokens and reply.parent_offset == len(parent.tokens)
    }


def _complete_turn(session: SavedSession, answer: SavedReply) -> _SavedTurn:
    """Return an answer with the tokens that it shares with the branches it comes from."""
    start, tokens = answer, answer.tokens
    while start.prompt is None and start.parent_id is not None:
        parent = session.replies_by_id[start.parent_id]
        tokens = parent.tokens[: start.parent_offset] + tokens
        start = parent
    return _SavedTurn(answer, start, tokens)
