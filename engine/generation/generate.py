"""From distributions to words: the sampler chain, and the stream of token events."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import EOS_ID, UNK_ID, Vocabulary
from engine.errors import PromptError
from engine.generation.processors import (
    Scores,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    normalize,
    penalize_repetition,
    temper,
)
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel, LogProbs, State

Probs = npt.NDArray[np.float64]
"""Probabilities, in double precision."""
Described = tuple[int, int, str, float, float, int, float, int, tuple[tuple[str, float], ...]]
"""A `TokenEvent` without its seconds."""
ALTERNATIVES = 8
"""How many of the likeliest words a token event carries."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it."""

    text: str
    ids: tuple[int, ...]
    unknown: tuple[str, ...]
    """Its words outside the vocabulary; the model reads `<unk>` for them."""


@dataclass(frozen=True)
class TokenEvent:
    """One word drawn. Unless said otherwise, figures are of the model's own distribution, before the chain."""

    index: int
    id: int
    text: str
    logprob: float
    """Natural logarithm of the word's probability."""
    prob: float
    """The probability it was drawn with, after the chain."""
    rank: int
    """1 is the model's likeliest word."""
    entropy: float
    """Bits."""
    kept: int
    """Words the chain left to draw from."""
    top: tuple[tuple[str, float], ...]
    """The likeliest words and their probabilities."""
    seconds: float
    """Spent computing this word."""


@dataclass(frozen=True)
class Done:
    """The end of a stream."""

    reason: Literal["eos", "length", "stop", "cancelled", "error"]
    seed: int
    tokens: int
    tokens_per_second: float
    """Over the time spent computing; waiting for whoever reads the stream is not counted."""


def encode_prompt(text: str, vocabulary: Vocabulary) -> Prompt:
    """Read a prompt with the model's tokenizer.

    Raises:
        PromptError: it has no word, or none that the model knows.
    """
    words = vocabulary.tokenize(text)
    if not words:
        raise PromptError(f"prompt {text!r} has no word; give at least one")
    unknown = tuple(dict.fromkeys(word for word in words if word not in vocabulary))
    if all(word in unknown for word in words):
        raise PromptError(f"the model knows none of the prompt's words: {', '.join(unknown[:5])}; use other words")
    return Prompt(text, tuple(vocabulary.encode(words).tolist()), unknown)


class Reading(NamedTuple):
    """What a model made of a text. A value: kept, it is a place to go on from, or to branch off, at no cost."""

    log_probs: LogProbs
    """The distribution of the next word, before the chain."""
    state: State


def read(model: LanguageModel, ids: Sequence[int], after: Reading | None = None) -> Reading:
    """Read all of `ids` behind what was read before; None: behind the `<eos>` that stands before every text."""
    reading = after or Reading(*model.advance(model.start(), EOS_ID))
    for token in ids:
        reading = Reading(*model.advance(reading.state, token))
    return reading


def stream(
    model: LanguageModel,
    ids: Sequence[int],
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[TokenEvent | Done]:
    """Continue `ids` word by word; the last event is a `Done`. How words are drawn: see `go_on`.

    Raises:
        UnusableInput: the seed is out of range.
    """
    check_seed(seed)
    for event in go_on(model, read(model, ids), ids, settings, seed, cancelled):
        yield event if isinstance(event, Done) else event[0]


def go_on(
    model: LanguageModel,
    reading: Reading,
    history: Sequence[int],
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    first: bool = True,
) -> Iterator[tuple[TokenEvent, Reading] | Done]:
    """Go on from a place that was kept: each word, and what was read with it; the last event is a `Done`.

    `<unk>` is never drawn, and `<eos>`, which ends the text, not before the first word. One seed gives one
    noise for every step over the full vocabulary (Gumbel-max), so that two streams which differ in their
    settings alone stay comparable word by word.

    Args:
        model: that `reading` is of.
        reading: the place.
        history: ids of the text so far, for the repetition penalty.
        settings: how words are drawn.
        seed: of the noise.
        cancelled: asked before each word.
        first: whether the next word is the first of a reply.

    Raises:
        UnusableInput: the seed is out of range.
    """
    check_seed(seed)
    random = np.random.default_rng(seed)
    text = list(history)
    started = time.perf_counter()
    total = 0.0
    for index in range(settings.max_tokens):
        if cancelled():
            yield Done("cancelled", seed, index, rate(index, total))
            return
        log_probs = reading.log_probs[None]
        probs = chances(log_probs, [settings], [text], first=first and index == 0)
        tokens = draw(probs, random.standard_exponential(probs.shape))
        (token,) = tokens.tolist()
        if token == EOS_ID:
            yield Done("eos", seed, index, rate(index, total))
            return
        (event,) = describe(index, tokens, log_probs, probs, model.vocabulary.words)
        reading = Reading(*model.advance(reading.state, token))
        text.append(token)
        seconds = time.perf_counter() - started
        total += seconds
        yield TokenEvent(*event, seconds=seconds), reading
        started = time.perf_counter()
    yield Done("length", seed, settings.max_tokens, rate(settings.max_tokens, total))


def choose(
    model: LanguageModel,
    reading: Reading,
    history: Sequence[int],
    settings: SamplerSettings,
    token: int,
    *,
    first: bool = False,
) -> tuple[TokenEvent, Reading]:
    """Take the word `token` at a place that was kept, instead of drawing one; one word is read, no more."""
    started = time.perf_counter()
    log_probs = reading.log_probs[None]
    probs = chances(log_probs, [settings], [history], first=first)
    (event,) = describe(0, np.array([token]), log_probs, probs, model.vocabulary.words)
    after = Reading(*model.advance(reading.state, token))
    return TokenEvent(*event, seconds=time.perf_counter() - started), after


def apply_chain(log_probs: LogProbs, settings: SamplerSettings, history: Sequence[int], *, first: bool) -> Scores:
    """All stages in effect: log-probabilities `[vocabulary]` to draw from; what is filtered out has -inf.

    Args:
        log_probs: the model's distribution.
        settings: the stages.
        history: ids of the text so far, for the repetition penalty.
        first: whether this is the first word, which is not `<eos>`.
    """
    return normalize(_scores(log_probs, settings, history, first=first))


def chances(
    log_probs: LogProbs, settings: Sequence[SamplerSettings], histories: Sequence[Sequence[int]], *, first: bool
) -> Probs:
    """The probabilities `[texts, vocabulary]` that words of several texts are drawn with, after their chains.

    Args:
        log_probs: the model's distributions `[texts, vocabulary]`.
        settings: the chain of each text.
        histories: ids of each text so far.
        first: whether these are their first words.
    """
    probs = np.empty(log_probs.shape)
    for row, (its, history) in enumerate(zip(settings, histories, strict=True)):
        probs[row] = _scores(log_probs[row], its, history, first=first)
    probs -= probs.max(axis=1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


def _scores(log_probs: LogProbs, settings: SamplerSettings, history: Sequence[int], *, first: bool) -> Scores:
    """Log-probabilities after all stages, up to a constant."""
    scores = log_probs.astype(np.float64)
    scores[UNK_ID] = -np.inf
    if first:
        scores[EOS_ID] = -np.inf
    if settings.repetition_penalty != 1:
        scores = penalize_repetition(scores, history, settings.repetition_penalty)
    scores = temper(scores, settings.temperature)
    if settings.top_k:
        scores = keep_top_k(scores, settings.top_k)
    if settings.top_p < 1:
        scores = keep_top_p(scores, settings.top_p)
    if settings.min_p:
        scores = keep_min_p(scores, settings.min_p)
    return scores


def draw(probs: Probs, noise: Probs) -> npt.NDArray[np.intp]:
    """A word for each text, from the probabilities and standard exponential noise `[texts, vocabulary]`."""
    # The largest of p/E, E exponential, falls on each word with its probability p (Gumbel-max, without the logs).
    # In double precision: single gives an exact 0 now and then, and with it a word that was filtered out.
    drawn: npt.NDArray[np.intp] = np.divide(probs, noise, out=noise).argmax(axis=1)
    return drawn


def describe(
    index: int, tokens: npt.NDArray[np.intp], log_probs: LogProbs, probs: Probs, words: Sequence[str]
) -> list[Described]:
    """The fields of the `TokenEvent` of each of `tokens` `[texts]` but its seconds.

    Args:
        index: the number of the word in its text.
        tokens: what was drawn.
        log_probs: the model's distributions `[texts, vocabulary]`.
        probs: those that were drawn from.
        words: of the vocabulary.
    """
    rows = np.arange(len(tokens))
    most = min(ALTERNATIVES, len(words))
    likeliest = np.argpartition(log_probs, -most, axis=1)[:, -most:]
    tops = log_probs[rows[:, None], likeliest]
    order = (-tops).argsort(axis=1)
    likeliest = likeliest[rows[:, None], order]
    tops = tops[rows[:, None], order]
    own = log_probs[rows, tokens]
    return [
        (
            index,
            token,
            words[token],
            own_log_prob,
            prob,
            1 + int(np.count_nonzero(higher)),
            entropy,
            int(np.count_nonzero(kept)),
            tuple([(words[i], math.exp(value)) for i, value in zip(ids, values, strict=True)]),
        )
        for token, own_log_prob, prob, higher, entropy, kept, ids, values in zip(
            tokens.tolist(),
            own.tolist(),
            probs[rows, tokens].tolist(),
            log_probs > own[:, None],
            entropy_of(log_probs).tolist(),
            probs,
            likeliest.tolist(),
            tops.tolist(),
            strict=True,
        )
    ]


def entropy_of(log_probs: LogProbs) -> npt.NDArray[np.float32]:
    """Bits, of distributions `[..., vocabulary]`."""
    entropy: npt.NDArray[np.float32] = np.vecdot(np.exp(log_probs), log_probs) * np.float32(-1 / math.log(2))
    return entropy


def rate(tokens: int, seconds: float) -> float:
    """Tokens a second; 0 where no time was measured."""
    return tokens / seconds if seconds else 0.0
