"""The continuous cache pointer: words used lately become likelier, most of all where the context is alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import Ids, Vocabulary
from engine.errors import UnusableInput
from engine.models.base import Hidden, LanguageModel, LogProbs, State, Trace, advance_all, hidden_of, trace

CHUNK = 256
THETAS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5)
SHARES = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)


@dataclass(frozen=True)
class CacheSettings:
    """How far back the cache looks, and how much it is believed (Grave, Joulin and Usunier 2017, equations 2 to 4)."""

    window: int = 500
    """Words remembered."""
    theta: float = 1.0
    """How much alike contexts count for more; at 0 all remembered words count the same."""
    share: float = 0.1
    """lambda: the cache's part of the probability."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UnusableInput(f"cache window {self.window} is out of range; use a whole number from 1, 500 is usual")
        if not 0 <= self.theta <= 1000:
            raise UnusableInput(f"cache theta {self.theta:g} is out of range; use a number in [0, 1000]")
        if not 0 <= self.share < 1:
            raise UnusableInput(f"cache share {self.share:g} is out of range; use a number in [0, 1)")


@dataclass(frozen=True)
class CacheState:
    """The model's own state, and the words of the window with the vectors they were predicted from."""

    inner: State
    hidden: Hidden | None
    """What the next word is predicted from; None before `<eos>` was read."""
    keys: Hidden
    """`[remembered, hidden]`, oldest first."""
    words: Ids
    """`[remembered]`"""


class Cache:
    """Any model with a cache. From the first word on the cache takes part; before it there is nothing to point at.

    A model without a hidden vector, as Kneser-Ney, gets a cache in which all remembered words count alike.
    """

    def __init__(self, model: LanguageModel, settings: CacheSettings) -> None:
        self.model = model
        self.settings = settings

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's."""
        return self.model.vocabulary

    def start(self) -> CacheState:
        """The model's start, and nothing remembered."""
        return CacheState(self.model.start(), None, np.empty((0, 0), np.float32), np.empty(0, np.int32))

    def advance(self, state: CacheState, token: int) -> tuple[LogProbs, CacheState]:
        """Remember `token` beside the vector that predicted it, then predict the word after it."""
        return self._after(state, token, self.model.advance(state.inner, token))

    def advance_all(self, states: Sequence[CacheState], tokens: Sequence[int]) -> list[tuple[LogProbs, CacheState]]:
        """Do so in each of several texts."""
        read = advance_all(self.model, [state.inner for state in states], tokens)
        return [self._after(state, token, its) for state, token, its in zip(states, tokens, read, strict=True)]

    def _after(self, state: CacheState, token: int, read: tuple[LogProbs, State]) -> tuple[LogProbs, CacheState]:
        log_probs, inner = read
        hidden, keys, words = hidden_of(self.model, inner), state.keys, state.words
        if state.hidden is None:
            keys = np.empty((0, len(hidden)), np.float32)
        else:
            oldest = 1 if len(words) == self.settings.window else 0
            keys = np.concatenate([keys[oldest:], state.hidden[None]])
            words = np.append(words[oldest:], np.int32(token))
        if len(words):
            likeness = self.settings.theta * (keys @ hidden)
            weights = np.exp(likeness - likeness.max())
            pointed = np.bincount(words, weights=weights / weights.sum(), minlength=len(log_probs))
            share = self.settings.share
            probs = (1 - share) * np.exp(log_probs.astype(np.float64)) + share * pointed
            log_probs = np.log(probs).astype(np.float32)
        return log_probs, CacheState(inner, hidden, keys, words)

    def hidden(self, state: CacheState) -> Hidden:
        """The model's own vector."""
        return hidden_of(self.model, state.inner)

    def trace(self, ids: Ids) -> Trace:
        """Read a whole text, the window of many words computed at once."""
        read = trace(self.model, ids)
        pointed = cache_probs(read.hidden, ids, self.settings.window, [self.settings.theta])[0]
        return Trace(_mixed(read.scores, pointed, self.settings.share), read.hidden)


def cache_probs(hidden: Hidden, ids: Ids, window: int, thetas: Sequence[float]) -> npt.NDArray[np.float64]:
    """What the cache alone gives each token of a text, for several thetas: `[thetas, time]`.

    Args:
        hidden: `[time, hidden]`, what each token was predicted from.
        ids: `[time]`.
        window: words remembered.
        thetas: see `CacheSettings`.
    """
    probs = np.zeros((len(thetas), len(ids)))
    for begin in range(0, len(ids), CHUNK):
        end = min(begin + CHUNK, len(ids))
        oldest = max(0, begin - window)
        now, then = np.arange(begin, end)[:, None], np.arange(oldest, end)[None, :]
        in_window = (then < now) & (then >= now - window)
        same = ids[begin:end, None] == ids[None, oldest:end]
        products = hidden[begin:end] @ hidden[oldest:end].T
        for i, theta in enumerate(thetas):
            likeness = np.where(in_window, theta * products, -np.inf)
            likeness[in_window.any(axis=1)] -= likeness[in_window.any(axis=1)].max(axis=1, keepdims=True)
            weights = np.exp(likeness)
            totals = weights.sum(axis=1)
            probs[i, begin:end] = (weights * same).sum(axis=1) / np.where(totals > 0, totals, 1)
    return probs


def _mixed(scores: npt.NDArray[np.float64], pointed: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """The model's scores `[time]` with the cache's probabilities mixed in; the first word has no cache yet."""
    mixed = np.log((1 - share) * np.exp(scores) + share * pointed)
    mixed[0] = scores[0]
    return mixed


def choose_cache(read: Trace, ids: Ids, window: int = CacheSettings.window) -> CacheSettings:
    """The theta and share under which a text that a model has read is most probable."""
    pointed = cache_probs(read.hidden, ids, window, THETAS)
    best = max(
        ((theta, share) for theta in THETAS for share in SHARES),
        key=lambda choice: _mixed(read.scores, pointed[THETAS.index(choice[0])], choice[1]).sum(),
    )
    return CacheSettings(window, *best)
