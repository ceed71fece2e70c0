"""From distributions to words: the sampler chain, and the stream of token events."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import PromptError
from engine.lm import LanguageModel, LogProbs, State
from engine.sampler_settings import SamplerSettings, check_seed
from engine.vocabulary import EOS_ID, UNK_ID, Vocabulary

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


@dataclass(frozen=True)
class Candidate:
    """A word that may come next, before and after the chain."""

    text: str
    before: float
    after: float


@dataclass(frozen=True)
class NextWords:
    """What may come next, seen over the whole vocabulary, without drawing."""

    candidates: tuple[Candidate, ...]
    """The likeliest words after the chain, those it dropped behind them."""
    kept: int
    vocabulary: int
    entropy: float
    """Bits, of the model's own distribution."""


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
            yield Done("cancelled", seed, index, _rate(index, total))
            return
        probs = np.exp(apply_chain(reading.log_probs, settings, text, first=first and index == 0))
        # The largest of p/E, E exponential, falls on each word with its probability p (Gumbel-max, without the logs).
        # In double precision: single gives an exact 0 now and then, and with it a word that was filtered out.
        token = int(np.argmax(probs / random.standard_exponential(len(probs))))
        if token == EOS_ID:
            yield Done("eos", seed, index, _rate(index, total))
            return
        event = _describe(index, token, reading.log_probs, probs, model.vocabulary.words)
        reading = Reading(*model.advance(reading.state, token))
        text.append(token)
        seconds = time.perf_counter() - started
        total += seconds
        yield TokenEvent(*event, seconds=seconds), reading
        started = time.perf_counter()
    yield Done("length", seed, settings.max_tokens, _rate(settings.max_tokens, total))


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
    probs = np.exp(apply_chain(reading.log_probs, settings, history, first=first))
    event = _describe(0, token, reading.log_probs, probs, model.vocabulary.words)
    after = Reading(*model.advance(reading.state, token))
    return TokenEvent(*event, seconds=time.perf_counter() - started), after


def preview(
    log_probs: LogProbs,
    settings: SamplerSettings,
    history: Sequence[int],
    vocabulary: Vocabulary,
    most: int,
    *,
    first: bool = False,
) -> NextWords:
    """The `most` likeliest next words under `settings`, computed on the whole vocabulary.

    `first`: whether it would be the first word of a reply, which is not `<eos>`.
    """
    filtered = apply_chain(log_probs, settings, history, first=first)
    before = np.exp(log_probs.astype(np.float64))
    after = np.exp(filtered)
    order = np.lexsort((-before, -after))[:most]
    return NextWords(
        candidates=tuple(Candidate(vocabulary.words[i], float(before[i]), float(after[i])) for i in order),
        kept=int(np.count_nonzero(after)),
        vocabulary=len(vocabulary),
        entropy=_entropy(log_probs),
    )


def apply_chain(
    log_probs: LogProbs, settings: SamplerSettings, history: Sequence[int], *, first: bool
) -> npt.NDArray[np.float64]:
    """All stages in effect: log-probabilities `[vocabulary]` to draw from; what is filtered out has -inf.

    Args:
        log_probs: the model's distribution.
        settings: the stages.
        history: ids of the text so far, for the repetition penalty.
        first: whether this is the first word, which is not `<eos>`.
    """
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
    return normalize(scores)


def normalize(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Shift log-scores so that their probabilities sum to one."""
    highest = float(scores.max())
    normalized: npt.NDArray[np.float64] = scores - (highest + math.log(np.exp(scores - highest).sum()))
    return normalized


def penalize_repetition(
    scores: npt.NDArray[np.float64], history: Sequence[int], penalty: float
) -> npt.NDArray[np.float64]:
    """Make words of `history` less likely: positive scores are divided by the penalty, negative ones multiplied."""
    seen = np.unique(np.asarray(history, dtype=np.int64))
    penalized = scores.copy()
    values = scores[seen]
    penalized[seen] = np.where(values > 0, values / penalty, values * penalty)
    return penalized


def temper(scores: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Divide log-scores by the temperature; at 0 only the likeliest word stays."""
    if temperature < 1e-3:  # below, words that are not within a thousandth of the best have no chance left
        greedy = np.full_like(scores, -np.inf)
        greedy[np.argmax(scores)] = 0.0
        return greedy
    return scores / temperature


def keep_top_k(scores: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    """Keep the k likeliest words."""
    if k >= len(scores):
        return scores
    dropped = np.argpartition(-scores, k)[k:]
    kept = scores.copy()
    kept[dropped] = -np.inf
    return kept


def keep_top_p(scores: npt.NDArray[np.float64], p: float) -> npt.NDArray[np.float64]:
    """Keep the fewest likeliest words whose probabilities reach p; at least one."""
    order = np.argsort(-scores, kind="stable")
    cumulative = np.cumsum(np.exp(normalize(scores))[order])
    number = int(np.searchsorted(cumulative, p)) + 1
    kept = scores.copy()
    kept[order[number:]] = -np.inf
    return kept


def keep_min_p(scores: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Keep words at least `share` as likely as the likeliest."""
    return np.where(scores >= scores.max() + math.log(share), scores, -np.inf)


def _describe(
    index: int, token: int, log_probs: LogProbs, probs: npt.NDArray[np.float64], words: Sequence[str]
) -> tuple[int, int, str, float, float, int, float, int, tuple[tuple[str, float], ...]]:
    """The fields of a `TokenEvent` but its seconds."""
    most = min(ALTERNATIVES, len(words))
    likeliest = np.argpartition(log_probs, -most)[-most:]
    likeliest = likeliest[np.argsort(-log_probs[likeliest])]
    return (
        index,
        token,
        words[token],
        float(log_probs[token]),
        float(probs[token]),
        1 + int(np.count_nonzero(log_probs > log_probs[token])),
        _entropy(log_probs),
        int(np.count_nonzero(probs)),
        tuple((words[i], math.exp(log_probs[i])) for i in likeliest),
    )


def _entropy(log_probs: LogProbs) -> float:
    return float(-np.dot(np.exp(log_probs), log_probs)) / math.log(2)


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds else 0.0
