"""Generation of one or many texts: a stream of token events, which ends with a `Done` for each text."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from engine.generation.prompt import DecoderState
from engine.generation.sampling import Probs, TextInProgress, batch_probs, entropy_bits, sampling_probs, top_tokens
from engine.models.base import LogProbs, advance_batch

NUM_TOP_TOKENS = 8  # in a TokenEvent
FinishReason = Literal["eos", "length", "stop", "cancelled", "error"]  # eos: one of the end_ids was sampled


@dataclass(frozen=True)
class TokenEvent:
    """One generated token. All figures but `sampling_prob` and `num_kept` describe the model's own distribution."""

    index: int  # from 0
    id: int
    logprob: float
    sampling_prob: float  # after the sampler chain
    num_kept: int  # tokens that the sampler chain left to sample from
    seconds: float
    piece: str  # that the token adds to the text, with its space; "" inside a character of several bytes
    log_probs: LogProbs | None = field(repr=False, compare=False)  # before the token; None if dropped
    token_texts: Sequence[str] = field(repr=False, compare=False)
    state: DecoderState | None = field(default=None, repr=False, compare=False)  # after the token; None if dropped

    def without_distribution(self) -> Self:
        """Return the event without its distribution and state, which take much memory."""
        return replace(self, log_probs=None, state=None)

    @property
    def text(self) -> str:
        return self.token_texts[self.id]

    @property
    def _distribution(self) -> LogProbs:
        assert self.log_probs is not None, "the distribution of this token was dropped"
        return self.log_probs

    @cached_property
    def rank(self) -> int:
        return 1 + int(np.count_nonzero(self._distribution > self.logprob))

    @cached_property
    def entropy(self) -> float:
        return float(entropy_bits(self._distribution))

    @cached_property
    def top_tokens(self) -> tuple[tuple[str, float], ...]:
        (ids,), (log_probs,) = top_tokens(self._distribution[None], NUM_TOP_TOKENS)
        return tuple((self.token_texts[id], math.exp(value)) for id, value in zip(ids, log_probs.tolist(), strict=True))


@dataclass(frozen=True)
class Done:
    reason: FinishReason
    seed: int
    tokens: int
    tokens_per_second: float  # without the time between the events; 0 if no time was measured


IndexedEvent = tuple[int, TokenEvent | Done]  # index of a text, from 0, and an event of this text


def generate(text: TextInProgress, cancelled: Callable[[], bool] = lambda: False) -> Iterator[TokenEvent | Done]:
    """Continue a text token by token; the last event is a `Done`. See `generate_batch`."""
    for ((_, event),) in generate_batch([text], cancelled):
        yield event


def generate_batch(
    texts: Sequence[TextInProgress], cancelled: Callable[[], bool] = lambda: False
) -> Iterator[list[IndexedEvent]]:
    """Continue several texts of one model together; each step yields one event of every unfinished text, in order.

    `<unk>` is never sampled, and the token that ends a text is not part of it. Batched products sum in another order
    (see `advance_batch`), so about one token in a million is not the one that would be generated alone. A token's
    `seconds` are an equal part of the time of its step. `cancelled` is called before each step; True ends all texts.
    """
    running = dict(enumerate(texts))
    while running:
        complete = [index for index, text in running.items() if text.num_tokens >= text.settings.max_tokens]
        events: dict[int, TokenEvent | Done] = {index: _finish(running[index], "length") for index in complete}
        going_on = {index: text for index, text in running.items() if index not in events}
        if going_on and cancelled():
            events |= {index: _finish(text, "cancelled") for index, text in going_on.items()}
        elif going_on:
            events |= zip(going_on, _sample_tokens(list(going_on.values())), strict=True)
        running = {index: text for index, text in going_on.items() if isinstance(events[index], TokenEvent)}
        yield sorted(events.items())


def _sample_tokens(texts: Sequence[TextInProgress]) -> list[TokenEvent | Done]:
    start_time = time.perf_counter()
    model, probs = texts[0].model, batch_probs(texts)
    # Gumbel-max without logarithms: argmax of p/E, with E exponential, is a token with probability p. Double precision
    # is needed because float32 noise is exactly 0 now and then, which would select a removed token.
    noise = np.empty_like(probs)
    for text, row in zip(texts, noise, strict=True):
        text.rng.standard_exponential(out=row)
    tokens = np.divide(probs, noise, out=noise).argmax(axis=1).tolist()
    rows = [row for row, (text, token) in enumerate(zip(texts, tokens, strict=True)) if token not in text.end_ids]
    states = advance_batch(model, [texts[row].state.model_state for row in rows], [tokens[row] for row in rows])
    seconds = (time.perf_counter() - start_time) / len(texts)
    events: dict[int, TokenEvent | Done] = {}
    for row, state in zip(rows, states, strict=True):
        text = texts[row]
        events[row] = _add_token(text, tokens[row], probs[row], DecoderState(*state), seconds)
        text.is_first_token = False
        text.num_tokens += 1
        text.seconds += seconds
    return [events.get(row) or _finish(text, "eos") for row, text in enumerate(texts)]


def force_token(text: TextInProgress, token: int) -> TokenEvent:
    """Continue a text with the given token, which does not count as generated, instead of a sampled one."""
    probs = sampling_probs(text)
    event = _add_token(text, token, probs, DecoderState(*text.model.advance(text.state.model_state, token)), 0.0)
    text.is_first_token = token in text.end_ids
    return event


def _add_token(text: TextInProgress, token: int, probs: Probs, state: DecoderState, seconds: float) -> TokenEvent:
    before = text.state
    event = TokenEvent(
        index=text.num_tokens,
        id=token,
        logprob=before.log_probs.item(token),
        sampling_prob=probs.item(token),
        num_kept=int(np.count_nonzero(probs)),
        seconds=seconds,
        piece=text.piece_decoder.decode(token)[before.num_reread_characters :],
        log_probs=before.log_probs,
        token_texts=text.model.tokenizer.tokens,
        state=state,
    )
    text.ids[len(text.ids) - before.num_reread_tokens :] = [token]
    text.state = state
    return event


def _finish(text: TextInProgress, reason: FinishReason) -> Done:
    return Done(reason, text.seed, text.num_tokens, text.num_tokens / text.seconds if text.seconds else 0.0)
