"""Inspection of a generated token: its probability, and the alternatives it was sampled from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.generation.complete_words import word_around
from engine.generation.generate import NUM_TOP_TOKENS
from engine.generation.sampling import Candidate, NextTokenProbs, Unit
from lotr_tui.session.next_tokens import NextTokenContext
from lotr_tui.session.read_text import TextReader, UnreadText
from lotr_tui.session.reply import Reply, Token
from lotr_tui.session.session_model import reads_line_ends


@dataclass(frozen=True)
class InspectedToken:
    """Token of a reply and the distribution it was sampled from."""

    token: Token
    word: str
    """Word that the token belongs to."""
    position: int
    """Position in the reply, counted from 1."""
    token_count: int
    """Number of tokens of the reply so far."""
    preview: NextTokenProbs
    """Probabilities of the most likely tokens or words at this position, before and after the sampler chain."""
    ends_text: bool = False
    """True if `<eos>` ends a whole text instead of a line."""
    highlighted: int = 1
    """Number, counted from 1, of the alternative that the enter key branches to."""

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The most likely tokens or words, to branch to; the one in the reply may be among them."""
        return self.preview.candidates[:NUM_TOP_TOKENS]

    @property
    def written_text(self) -> str:
        """Text of the alternative that is in the reply."""
        return self.word if self.preview.candidate_unit == "word" else self.token.text

    def with_highlight(self, number: int) -> "InspectedToken":
        """Return a copy with another alternative highlighted; the numbers wrap around."""
        return replace(self, highlighted=(number - 1) % max(1, len(self.alternatives)) + 1)

    def without_alternatives(self, unit: Unit) -> "InspectedToken":
        """Return a copy whose alternatives, of another unit, are not known yet."""
        return replace(self, preview=replace(self.preview, candidates=(), candidate_unit=unit, is_final=False))

    def with_alternatives(self, preview: NextTokenProbs) -> "InspectedToken":
        """Return a copy with other alternatives; the first one that is not in the reply is highlighted."""
        changed = replace(self, preview=preview)
        texts = [each.text for each in changed.alternatives]
        first_other = next((number for number, text in enumerate(texts, 1) if text != changed.written_text), 1)
        return replace(changed, highlighted=first_other)


class TokenInspection:
    """Computes the distribution at any token of a conversation.

    Uses the decoder state saved with the reply; where it was evicted, reads the text again and caches the states.
    """

    def __init__(self) -> None:
        self._reader = TextReader()
        self._latest: tuple[Reply, int, NextTokenContext] | None = None
        """Reply and index of a token, and the text before it, which `read` has read last."""

    def is_known(self, reply: Reply, index: int) -> bool:
        """Return True if `context` returns at once, because the model is fast or has read the text before the token."""
        is_latest = self._latest is not None and self._latest[:2] == (reply, index)
        return is_latest or not reply.session_model.is_slow or reply.decoder_state(index) is not None

    def read(self, text: UnreadText, cancelled: Callable[[], bool]) -> NextTokenContext | None:
        """Read a text, in a thread if the model is slow; return None if that was cancelled."""
        state = self._reader.read(text, cancelled)
        return None if state is None else NextTokenContext.from_read(text, state)

    def keep(self, reply: Reply, index: int, context: NextTokenContext) -> None:
        """Keep the result of `read` for `context`."""
        self._latest = (reply, index, context)

    def context(self, reply: Reply, index: int) -> NextTokenContext:
        """Return the text before the token at `index`."""
        if self._latest is not None and self._latest[:2] == (reply, index):
            return self._latest[2]
        text = UnreadText.of_reply(reply, index)
        state = text.known_state or self._reader.read(text)
        assert state is not None, "nobody cancels it"
        return NextTokenContext.from_read(text, state)

    def inspect(self, reply: Reply, index: int) -> InspectedToken:
        """Return the token at `index` with the most likely tokens; the first that differs from it is highlighted."""
        preview = self.context(reply, index).token_probs(reply.settings, NUM_TOP_TOKENS)
        return self._inspected(reply, index, preview).with_alternatives(preview)

    def inspect_without_alternatives(self, reply: Reply, index: int) -> InspectedToken:
        """Return the token at `index` before its alternatives are known."""
        entropy, size = reply.tokens[index].entropy or 0.0, len(reply.session_model.model.tokenizer)
        preview = NextTokenProbs((), 0, size, entropy, "token", "token", is_final=False)
        return self._inspected(reply, index, preview)

    @staticmethod
    def _inspected(reply: Reply, index: int, preview: NextTokenProbs) -> InspectedToken:
        tokenizer, token = reply.session_model.model.tokenizer, reply.tokens[index]
        word = token.text
        if not reply.read_only_reason:  # the token ids belong to this model
            word = word_around(tokenizer, [*reply.context_ids, *reply.ids], len(reply.context_ids) + index)
        ends_text = reads_line_ends(reply.session_model.model)
        return InspectedToken(token, word, index + 1, len(reply.tokens), preview, ends_text)

    def clear(self) -> None:
        """Free the cached decoder states."""
        self._latest = None
        self._reader = TextReader()
