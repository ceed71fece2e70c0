"""Generation of one or many texts: their prompts, the sampler chain, and a stream of token events for each text."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt

from engine.data.tokenizers import EOS_ID, ByteTokenizer, PieceDecoder, Tokenizer
from engine.errors import PromptError, RunError
from engine.generation.settings import SamplerSettings
from engine.models.base import EXCLUDED_LOG_PROB, LanguageModel, LogProbs, ModelState, advance_batch, advance_tokens

Logits = npt.NDArray[np.float64]  # a logit of -inf removes a token
Probs = npt.NDArray[np.float64]
Unit = Literal["word", "token"]
FinishReason = Literal["eos", "length", "stop", "cancelled", "error"]  # eos: one of the end_ids was sampled
END_OF_TEXT = frozenset([EOS_ID])  # ends a text that is no line of a conversation
MAX_QUOTED_CHARACTERS = 40
MAX_REREAD_TOKENS = 64  # at the end of a prompt, which the next token may repeat
MAX_CHARACTER_TOKENS = 4  # the bytes of the longest character
NUM_NOISE_TOKENS = 64  # before a line of a conversation, which its noise depends on
NUM_TOP_TOKENS = 8  # in a TokenEvent

# Prompts


@dataclass(frozen=True)
class EncodedPrompt:
    text: str
    ids: tuple[int, ...]
    unknown_tokens: tuple[str, ...]  # distinct parts of the text that the model does not know, in text order


class DecoderState(NamedTuple):
    """State after a text. A kept state is a branch point, since states are immutable."""

    log_probs: LogProbs  # of the next token
    model_state: ModelState
    num_reread_tokens: int = 0  # at the end of a prompt, not in the state: the next token begins with their characters
    num_reread_characters: int = 0


def encode_prompt(text: str, tokenizer: Tokenizer) -> EncodedPrompt:
    """Encode a prompt with the model's tokenizer. A prompt without a word that the model knows raises a PromptError."""
    if not text.strip():
        raise PromptError("the prompt is empty and has no word; type something first")
    ids = tokenizer.encode(text)
    if tokenizer.is_open:
        return EncodedPrompt(text, tuple(ids.tolist()), ())
    unknown = tuple(dict.fromkeys(part for _, _, part in tokenizer.unknown_spans(text)))
    if not len(ids) and unknown:
        use = "type words of the letters a to z, digits and apostrophes"
        raise PromptError(f"the model cannot read {list_shortened(unknown, 5)}; {use}")
    if not len(ids):
        raise PromptError(f"prompt {list_shortened([text], 1)!r} has no word; type at least one")
    if (ids == tokenizer.unk_id).all():
        raise PromptError(f"the model knows none of the prompt's words: {list_shortened(unknown, 5)}; use other words")
    return EncodedPrompt(text, tuple(ids.tolist()), unknown)


def list_shortened(words: Sequence[str], max_words: int) -> str:
    parts = [word if len(word) <= MAX_QUOTED_CHARACTERS else f"{word[:MAX_QUOTED_CHARACTERS]}…" for word in words]
    others = [f"and {len(words) - max_words:,} more"] if len(words) > max_words else []
    return ", ".join([*parts[:max_words], *others])


def prefill(model: LanguageModel, ids: Sequence[int], initial_state: DecoderState | None = None) -> DecoderState:
    """Read `ids`, from `initial_state` or from the start of a text (after `<eos>`), and return the state after them."""
    if initial_state is None:
        return DecoderState(*advance_tokens(model, model.start(), [EOS_ID, *ids]))
    return DecoderState(*advance_tokens(model, initial_state.model_state, ids)) if len(ids) else initial_state


def prefill_prompt(model: LanguageModel, ids: Sequence[int]) -> DecoderState:
    """Read a prompt, and return the state to continue it from: see `reopen_last_word`."""
    if not isinstance(model.tokenizer, ByteTokenizer):
        return prefill(model, ids)
    first = last_word_start(model.tokenizer, ids)
    states = [prefill(model, ids[:first])]
    for token in ids[first:]:
        states.append(prefill(model, [token], states[-1]))
    return reopen_last_word(model.tokenizer, ids[first:], states)


def last_word_start(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """Return the index of the first token of the last word of a prompt, which the next token may repeat."""
    if not isinstance(tokenizer, ByteTokenizer) or not ids or ids[-1] == EOS_ID:
        return len(ids)  # a closed vocabulary has only whole words
    first = len(ids) - 1
    while first > max(0, len(ids) - MAX_REREAD_TOKENS) and not tokenizer.word_starts[ids[first]]:
        first -= 1
    return first


def reopen_last_word(tokenizer: Tokenizer, ids: Sequence[int], states: Sequence[DecoderState]) -> DecoderState:
    """Return the state from which to continue a prompt: after all tokens, or before the last ones of an open word.

    A model has hardly seen the tokens of "the wiz", because it writes "wizard" in another way. So the last ones may be
    left to the next token, which then begins with their characters. The end is chosen that is most probable with all
    its continuations. `states` `[len(ids) + 1]` are the states before each token of `ids` and after the last.
    """
    if not isinstance(tokenizer, ByteTokenizer):
        return states[-1]
    best, best_log_prob, log_prob = states[-1], -math.inf, 0.0
    for index in range(last_word_start(tokenizer, ids), len(ids)):
        rest = b"".join(tokenizer.token_bytes[id] for id in ids[index:])
        longer = tokenizer.ids_with_prefix(rest)
        total = float(np.logaddexp.reduce(states[index].log_probs[longer], dtype=np.float64, initial=-np.inf))
        if log_prob + total > best_log_prob:
            best_log_prob = log_prob + total
            log_probs = np.full_like(states[index].log_probs, EXCLUDED_LOG_PROB)
            log_probs[longer] = states[index].log_probs[longer] - total
            num_characters = len(rest.decode(errors="replace"))
            best = DecoderState(log_probs, states[index].model_state, len(ids) - index, num_characters)
        log_prob += float(states[index].log_probs[ids[index]])
    return best if best_log_prob > log_prob else states[-1]


# Sampling


class TextInProgress:
    """A text, and all that its next token depends on. Sampling a token updates it."""

    def __init__(
        self,
        model: LanguageModel,
        ids: Sequence[int],
        settings: SamplerSettings,
        seed: int = 0,
        state: DecoderState | None = None,
        *,
        is_first_token: bool = True,
        end_ids: frozenset[int] | None = None,
        noise_context: Sequence[int] = (),
    ) -> None:
        """Continue the text `ids` from `state`, or after the model has read it as a prompt.

        One of `end_ids`, by default the model's, ends a reply, but is not its first token. The noise covers the
        whole vocabulary (Gumbel-max), so texts with different settings stay comparable, and depends on the seed (see
        `check_seed`) and the lines before a line of a conversation, which would else begin alike.
        """
        self.model, self.settings, self.seed = model, settings, seed
        self.state = prefill_prompt(model, ids) if state is None else state
        self.ids = list(ids[: len(ids) - self.state.num_reread_tokens])  # that the state has read
        self.is_first_token, self.noise_context = is_first_token, noise_context
        self.end_ids: frozenset[int] = getattr(model, "end_ids", END_OF_TEXT) if end_ids is None else end_ids
        self.num_tokens, self.seconds = 0, 0.0
        context = np.array(noise_context[-NUM_NOISE_TOKENS:], np.int32)
        self.rng = np.random.default_rng((seed, *([crc32(context.tobytes())] if len(context) else [])))
        self.piece_decoder = PieceDecoder(model.tokenizer)
        for id in self.ids[-MAX_CHARACTER_TOKENS:]:
            self.piece_decoder.decode(id)


def apply_chain(logits: Logits, settings: SamplerSettings, seen_ids: frozenset[int] = frozenset()) -> Logits:
    """Return the logits `[vocabulary]` after the stages of the sampler chain, given the tokens that are in the text."""
    logits = logits.copy()
    if settings.repetition_penalty != 1:
        seen = np.array(sorted(seen_ids), np.int64)
        values, penalty = logits[seen], settings.repetition_penalty
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
    if settings.temperature < 1e-3:  # lower temperatures are greedy in effect, and the division could overflow
        logits = np.where(np.arange(len(logits)) == logits.argmax(), 0.0, -np.inf)
    else:
        logits /= settings.temperature
    if 0 < settings.top_k < len(logits):
        logits[np.argpartition(-logits, settings.top_k)[settings.top_k :]] = -np.inf
    if settings.top_p < 1:
        order, highest = np.argsort(-logits, kind="stable"), float(logits.max())
        log_total = highest + math.log(np.exp(logits - highest).sum())
        cumulative = np.cumsum(np.exp(logits - log_total)[order])
        logits[order[int(np.searchsorted(cumulative, settings.top_p)) + 1 :]] = -np.inf
    if settings.min_p:
        logits[logits < logits.max() + math.log(settings.min_p)] = -np.inf
    return logits


def sampling_probs(texts: Sequence[TextInProgress]) -> Probs:
    """Return the probabilities `[texts, vocabulary]` of the next token of each text after the sampler chain."""
    rows = []
    for text in texts:
        if math.isnan(text.state.log_probs[0]):  # one NaN or infinite logit makes all log-probabilities NaN
            raise RunError("the model's probabilities are not numbers; its weights are damaged, so use another run")
        logits = text.state.log_probs.astype(np.float64)
        if text.model.tokenizer.unk_id is not None:
            logits[text.model.tokenizer.unk_id] = -np.inf
        if text.is_first_token:
            logits[[*text.end_ids]] = -np.inf
        # An end in the prompt must not keep the reply from ending.
        seen_ids = frozenset(text.ids) - text.end_ids if text.settings.repetition_penalty != 1 else frozenset()
        rows.append(apply_chain(logits, text.settings, seen_ids))
    probs = rows[0][None] if len(rows) == 1 else np.concatenate(rows).reshape(len(rows), -1)  # faster than np.stack
    probs -= probs.max(axis=1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


# Token events


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

    `<unk>` is never sampled, and the token that ends a text is not part of it. In 8 bits, each text is the one that
    would be generated alone. In single precision, products of several texts sum in another order, so about one token
    in a million is not. A token's `seconds` are an equal part of the time of its step. `cancelled` is called before
    each step; True ends all texts.
    """
    running = dict(enumerate(texts))
    while running:
        reasons: dict[int, FinishReason] = {
            index: "length" for index, text in running.items() if text.num_tokens >= text.settings.max_tokens
        }
        if len(reasons) < len(running) and cancelled():
            reasons = {index: reasons.get(index, "cancelled") for index in running}
        events: dict[int, TokenEvent | Done] = {}
        if going_on := {index: text for index, text in running.items() if index not in reasons}:
            start_time = time.perf_counter()
            probs = sampling_probs(list(going_on.values()))
            # Gumbel-max without logarithms: argmax of p/E, with E exponential, is a token with probability p. Double
            # precision is needed because float32 noise is exactly 0 now and then, which would select a removed token.
            noise = np.empty_like(probs)
            for text, row in zip(going_on.values(), noise, strict=True):
                text.rng.standard_exponential(out=row)
            tokens = dict(zip(going_on, np.divide(probs, noise, out=noise).argmax(axis=1).tolist(), strict=True))
            rows = dict(zip(going_on, probs, strict=True))
            reasons |= {index: "eos" for index, text in going_on.items() if tokens[index] in text.end_ids}
            grown = {index: text for index, text in going_on.items() if index not in reasons}
            before = [text.state.model_state for text in grown.values()]
            states = advance_batch(texts[0].model, before, [tokens[index] for index in grown])
            seconds = (time.perf_counter() - start_time) / len(going_on)
            for (index, text), state in zip(grown.items(), states, strict=True):
                events[index] = _add_token(text, tokens[index], rows[index], DecoderState(*state), seconds)
                text.is_first_token = False
                text.num_tokens += 1
                text.seconds += seconds
        for index, reason in reasons.items():
            text = running.pop(index)
            speed = text.num_tokens / text.seconds if text.seconds else 0.0
            events[index] = Done(reason, text.seed, text.num_tokens, speed)
        yield sorted(events.items())


def force_token(text: TextInProgress, token: int) -> TokenEvent:
    """Continue a text with the given token, which does not count as generated, instead of a sampled one."""
    state = DecoderState(*text.model.advance(text.state.model_state, token))
    event = _add_token(text, token, sampling_probs([text])[0], state, 0.0)
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
    text.ids.append(token)
    text.state = state
    return event


# Next tokens without sampling one


@dataclass(frozen=True)
class Candidate:
    """A possible next token or word, with its probability by the model itself and after the sampler chain."""

    text: str
    model_prob: float
    sampling_prob: float
    ids: tuple[int, ...] = ()  # of its tokens; of several token sequences with this text, the likeliest

    @property
    def highest_prob(self) -> float:
        return max(self.model_prob, self.sampling_prob)


@dataclass(frozen=True)
class NextTokenProbs:
    """The likeliest next tokens or words, likeliest after the sampler chain first. The numbers are about tokens."""

    candidates: tuple[Candidate, ...]
    num_kept: int  # tokens that the sampler chain left to sample from
    vocabulary_size: int
    entropy: float  # of the model's own distribution, in bits
    candidate_unit: Unit = "word"
    token_unit: Unit = "word"
    is_final: bool = True  # False if further words may be found


def next_token_probs(text: TextInProgress, top_n: int) -> NextTokenProbs:
    """Return the `top_n` likeliest next tokens without sampling one."""
    tokenizer, log_probs = text.model.tokenizer, text.state.log_probs
    probs, model_probs = sampling_probs([text])[0], np.exp(log_probs.astype(np.float64))
    at = -min(top_n, len(probs))  # a partition of a large vocabulary takes a tenth of the time that sorting it takes
    least, least_raw = np.partition(probs, at)[at], np.partition(model_probs, at)[at]
    likely = np.flatnonzero((probs > 0) & (probs >= least) | (model_probs >= least_raw))
    order = likely[np.lexsort((-model_probs[likely], -probs[likely]))][:top_n].tolist()
    unit: Unit = "token" if tokenizer.is_open else "word"
    found = tuple(Candidate(tokenizer.tokens[id], float(model_probs[id]), float(probs[id]), (id,)) for id in order)
    num_kept, entropy = int(np.count_nonzero(probs)), float(entropy_bits(log_probs))
    return NextTokenProbs(found, num_kept, len(tokenizer.tokens), entropy, candidate_unit=unit, token_unit=unit)


def top_tokens(log_probs: LogProbs, k: int) -> tuple[npt.NDArray[np.intp], LogProbs]:
    """Return ids and log-probabilities `[texts, k]` of the likeliest tokens, all if `k` exceeds the vocabulary size."""
    k = min(k, log_probs.shape[1])
    ids = np.argpartition(log_probs, -k, axis=1)[:, -k:]
    values = np.take_along_axis(log_probs, ids, axis=1)
    order = (-values).argsort(axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)


def entropy_bits(log_probs: LogProbs) -> npt.NDArray[np.float32]:
    """Return the entropy, in bits, of distributions `[..., vocabulary]`."""
    entropy: npt.NDArray[np.float32] = np.vecdot(np.exp(log_probs), log_probs) * np.float32(-1 / math.log(2))
    return entropy
