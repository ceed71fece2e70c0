"""Generation of one text: a stream of token events that ends with `Done`."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self
from zlib import crc32

import numpy as np

from engine.data.tokenizers.base import PieceDecoder, TokenIds
from engine.generation.prompt import DecoderState, continued_decoder, prefill_prompt
from engine.generation.sampling import (
    END_OF_TEXT,
    Probs,
    entropy_bits,
    sample_tokens,
    sampling_probs,
    stack_rows,
    top_tokens,
)
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel, LogProbs, advance_batch

NUM_TOP_TOKENS = 8
"""Number of likeliest tokens in a `TokenEvent`."""
NUM_KEY_TOKENS = 64
"""Tokens before a line of a conversation that its noise depends on."""

FinishReason = Literal["eos", "length", "stop", "cancelled", "error"]
"""Reason why a text ended: an end was sampled, the maximum length was reached, the user stopped it, and so on."""


@dataclass(frozen=True)
class TokenEvent:
    """One generated token. All figures but `sampling_prob` and `num_kept` describe the model's own distribution.

    Figures that need a pass over the vocabulary are computed from `log_probs` when they are first read.
    """

    index: int
    """Position in the generated text, from 0."""
    id: int
    logprob: float
    """Natural logarithm of the token's probability."""
    sampling_prob: float
    """Probability of the token after the sampler chain."""
    num_kept: int
    """Number of tokens that the sampler chain left to sample from."""
    seconds: float
    """Time spent computing this token."""
    piece: str
    """Text that the token adds to the text before it, with its space; "" inside a character of several bytes."""
    log_probs: LogProbs | None = field(repr=False, compare=False)
    """The model's distribution `[vocabulary]` before the token, shared with the states of the text; None if dropped."""
    token_texts: Sequence[str] = field(repr=False, compare=False)
    """Text of each token `[vocabulary]`."""

    def without_distribution(self) -> Self:
        """Return the event without the memory of its distribution; reading a figure that needs it raises an error."""
        return replace(self, log_probs=None)

    @property
    def text(self) -> str:
        """Text of the token in the vocabulary."""
        return self.token_texts[self.id]

    @property
    def _distribution(self) -> LogProbs:
        assert self.log_probs is not None, "the distribution of this token was dropped"
        return self.log_probs

    @cached_property
    def rank(self) -> int:
        """Rank of the token by probability; 1 is the likeliest."""
        return 1 + int(np.count_nonzero(self._distribution > self.logprob))

    @cached_property
    def entropy(self) -> float:
        """Entropy of the distribution, in bits."""
        return float(entropy_bits(self._distribution))

    @cached_property
    def top_tokens(self) -> tuple[tuple[str, float], ...]:
        """The likeliest tokens and their probabilities, likeliest first."""
        (ids,), (log_probs,) = top_tokens(self._distribution[None], NUM_TOP_TOKENS)
        return tuple(
            (self.token_texts[id], math.exp(value)) for id, value in zip(ids.tolist(), log_probs.tolist(), strict=True)
        )


@dataclass(frozen=True)
class Done:
    """The end of a generated text."""

    reason: FinishReason
    seed: int
    tokens: int
    tokens_per_second: float
    """Generation speed, without the time between the events."""


@dataclass(eq=False)
class TextInProgress:
    """A text that is being generated; `sample_step` updates it."""

    state: DecoderState
    history: list[int]
    """Ids of the prompt and of the generated tokens, for the repetition penalty."""
    settings: SamplerSettings
    seed: int
    rng: np.random.Generator
    """Source of the noise. Texts that share a generator get the same noise."""
    piece_decoder: PieceDecoder
    """Decoder of the generated tokens into text."""
    num_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def start(
        cls,
        model: LanguageModel,
        state: DecoderState,
        ids: Sequence[int],
        settings: SamplerSettings,
        seed: int,
        rng: np.random.Generator | None = None,
    ) -> Self:
        """Return a text that continues `ids` from `state`.

        `rng` is the source of the noise; None for a new one of `seed`.
        """
        history = list(ids[: len(ids) - state.num_reread_tokens])
        decoder = continued_decoder(model.tokenizer, history)
        rng = rng or np.random.default_rng(noise_key(seed))
        return cls(state, history, settings, seed, rng, decoder)

    def finish(self, reason: FinishReason) -> Done:
        """Return the final event of this text."""
        return Done(reason, self.seed, self.num_tokens, tokens_per_second(self.num_tokens, self.seconds))


def noise_key(seed: int, context: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the seed of the noise of a text: `seed`, and for a line of a conversation a hash of the lines before.

    Of the ids `context` of the lines before, the last `NUM_KEY_TOKENS` count. With the same noise, lines with different
    contexts would begin with the same words.
    """
    return (seed, crc32(np.array(context[-NUM_KEY_TOKENS:], np.int32).tobytes())) if context else (seed,)


def sample_step(
    model: LanguageModel, texts: Sequence[TextInProgress], *, suppress_eos: bool, end_ids: TokenIds = END_OF_TEXT
) -> list[TokenEvent | None]:
    """Sample the next token of each text, update the texts, and return their events; None where a text ended.

    All texts have the same length. One of `end_ids` ends a text. `suppress_eos` excludes them: they cannot be the first
    token of a text.
    """
    start_time = time.perf_counter()
    tokenizer = model.tokenizer
    log_probs = stack_rows([text.state.log_probs for text in texts])
    settings, histories = [text.settings for text in texts], [text.history for text in texts]
    probs = sampling_probs(
        log_probs, settings, histories, suppress_eos=suppress_eos, unk_id=tokenizer.unk_id, end_ids=end_ids
    )
    noise = {rng: rng.standard_exponential((log_probs.shape[1],)) for rng in {text.rng for text in texts}}
    tokens = sample_tokens(probs, stack_rows([noise[text.rng] for text in texts])).tolist()
    ends = set(end_ids.tolist())
    running = [row for row, token in enumerate(tokens) if token not in ends]
    states = advance_batch(model, [texts[row].state.model_state for row in running], [tokens[row] for row in running])
    seconds = (time.perf_counter() - start_time) / len(texts)
    events: list[TokenEvent | None] = [None] * len(texts)
    for row, state in zip(running, states, strict=True):
        text, token = texts[row], tokens[row]
        events[row] = _token_event(text, token, log_probs[row], probs[row], tokenizer.tokens, seconds)
        text.state = DecoderState(*state)
        text.history.append(token)
        text.num_tokens += 1
        text.seconds += seconds
    return events


def generate(
    model: LanguageModel,
    ids: Sequence[int],
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[TokenEvent | Done]:
    """Continue the prompt `ids` token by token; the last event is a `Done`. See `generate_from`."""
    check_seed(seed)
    for event in generate_from(model, prefill_prompt(model, ids), ids, settings, seed, cancelled):
        yield event if isinstance(event, Done) else event[0]


def generate_from(
    model: LanguageModel,
    state: DecoderState,
    history: Sequence[int],
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    is_first_token: bool = True,
    end_ids: TokenIds = END_OF_TEXT,
    noise_context: Sequence[int] = (),
) -> Iterator[tuple[TokenEvent, DecoderState] | Done]:
    """Continue a text from `state`: yield each token with the state after it, then a `Done`.

    `<unk>` is never sampled. One of `end_ids` ends the text: it is not part of the text, and cannot be the first token
    of a reply (`is_first_token`). `history` contains the ids of the text so far, for the repetition penalty. The noise
    of a step depends on the seed and `noise_context` (see `noise_key`), but not on the settings, and covers the whole
    vocabulary (Gumbel-max), so texts with different settings stay comparable. `cancelled` is called before each token;
    True ends the text.

    Raises:
        InvalidInputError: If the seed is out of range.
    """
    check_seed(seed)
    rng = np.random.default_rng(noise_key(seed, noise_context))
    text = TextInProgress.start(model, state, history, settings, seed, rng)
    for index in range(settings.max_tokens):
        if cancelled():
            yield text.finish("cancelled")
            return
        (event,) = sample_step(model, [text], suppress_eos=is_first_token and index == 0, end_ids=end_ids)
        if event is None:
            yield text.finish("eos")
            return
        yield event, text.state
    yield text.finish("length")


def force_token(
    model: LanguageModel,
    state: DecoderState,
    history: Sequence[int],
    settings: SamplerSettings,
    token: int,
    *,
    is_first_token: bool = False,
    end_ids: TokenIds = END_OF_TEXT,
) -> tuple[TokenEvent, DecoderState]:
    """Continue a text with the given token instead of a sampled one. See `generate_from` for the arguments."""
    start_time = time.perf_counter()
    text, tokenizer = TextInProgress.start(model, state, history, settings, 0), model.tokenizer
    probs = sampling_probs(
        state.log_probs[None],
        [settings],
        [text.history],
        suppress_eos=is_first_token,
        unk_id=tokenizer.unk_id,
        end_ids=end_ids,
    )
    new_state = DecoderState(*model.advance(state.model_state, token))
    seconds = time.perf_counter() - start_time
    return _token_event(text, token, state.log_probs, probs[0], tokenizer.tokens, seconds), new_state


def _token_event(
    text: TextInProgress, token: int, log_probs: LogProbs, probs: Probs, token_texts: Sequence[str], seconds: float
) -> TokenEvent:
    """Return the event of the next token of a text.

    `log_probs` and `probs` `[vocabulary]` are the distributions before and after the sampler chain.
    """
    return TokenEvent(
        index=text.num_tokens,
        id=token,
        logprob=log_probs.item(token),
        sampling_prob=probs.item(token),
        num_kept=int(np.count_nonzero(probs)),
        seconds=seconds,
        piece=text.piece_decoder.decode(token)[text.state.num_reread_characters :],
        log_probs=log_probs,
        token_texts=token_texts,
    )


def tokens_per_second(tokens: int, seconds: float) -> float:
    """Return the generation speed; 0 if no time was measured."""
    return tokens / seconds if seconds else 0.0
