"""Inspection of a generated token: its probability, and the alternatives it was sampled from."""

from dataclasses import dataclass, replace

from engine.generation.generate import NUM_TOP_TOKENS, TokenEvent
from engine.generation.preview import Candidate, NextTokenProbs, next_token_probs
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_model import PrefixCache


@dataclass(frozen=True)
class InspectedToken:
    """Token of a reply and the distribution it was sampled from."""

    token: TokenEvent
    position: int
    """Position in the reply, counted from 1."""
    token_count: int
    """Number of tokens of the reply so far."""
    preview: NextTokenProbs
    """Probabilities of the most likely tokens at this position, before and after the sampler chain."""
    highlighted: int = 1
    """Number, counted from 1, of the alternative that the enter key branches to."""

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The most likely tokens, to branch to; the token itself may be among them."""
        return self.preview.candidates[:NUM_TOP_TOKENS]

    def with_highlight(self, number: int) -> "InspectedToken":
        """Return a copy with another alternative highlighted; the numbers wrap around."""
        return replace(self, highlighted=(number - 1) % max(1, len(self.alternatives)) + 1)


class TokenInspection:
    """Computes the distribution at any token of a conversation.

    Uses the decoder state saved with the reply; where it was evicted, reads the text again and caches the states.
    """

    def __init__(self) -> None:
        self._prefix_cache: PrefixCache | None = None

    def inspect(self, reply: Reply, index: int) -> InspectedToken:
        """Return the token at `index` with its alternatives; the first one that differs from it is highlighted."""
        model = reply.session_model.model
        state, ids = reply.decoder_state(index), reply.token_ids(index)
        if state is not None:
            log_probs = state.log_probs
        else:
            if self._prefix_cache is None or self._prefix_cache.model is not model:
                self._prefix_cache = PrefixCache(model)
            log_probs = self._prefix_cache.log_probs_after(ids)
        preview = next_token_probs(
            log_probs, reply.settings, ids, model.vocabulary, NUM_TOP_TOKENS, is_first_token=reply.starts_line(index)
        )
        token = reply.tokens[index]
        candidates = preview.candidates[:NUM_TOP_TOKENS]
        first_other = next((number for number, each in enumerate(candidates, 1) if each.text != token.text), 1)
        return InspectedToken(token, index + 1, len(reply.tokens), preview, highlighted=first_other)

    def clear(self) -> None:
        """Free the cached decoder states."""
        self._prefix_cache = None
