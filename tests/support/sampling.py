"""What tests of sampling draw from and compare with: models of a fixed distribution, and naive references."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from engine.data.vocabulary import EOS_ID, UNK_ID, Vocabulary
from engine.generation.generate import Done, TokenEvent, stream
from engine.generation.processors import normalize
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs

Floats = np.ndarray
OFF = SamplerSettings(temperature=1.0)


def vocabulary_of(size: int) -> Vocabulary:
    return Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(2, size))))


class Fixed:
    """A model whose distribution depends on nothing, or on the words read; it notes all it is fed."""

    def __init__(self, probs: Sequence[float] | Callable[[tuple[int, ...]], Sequence[float]]) -> None:
        if callable(probs):
            self._function, size = probs, len(probs((EOS_ID,)))
        else:
            constant = np.log(np.array(probs) / np.sum(probs)).astype(np.float32)
            self._constant, self._function, size = constant, None, len(probs)
        self.vocabulary = vocabulary_of(size)
        self.fed: list[tuple[tuple[int, ...], int]] = []

    def start(self) -> tuple[int, ...]:
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        if self._function is None:
            return self._constant, ()
        self.fed.append((state, token))
        read_so_far = (*state, token)
        probs = np.array(self._function(read_so_far), dtype=np.float64)
        return np.log(probs / probs.sum()).astype(np.float32), read_so_far


def zipf(size: int, eos: float = 1e-9, unk: float = 0.2) -> list[float]:
    """A word's usual distribution, with much `<unk>` and hardly any `<eos>`."""
    return [unk, eos, *(1 / rank for rank in range(1, size - 1))]


def mixed(read_so_far: tuple[int, ...], size: int = 30) -> Floats:
    """Another distribution after every history."""
    return np.exp(np.random.default_rng([len(read_so_far), *read_so_far]).normal(0, 2, size))


def tokens(
    model: Fixed, sampler: SamplerSettings, seed: int, ids: Sequence[int] = (2,)
) -> tuple[list[TokenEvent], Done]:
    events = list(stream(model, ids, sampler, seed))
    assert isinstance(events[-1], Done)
    words = [event for event in events if isinstance(event, TokenEvent)]
    assert len(words) == len(events) - 1
    return words, events[-1]


def scores_of(seed: int, size: int = 40) -> Floats:
    found: Floats = normalize(np.random.default_rng(seed).normal(0, 3, size))
    return found


def kept_by(scores: Floats) -> set[int]:
    return set(np.flatnonzero(scores > -np.inf).tolist())


def naive_order(scores: Floats) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def naive_top_p(scores: Floats, p: float) -> set[int]:
    total, kept = 0.0, set()
    whole = sum(math.exp(s) for s in scores)
    for i in naive_order(scores):
        kept.add(i)
        total += math.exp(scores[i]) / whole
        if total >= p:
            break
    return kept


def naive_chain(log_probs: Floats, sampler: SamplerSettings, history: Sequence[int], first: bool) -> list[float]:
    """All stages with plain lists, in the order that the settings have."""
    scores = [float(s) for s in log_probs]
    scores[UNK_ID] = -math.inf
    if first:
        scores[EOS_ID] = -math.inf
    for i in set(history):
        scores[i] = scores[i] / sampler.repetition_penalty if scores[i] > 0 else scores[i] * sampler.repetition_penalty
    best = max(range(len(scores)), key=lambda i: scores[i])
    if sampler.temperature == 0:
        scores = [0.0 if i == best else -math.inf for i in range(len(scores))]
    else:
        scores = [(s - scores[best]) / sampler.temperature for s in scores]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = set(order[: sampler.top_k] if sampler.top_k else order)
    scores = [s if i in kept else -math.inf for i, s in enumerate(scores)]
    if sampler.top_p < 1:
        kept = naive_top_p(np.array(scores), sampler.top_p)
        scores = [s if i in kept else -math.inf for i, s in enumerate(scores)]
    if sampler.min_p:
        scores = [s if math.exp(s) >= sampler.min_p else -math.inf for s in scores]  # the best is exp(0)
    probs = [math.exp(s) for s in scores]
    return [p / sum(probs) for p in probs]


CHAINS = [
    OFF,
    SamplerSettings(temperature=0.7),
    SamplerSettings(temperature=0),
    SamplerSettings(temperature=2, top_k=5),
    SamplerSettings(temperature=1.5, top_p=0.9),
    SamplerSettings(temperature=0.6, min_p=0.1),
    SamplerSettings(temperature=1.2, top_k=12, top_p=0.8, min_p=0.05, repetition_penalty=1.4),
    SamplerSettings(temperature=0.8, repetition_penalty=0.7),
    SamplerSettings(temperature=0.9, repetition_penalty=2),
    SamplerSettings(temperature=0, top_k=3, top_p=0.1, min_p=0.9, repetition_penalty=10),
]


def named(sampler: SamplerSettings) -> str:
    """In ASCII: pytest escapes other names of tests once more when it collects them again, as mutmut has it do."""
    return sampler.chain().replace("→", "then")
