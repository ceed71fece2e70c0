"""Tree of replies in a conversation: turns, and the alternative replies of each turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.data.scripts import Turn as SpokenLine
from engine.data.scripts import encode_speaker, speaker_head, turn_text
from engine.data.speakers import SOMEONE, STRANGER
from engine.generation.generate import Done
from engine.generation.prompt import DecoderState
from engine.generation.sampling import model_end_ids
from engine.generation.settings import SamplerSettings
from lotr_tui.formatting import token_noun
from lotr_tui.session.answer_score import AnswerScore
from lotr_tui.session.conversation.cast import describe_choice
from lotr_tui.session.conversation.encoding import encode_lines, encode_said
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.conversation.speaker_labels import chat_speakers, exchange_speakers
from lotr_tui.session.model_abilities import answers_by_template, has_log_probs, reads_line_ends
from lotr_tui.session.reply_token import ReplyToken
from lotr_tui.session.saved_session import SavedReply, SavedToken
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode

OWN_FIELDS = ("id", "reply_mode", "settings", "seed", "speaker", "speaker_prob", "score")
"""Fields that a saved reply has too, and that the parent of a reply does not determine."""
SAVED_FIELDS = (*OWN_FIELDS, "name", "parent_offset", "speaking_as", "system_prompt")
"""Fields that a saved reply has too."""


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
    speaking_as: str = ""
    """Canonical name of who says the prompt in a conversation; empty for a stranger."""
    system_prompt: str = ""
    """Text that tells a model with a chat template who it is; empty for the one of the template."""
    speaker: str = ""
    """Canonical name of who says the reply; empty without a cast, and while the model has not chosen one."""
    speaker_prob: float | None = None
    """Probability of the speaker if the model has chosen it; None if the user has."""
    score: AnswerScore | None = None
    """Score among the answers that were drawn for the turn; None if only one was drawn."""
    parent_offset: int = 0
    """Number of the parent's own tokens before this reply."""
    num_shared_tokens: int = 0
    """Number of leading tokens that belong to the parent or its ancestors in the same turn."""
    tokens: list[ReplyToken] = field(default_factory=list)
    decoder_states: list[DecoderState | None] = field(default_factory=list)
    """Decoder state before each token and after the last; evicted states are None or missing at the end, and states of
    slow models may lack their log-probabilities, see `has_log_probs`."""
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
            marks_line_ends=not reads_line_ends(self.session_model.model),
        )
        self.update_exchange()
        self.exchange.add_pieces(token.piece for token in self.tokens)

    def update_exchange(self) -> None:
        """Show the seed, the speakers and the score on the exchange, after they have changed."""
        self.exchange.seed = self.seed
        if self.is_chat:
            self.exchange.speakers = chat_speakers(self.session_model.label)
        elif self.reply_mode == "conversation":
            self.exchange.speakers = exchange_speakers(self.session_model.cast, self.speaking_as, self.speaker)
            self.exchange.choice = describe_choice(self.speaker, self.speaker_prob)
        self.exchange.best_of = "" if self.score is None else self.score.describe()

    def set_speaker(self, speaker: str, prob: float | None) -> None:
        """Set the speaker, whose name ends the context; `prob` is None if the user chose the speaker."""
        self.context_ids = self.context_ids_before(speaker)
        self.speaker, self.speaker_prob = speaker, prob
        self.update_exchange()

    @classmethod
    def branch_from(cls, parent: "Reply", parent_offset: int, **fields: Any) -> "Reply":
        """Return a reply of the same turn that shares the parent's text up to its own token `parent_offset`.

        `fields` are the fields that the parent does not determine: id, model, reply mode, settings and seed, and the
        speaker of a branch that shares no tokens.
        """
        num_shared_tokens = parent.num_shared_tokens + parent_offset
        return cls(
            turn=parent.turn,
            prompt=parent.prompt,
            unknown_tokens=parent.unknown_tokens,
            context_ids=parent.context_ids_before(fields.get("speaker", "")),
            reread_ids=parent.reread_ids,
            speaking_as=parent.speaking_as,
            system_prompt=parent.system_prompt,
            parent=parent,
            parent_offset=parent_offset,
            num_shared_tokens=num_shared_tokens,
            tokens=parent.tokens[:num_shared_tokens],
            **fields,
        )

    @property
    def is_chat(self) -> bool:
        """True for an answer in a conversation with a model that knows no speakers but has a chat template."""
        return not self.speaker and answers_by_template(self.session_model.model, self.reply_mode)

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
        """True if the model ended the reply by one of its `model_end_ids`, which is not among its tokens."""
        return self.done is not None and self.done.reason == "eos"

    def context_ids_before(self, speaker: str) -> Sequence[int]:
        """Return the ids of the tokens before a line that `speaker` says in this turn; empty if none is chosen yet."""
        if not self.session_model.cast or speaker == self.speaker:
            return self.context_ids
        if not speaker:
            return self.context_ids_before_speaker
        return [*self.context_ids_before_speaker, *encode_speaker(self.session_model.model.tokenizer, speaker)]

    @property
    def context_ids_before_speaker(self) -> Sequence[int]:
        """Ids of the tokens before the name of the speaker, in a conversation with a model that has a cast."""
        head = encode_speaker(self.session_model.model.tokenizer, self.speaker) if self.speaker else ()
        return self.context_ids[: len(self.context_ids) - len(head)]

    def starts_line(self, index: int) -> bool:
        """Return True if the token at `index` is the first of the reply or of a later line, so that it ends neither."""
        return index == 0 or self.tokens[index - 1].id in model_end_ids(self.session_model.model)

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
            return self._encode_text(end)
        token_ids = [token.id for token in self.tokens[:end]]
        return [*self.context_ids, *(token_ids or self.reread_ids)]

    def _encode_text(self, end: int | None) -> list[int]:
        """Return the ids of the whole text, tokenized again."""
        tokenizer = self.session_model.model.tokenizer
        if self.session_model.cast or self.reply_mode == "conversation":
            return encode_said(self.session_model.model, spoken_lines(self, end))[:-1]  # without the last line end
        return encode_lines(tokenizer, self.full_text(end))

    def text(self) -> str:
        """Return the prompt and the reply, with a line break for each `<eos>`; with speakers, as a script."""
        return self._context_text() + self.reply_text()

    def _context_text(self) -> str:
        """Return the text of the turn before the reply."""
        if self.is_chat:
            return f"{self.prompt}\n" if self.prompt else ""
        if self.reply_mode == "continue":
            head = f"{speaker_head(self.speaker or SOMEONE)} " if self.session_model.cast else ""
            return head + self.prompt
        if self.reply_mode == "reply":
            return f"{self.prompt}\n"
        said = turn_text(SpokenLine(self.speaking_as or STRANGER, self.prompt)) if self.prompt else ""
        return said + (speaker_head(self.speaker) if self.speaker else "")

    def full_text(self, end: int | None = None) -> str:
        """Return the text that the model has read and written: earlier turns, the prompt and the tokens.

        `end` is the index after the last token; None is the end of the reply. The text is the decoded `token_ids(end)`,
        except for words that the model does not know, punctuation and case.
        """
        before = []
        previous = self.turn.previous_reply
        while previous is not None:
            before.append(f"{previous.text()}\n")
            previous = previous.turn.previous_reply
        return "".join(reversed(before)) + self._context_text() + self.reply_text(end)

    def spoken_lines(self, end: int | None = None) -> list[SpokenLine]:
        """Return the lines of this turn: the prompt, if there is one, and the tokens before index `end`."""
        text = self.reply_text(end)
        if reads_line_ends(self.session_model.model):
            text = text.replace("\n", " ")
        speaker = self.speaker or SOMEONE
        if self.reply_mode == "continue":
            return [SpokenLine(speaker, self.prompt + text)]
        said = [SpokenLine(self.speaking_as or STRANGER, self.prompt)] if self.prompt else []
        return [*said, SpokenLine(speaker, text)]

    def reply_text(self, end: int | None = None) -> str:
        """Return the text of the tokens before index `end` (None: of all tokens)."""
        return "".join([token.piece for token in self.tokens[:end]])

    def decoder_state(self, index: int) -> DecoderState | None:
        """Return the decoder state before a token, or None if it or its log-probabilities were evicted."""
        state = self.decoder_states[index] if index < len(self.decoder_states) else None
        return state if state is not None and has_log_probs(state) else None

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
            **{name: getattr(self, name) for name in SAVED_FIELDS},
            parent_id=None if self.parent is None else self.parent.id,
            prompt=self.prompt if self.starts_turn else None,
            tokens=tuple(SavedToken.from_token(token) for token in self.tokens[self.num_shared_tokens :]),
            reason="error" if self.done is None else self.done.reason,
            tokens_per_second=0.0 if self.done is None else self.done.tokens_per_second,
            model=self.session_model.name,
            unknown_tokens=self.unknown_tokens if self.starts_turn else (),
            tokenizer=self.session_model.model.tokenizer.name,
            num_reread_tokens=len(self.reread_ids),
        )


def spoken_lines(reply: Reply | None, end: int | None = None) -> list[SpokenLine]:
    """Return the lines of all turns up to a reply, of which the tokens before index `end` count (None: all)."""
    turns: list[list[SpokenLine]] = []
    while reply is not None:
        turns.append(reply.spoken_lines(end))
        reply, end = reply.turn.previous_reply, None
    return [line for lines in reversed(turns) for line in lines]
