"""Texts that a model has read, or is to read, before the next token can be predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.data.scripts import encode_speaker
from engine.generation.prompt import DecoderState, last_word_start
from engine.models.base import LanguageModel
from lotr_tui.session.conversation.generation import ReplyContext, count_shared, nearest_state
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import has_log_probs


@dataclass(frozen=True, eq=False)
class UnreadText:
    """Text whose next token is to be predicted, and the part of it that the conversation has read."""

    model: LanguageModel
    ids: Sequence[int]
    """Token ids of the whole text."""
    state: DecoderState | None = None
    """Cached state; None if the model has read nothing."""
    num_read: int = 0
    """Number of ids that `state` has read."""
    is_chat: bool = False
    """True if a chat template has made the text, which then begins without `<eos>`."""
    reopens_last_word: bool = False
    """True if the next token may begin with the end of the text: see `reopen_last_word`."""
    is_first_token: bool = True
    """True if the next token is the first of a reply or of a line, which it cannot end."""
    candidates: tuple[str, ...] = ()
    """Members of the cast of whom one says the next line, which begins after the text; empty inside of a line."""
    speaker: str = ""
    """Canonical name of who is chosen to say the next line; empty for the likeliest of `candidates`."""

    def is_same_text(self, other: "UnreadText") -> bool:
        """Return True if the same model is to predict the same next token of another text."""
        return (
            self.model is other.model
            and self.is_chat == other.is_chat
            and self.reopens_last_word == other.reopens_last_word
            and self.is_first_token == other.is_first_token
            and (self.candidates, self.speaker) == (other.candidates, other.speaker)
            and list(self.ids) == list(other.ids)
        )

    @property
    def known_state(self) -> DecoderState | None:
        """State in which the next token is predicted, if nothing has to be read; None otherwise."""
        is_read = self.num_read == len(self.ids) and not self.reopens_last_word and not self.candidates
        return self.state if is_read and self.state is not None and has_log_probs(self.state) else None

    @property
    def num_settled(self) -> int:
        """Number of ids at the beginning that stay the same if the user goes on typing the last word."""
        if self.reopens_last_word:
            return last_word_start(self.model.tokenizer, self.ids)
        return last_word_start(self.model.tokenizer, self.ids[:-1]) if self.candidates else len(self.ids)

    def begin_line(self, speaker: str) -> "UnreadText":
        """Return the text with the head of a line after it, in which a speaker says the next line."""
        ids = [*self.ids, *encode_speaker(self.model.tokenizer, speaker)]
        return replace(self, ids=ids, candidates=(), speaker=speaker)

    @classmethod
    def of_reply(cls, reply: Reply, index: int) -> "UnreadText":
        """Return the text up to the token `index` of a reply, in the vocabulary of its model."""
        model, ids = reply.session_model.model, reply.token_ids(index)
        state, num_read = reply.decoder_state(index), len(ids)
        if state is None:
            state, num_read = nearest_state(reply, model, ids, is_chat=reply.is_chat)
        return cls(model, ids, state, num_read, is_chat=reply.is_chat, is_first_token=reply.starts_line(index))


@dataclass(frozen=True, eq=False)
class ReadText:
    """Text that a model has read, with the states that were kept on the way."""

    model: LanguageModel
    ids: Sequence[int]
    """Token ids of the whole text."""
    is_chat: bool
    """True if a chat template has made the text, which then begins without `<eos>`."""
    states: Mapping[int, DecoderState]
    """States by the number of ids that they have read; some have no log-probabilities."""

    def states_within(self, ids: Sequence[int]) -> dict[int, DecoderState]:
        """Return the states that have read a beginning of another text."""
        num_shared = count_shared(self.ids, ids)
        return {num_read: state for num_read, state in self.states.items() if num_read <= num_shared}

    def shorten(self, context: ReplyContext, model: LanguageModel, *, is_chat: bool) -> ReplyContext:
        """Return the context of a reply, without the ids that are part of this text."""
        if model is not self.model or is_chat != self.is_chat:
            return context
        # The last word of a prompt is read again, because it may be left to the next token.
        end = len(context.ids) if is_chat else last_word_start(model.tokenizer, context.ids)
        states = {
            num_read: state
            for num_read, state in self.states_within(context.ids).items()
            if num_read < end or (num_read == end and has_log_probs(state))
        }
        num_read = max(states, default=0)
        if num_read <= len(context.ids) - len(context.unread_ids):
            return context
        return ReplyContext(states[num_read], list(context.ids[num_read:]), context.ids)
