"""Tree of replies in a conversation: turns, and the alternative replies of each turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.generation.generate import Done, TokenEvent
from engine.generation.prompt import DecoderState
from engine.generation.settings import SamplerSettings
from lotr_tui.formatting import token_noun
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.saved_session import SavedReply, SavedToken
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode


class Turn:
    """One turn of the conversation: alternative replies at the same place, one of them selected."""

    def __init__(self, previous_reply: "Reply | None") -> None:
        self.previous_reply = previous_reply
        """Reply that the prompt of this turn answers; None begins a text."""
        self.replies: list[Reply] = []
        self.selected_index = 0

    @classmethod
    def after(cls, reply: "Reply | None") -> "Turn":
        """Return the turn that answers a reply, which may be new; None returns a turn that begins a text."""
        if reply is None:
            return cls(None)
        reply.next_turn = reply.next_turn or cls(reply)
        return reply.next_turn

    @property
    def selected_reply(self) -> "Reply":
        """The reply that the transcript shows."""
        return self.replies[self.selected_index]

    def add(self, reply: "Reply") -> None:
        """Add a reply and select it."""
        self.replies.append(reply)
        self.selected_index = len(self.replies) - 1

    def label_branches(self) -> None:
        """Write the number and name of its branch on the exchange of each reply."""
        is_branched = len(self.replies) > 1
        for number, reply in enumerate(self.replies, 1):
            label = f"branch {number} of {len(self.replies)}" if is_branched else ""
            reply.exchange.branch_label = f"{label} {reply.name!r}".strip() if reply.name else label


@dataclass(eq=False, repr=False, kw_only=True)
class Reply:
    """Tokens that the model generated after a prompt: a node of the tree."""

    id: int
    """Position in the order of generation, from 0 on."""
    turn: Turn
    session_model: SessionModel
    """Model that generates the tokens, and that a branch of this reply uses."""
    prompt: str
    unknown_tokens: tuple[str, ...]
    """Tokens of the prompt outside the vocabulary."""
    reply_mode: ReplyMode
    settings: SamplerSettings
    seed: int
    context_ids: Sequence[int]
    """Ids of the tokens before the first one: earlier turns and the prompt, without `reread_ids`."""
    reread_ids: Sequence[int] = ()
    """Ids of the last tokens of the prompt if it ends inside a word: the model has not read them, since the first token
    of the reply repeats their characters."""
    parent: "Reply | None" = None
    """Reply that this one continues: the reply of the previous turn, or the reply that this branch leaves."""
    parent_offset: int = 0
    """Number of the parent's own tokens before this reply."""
    num_shared_tokens: int = 0
    """Number of leading tokens that belong to the parent or its ancestors in the same turn."""
    tokens: list[TokenEvent] = field(default_factory=list)
    decoder_states: list[DecoderState | None] = field(default_factory=list)
    """Decoder state before each token and after the last; evicted states are None or missing at the end."""
    done: Done | None = None
    name: str = ""
    """Name that the user gave the branch."""
    saved: SavedReply | None = None
    """Source of a reply that was restored from a file."""
    read_only_reason: str = ""
    """Reason why the session's model cannot continue this reply; empty if it can."""
    next_turn: Turn | None = None
    """Turn that answers this reply."""
    exchange: Exchange = field(init=False)

    def __post_init__(self) -> None:
        self.exchange = Exchange(
            self.prompt,
            self.unknown_tokens,
            self.seed,
            self.settings.describe(),
            continues_prompt=self.reply_mode == "continue",
            noun=token_noun(self.session_model.model.tokenizer),
        )
        self.exchange.add_events(self.tokens)

    @classmethod
    def branch_from(cls, parent: "Reply", parent_offset: int, **fields: Any) -> "Reply":
        """Return a reply of the same turn that shares the parent's text up to its own token `parent_offset`.

        `fields` are the fields that the parent does not determine: id, model, reply mode, settings and seed.
        """
        num_shared_tokens = parent.num_shared_tokens + parent_offset
        return cls(
            turn=parent.turn,
            prompt=parent.prompt,
            unknown_tokens=parent.unknown_tokens,
            context_ids=parent.context_ids,
            reread_ids=parent.reread_ids,
            parent=parent,
            parent_offset=parent_offset,
            num_shared_tokens=num_shared_tokens,
            tokens=parent.tokens[:num_shared_tokens],
            **fields,
        )

    @property
    def starts_turn(self) -> bool:
        """True if the reply follows a prompt; False if it branches off from a reply of the same turn."""
        return self.parent is None or self.parent.turn is not self.turn

    @property
    def num_own_tokens(self) -> int:
        """Number of tokens that no ancestor has generated."""
        return len(self.tokens) - self.num_shared_tokens

    @property
    def has_ended_line(self) -> bool:
        """True if the model ended the reply by `<eos>`, which is not among its tokens."""
        return self.done is not None and self.done.reason == "eos"

    def starts_line(self, index: int) -> bool:
        """Return True if the token at `index` is the first of the reply or of a later line; it cannot be `<eos>`."""
        return index == 0 or self.tokens[index - 1].id == EOS_ID

    def split_context(self, num_reread_tokens: int) -> None:
        """Set how many of the last tokens of the context the first token of the reply repeats."""
        ids = [*self.context_ids, *self.reread_ids]
        end = len(ids) - num_reread_tokens
        self.context_ids, self.reread_ids = ids[:end], ids[end:]

    def token_ids(self, end: int | None = None) -> list[int]:
        """Return the ids of the context and of the tokens before index `end` (None: of all tokens).

        These are the ids that the model has read. Before the first token, they include `reread_ids`, so that they
        always spell the whole text.
        """
        if self.read_only_reason:  # the tokens belong to another vocabulary
            return encode_lines(self.session_model.model.tokenizer, self.full_text(end))
        token_ids = [token.id for token in self.tokens[:end]]
        return [*self.context_ids, *(token_ids or self.reread_ids)]

    def text(self) -> str:
        """Return the prompt and the reply, with a line break for each `<eos>`."""
        return context_text(self.prompt, self.reply_mode, None) + self._reply_text()

    def full_text(self, end: int | None = None) -> str:
        """Return the text that the model has read and written: earlier turns, the prompt and the tokens.

        `end` is the index after the last token; None is the end of the reply. The text is the decoded `token_ids(end)`,
        except for words that the model does not know, punctuation and case.
        """
        return context_text(self.prompt, self.reply_mode, self.turn.previous_reply) + self._reply_text(end)

    def _reply_text(self, end: int | None = None) -> str:
        return "".join([token.piece for token in self.tokens[:end]])

    def decoder_state(self, index: int) -> DecoderState | None:
        """Return the decoder state before a token, or None if it was evicted."""
        return self.decoder_states[index] if index < len(self.decoder_states) else None

    def resolve_token(self, index: int) -> tuple["Reply", int]:
        """Return the reply that a branch at a token leaves, and the index among the own tokens of that reply.

        A branch at the first own token of a branch is another choice of its parent.
        """
        reply = self
        while index <= reply.num_shared_tokens and not reply.starts_turn:
            assert reply.parent is not None
            reply = reply.parent
        return reply, index - reply.num_shared_tokens

    def selected_path(self) -> list["Reply"]:
        """Return this reply and the selected replies of the turns that follow."""
        path = [self]
        while (turn := path[-1].next_turn) is not None:
            path.append(turn.selected_reply)
        return path

    def to_saved(self) -> SavedReply:
        """Return the reply in the form that a session file holds."""
        if self.saved is not None:
            return replace(self.saved, name=self.name)
        return SavedReply(
            id=self.id,
            parent_id=None if self.parent is None else self.parent.id,
            parent_offset=self.parent_offset,
            prompt=self.prompt if self.starts_turn else None,
            reply_mode=self.reply_mode,
            tokens=tuple(SavedToken.from_event(token) for token in self.tokens[self.num_shared_tokens :]),
            seed=self.seed,
            settings=self.settings,
            reason="error" if self.done is None else self.done.reason,
            tokens_per_second=0.0 if self.done is None else self.done.tokens_per_second,
            model=self.session_model.name,
            unknown_tokens=self.unknown_tokens if self.starts_turn else (),
            name=self.name,
            tokenizer=self.session_model.model.tokenizer.name,
            num_reread_tokens=len(self.reread_ids),
        )


def context_text(prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None) -> str:
    """Return the text before a reply to `prompt`: earlier turns and the prompt, with a line break for each `<eos>`."""
    parts = [prompt + ("\n" if reply_mode == "reply" else "")]
    while previous_reply is not None:
        parts.append(f"{previous_reply.text()}\n")
        previous_reply = previous_reply.turn.previous_reply
    return "".join(reversed(parts))


def encode_lines(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text in which each line break is read as `<eos>`.

    In a closed vocabulary, a line without words has no `<eos>`.
    """
    ids: list[int] = tokenize_with_offsets(text, tokenizer, eos_per_line=True).ids.tolist()
    return ids
