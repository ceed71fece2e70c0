"""Format of a saved session: a tree of replies, one JSON line per reply.

A file begins with `{"session": {...}}`, followed by one `{"reply": {...}}` per reply. A later line replaces an
earlier one: of the session, or of the reply with the same id (after the reply was named or continued). A token is a
list `[id, text, logprob, prob, rank, entropy, piece]`, in which a figure that is not finite is null.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from engine.config import TokenizerName
from engine.data.speakers import MAX_NAME_CHARACTERS
from engine.data.tokenizers.base import is_open_vocabulary
from engine.errors import InvalidInputError
from engine.generation.generate import FinishReason
from engine.generation.settings import MAX_SEED, SamplerSettings
from engine.storage.schema import decode, parse_json
from lotr_tui.session.answer_score import AnswerScore
from lotr_tui.session.json_store import check_version
from lotr_tui.session.reply_token import ReplyToken
from lotr_tui.session.settings import MAX_SYSTEM_PROMPT_CHARACTERS, ReplyMode

VERSION = 5
"""Format of a session file. In earlier ones, speakers were tokens."""
MAX_LINE_BYTES = 16_000_000
"""Size limit of a line, which takes up to 27 times as much memory once parsed; 100,000 tokens take 8 MB."""
MAX_REPLIES, MAX_TOKENS = 200_000, 1_500_000
"""Limits of a session that is read."""

Index = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Figure = Annotated[float, Meta(gt=-(2**63), lt=2**63)]
SpeakerName = Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS)]

SystemPrompt = Annotated[str, Meta(max_length=MAX_SYSTEM_PROMPT_CHARACTERS)]


class SavedToken(NamedTuple):
    """A `ReplyToken`; a figure that is not finite is None."""

    id: Index
    text: str
    logprob: Figure | None
    prob: Figure | None
    """Probability after the sampler chain."""
    rank: Index
    entropy: Figure | None
    piece: str
    """Text that the token adds to the text before it, with its space."""

    @classmethod
    def from_token(cls, token: ReplyToken) -> "SavedToken":
        """Return a token as it is saved."""
        figures = (token.logprob, token.sampling_prob, token.entropy)
        logprob, prob, entropy = (figure if math.isfinite(figure) else None for figure in figures)
        return cls(token.id, token.text, logprob, prob, token.rank, entropy, token.piece)


@dataclass(frozen=True)
class SavedReply:
    """Prompt and the tokens generated for it, or tokens alone that continue another reply."""

    id: Index
    """Position in the order of generation, from 0 on."""
    parent_id: int | None
    """Id of the reply whose text this reply continues; None begins a text."""
    parent_offset: Index
    """Number of the parent's tokens before this reply; fewer than all if this reply is a branch."""
    prompt: str | None
    """Text that the user typed; None if the reply continues its parent without a prompt."""
    reply_mode: ReplyMode
    tokens: tuple[SavedToken, ...]
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)]
    settings: SamplerSettings
    reason: FinishReason
    tokens_per_second: Figure
    model: str
    """Name of the run whose model generated the reply."""
    unknown_tokens: tuple[str, ...] = ()
    """Tokens of the prompt outside the vocabulary."""
    name: str = ""
    """Name that the user gave the branch."""
    tokenizer: TokenizerName = "words"
    """Tokenizer of the model that generated the reply."""
    num_reread_tokens: Index = 0
    """Number of last tokens of the prompt whose characters the first token repeats."""
    speaking_as: SpeakerName = ""
    """Speaker of the prompt in a conversation; empty for a stranger."""
    speaker: SpeakerName = ""
    """Speaker of the reply; empty if the model knew no speakers."""
    speaker_prob: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Probability of the speaker if the model has chosen it; None if the user has."""
    score: AnswerScore | None = None
    """Score among the answers that were drawn for the turn; None if only one was drawn."""
    system_prompt: SystemPrompt = ""
    """System prompt of a model with a chat template; empty for the one of the template."""

    @property
    def text(self) -> str:
        """The text of the tokens, without the space before the first word, with a line break for each `<eos>`."""
        return join_pieces(self.tokens).removeprefix(" ")

    @property
    def token_noun(self) -> str:
        """Noun for a token in the interface: "word" for a closed vocabulary, "token" for an open one."""
        return "token" if is_open_vocabulary(self.tokenizer) else "word"


def join_pieces(tokens: Iterable[SavedToken]) -> str:
    """Return the text of tokens that were read from a file."""
    return "".join([token.piece for token in tokens])


@dataclass(frozen=True)
class SavedSession:
    """Session as it was left."""

    name: str
    """Stem of the file name."""
    model: str
    """Name of the run that the session began with."""
    started: float
    """Unix time in seconds."""
    replies: tuple[SavedReply, ...] = ()
    current_id: int | None = None
    """Id of the reply that was selected last; None selects the latest."""

    @cached_property
    def replies_by_id(self) -> Mapping[int, SavedReply]:
        """The replies by their ids."""
        return {reply.id: reply for reply in self.replies}


@dataclass(frozen=True)
class SessionHeader:
    """Line of a session file that describes the session itself."""

    version: int
    model: str
    started: Figure
    current_id: int | None

    def __post_init__(self) -> None:
        if not self.model.isprintable():
            raise InvalidInputError("model is not a printable name")
        try:
            datetime.fromtimestamp(self.started)
        except (ValueError, OverflowError, OSError) as error:
            raise InvalidInputError(f"started {self.started:g} is not a time; use seconds since 1970") from error


def header_record(session: SavedSession) -> dict[str, object]:
    """Return the line that describes the session itself, as an object for JSON."""
    return {"session": asdict(SessionHeader(VERSION, session.model, session.started, session.current_id))}


def reply_record(reply: SavedReply) -> dict[str, object]:
    """Return the line that describes a reply, as an object for JSON."""
    score = None if reply.score is None else asdict(reply.score)
    return {"reply": vars(reply) | {"settings": asdict(reply.settings), "score": score}}


def encode_session(session: SavedSession) -> bytes:
    """Return the content of a new file that holds the whole session."""
    records = [header_record(session), *map(reply_record, session.replies)]
    if session.replies and session.current_id != session.replies[-1].id:
        records.append(header_record(session))  # the last line of a file determines the selected reply
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def parse_session(name: str, content: bytes) -> SavedSession:
    """Read a session from the complete lines of its file.

    Raises:
        InvalidInputError: If a line is damaged or of another format, or if the replies do not form a tree.
    """
    header: SessionHeader | None = None
    current_id: int | None = None
    replies: dict[int, SavedReply] = {}
    num_tokens = start = 0
    while (end := content.find(b"\n", start)) >= 0:  # splitting all lines at once takes twice the memory
        kind, record = parse_line(content[start:end])
        start = end + 1
        if kind == "session":
            header = decode_header(record)
            current_id = header.current_id
            continue
        reply = _decode_reply(record)
        num_tokens += len(reply.tokens) - (len(replies[reply.id].tokens) if reply.id in replies else 0)
        if len(replies) > MAX_REPLIES or num_tokens > MAX_TOKENS:
            raise InvalidInputError(f"more than {MAX_REPLIES:,} replies or {MAX_TOKENS:,} tokens")
        replies[reply.id] = reply
        current_id = reply.id
    if header is None:
        raise InvalidInputError("the first line does not describe a session")
    _check_tree(replies)
    current_id = current_id if current_id in replies else None
    return SavedSession(name, header.model, header.started, tuple(replies.values()), current_id)


def parse_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the kind of a line, "session" or "reply", and its content, which is not checked yet.

    Raises:
        InvalidInputError: If the line is of neither kind.
    """
    if len(line) > MAX_LINE_BYTES:
        raise InvalidInputError(f"a line has more than {MAX_LINE_BYTES:,} bytes")
    record = parse_json(line)
    if isinstance(record, dict) and len(record) == 1:
        kind, value = next(iter(record.items()))
        if kind in ("session", "reply") and isinstance(value, dict):
            return kind, value
    raise InvalidInputError("a line describes neither a session nor a reply")


def decode_header(record: dict[str, Any]) -> SessionHeader:
    """Check the content of a session's line.

    Raises:
        InvalidInputError: If the line is of another format, or if a field is missing or invalid.
    """
    check_version(record.get("version"), VERSION)
    return decode(SessionHeader, record)


def _decode_reply(record: dict[str, Any]) -> SavedReply:
    reply = decode(SavedReply, record)
    # The terminal gets these texts as they are.
    if not all(token.text.isprintable() for token in reply.tokens):
        raise InvalidInputError(f"tokens of reply {reply.id}: control characters are not allowed")
    if not all(token.isprintable() for token in reply.unknown_tokens):
        raise InvalidInputError(f"unknown_tokens of reply {reply.id}: control characters are not allowed")
    names = (("speaking_as", reply.speaking_as), ("speaker", reply.speaker), ("system_prompt", reply.system_prompt))
    for field, name in names:
        if not name.isprintable():
            raise InvalidInputError(f"{field} of reply {reply.id}: control characters are not allowed")
    return reply


def _check_tree(replies: Mapping[int, SavedReply]) -> None:
    """Check that each parent precedes its replies, which excludes cycles, and has the tokens they continue."""
    for reply in replies.values():
        if reply.parent_id is None:
            num_parent_tokens = 0
        elif reply.parent_id in replies and reply.parent_id < reply.id:
            num_parent_tokens = len(replies[reply.parent_id].tokens)
        else:
            raise InvalidInputError(f"reply {reply.id} continues reply {reply.parent_id}, which does not precede it")
        if reply.parent_offset > num_parent_tokens:
            raise InvalidInputError(
                f"parent_offset {reply.parent_offset} of reply {reply.id} is out of range; "
                f"its parent has {num_parent_tokens} tokens"
            )
