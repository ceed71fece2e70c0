"""Combinations of models: a mixture of several, and a neural cache, which makes recently used tokens more likely."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array, Float64Array
from engine.data.tokenizers import TokenIds
from engine.models import base
from engine.models.base import HiddenVector, LanguageModel, LogProbs, ModelState, SequenceOutput

BLOCK_ROWS = 64  # hidden vectors that are stored together, so that a state costs one vector and not the whole cache
THETA_GRID = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5)
WEIGHT_GRID = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)


class Mixture:
    """Weighted mean of the distributions of models of one vocabulary, with the hidden vector of the first model."""

    def __init__(self, models: Sequence[LanguageModel], weights: Sequence[float]) -> None:
        self.models, self.weights, self.tokenizer = tuple(models), tuple(weights), models[0].tokenizer
        with np.errstate(divide="ignore"):
            self._log_weights = np.log(np.asarray(weights))

    def start(self) -> tuple[ModelState, ...]:
        return tuple(model.start() for model in self.models)

    def advance(self, state: tuple[ModelState, ...], token: int) -> tuple[LogProbs, tuple[ModelState, ...]]:
        outputs = [model.advance(each, token) for model, each in zip(self.models, state, strict=True)]
        mixed = self._mix([log_probs for log_probs, _ in outputs]).astype(np.float32)
        return mixed, tuple(state for _, state in outputs)

    def hidden_vector(self, state: tuple[ModelState, ...]) -> HiddenVector:
        return base.hidden_vector(self.models[0], state[0])

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        yield self.mix_outputs([base.forward_sequence(model, ids) for model in self.models])

    def mix_outputs(self, outputs: Sequence[SequenceOutput]) -> SequenceOutput:
        """Combine the outputs of the models, one per model and all for the same text."""
        return SequenceOutput(self._mix([output.log_probs for output in outputs]), outputs[0].hidden_states)

    def _mix(self, log_probs: Sequence[npt.NDArray[np.floating]]) -> Float64Array:
        weighted = np.stack(log_probs) + self._log_weights.reshape(-1, *[1] * log_probs[0].ndim)
        highest = weighted.max(axis=0)
        return np.asarray(highest + np.log(np.exp(weighted - highest).sum(axis=0)))


def tune_mixture_weights(log_probs: Float64Array, num_iterations: int = 200) -> tuple[float, ...]:
    """Return the likeliest weights, given `log_probs` `[models, time]` of a text, by expectation maximization."""
    probs = np.exp(log_probs - log_probs.max(axis=0))
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(num_iterations):
        joint = weights[:, None] * probs
        weights = (joint / joint.sum(axis=0)).mean(axis=1)
    return tuple(float(weight) for weight in weights / weights.sum())


@dataclass(frozen=True)
class CacheSettings:
    """Parameters of a neural cache (Grave, Joulin and Usunier 2017, equations 2 to 4)."""

    window: int = 500  # tokens in the cache
    theta: float = 1.0  # sharpness of the similarity between contexts; at 0, all tokens in the cache count the same
    weight: float = 0.1  # of the cache beside the model, called lambda in the paper


@dataclass(frozen=True)
class CacheState:
    model_state: ModelState
    hidden_vector: HiddenVector | None = None  # that the next token is predicted from; None before `<eos>` was read
    blocks: tuple[Float32Array, ...] = ()  # hidden vectors `[BLOCK_ROWS, hidden]` each, oldest first
    vectors: tuple[HiddenVector, ...] = ()  # hidden vectors after the last block
    token_ids: TokenIds = field(default_factory=lambda: np.empty(0, np.int32))  # tokens `[cached]`, oldest first


class NeuralCache:
    """A model with a cache of recent tokens, most of all of those after similar contexts, by hidden vectors."""

    def __init__(self, model: LanguageModel, settings: CacheSettings) -> None:
        self.model, self.settings, self.tokenizer = model, settings, model.tokenizer

    def start(self) -> CacheState:
        return CacheState(self.model.start())

    def advance(self, state: CacheState, token: int) -> tuple[LogProbs, CacheState]:
        (log_probs, model_state), token_ids = self.model.advance(state.model_state, token), state.token_ids
        hidden, blocks, vectors = base.hidden_vector(self.model, model_state), state.blocks, state.vectors
        if state.hidden_vector is not None:
            vectors = (*vectors, state.hidden_vector)
            token_ids = np.append(token_ids, np.int32(token))[-self.settings.window :]
        if len(vectors) == BLOCK_ROWS:
            blocks, vectors = (*blocks, np.stack(vectors)), ()
        if len(blocks) * BLOCK_ROWS + len(vectors) - BLOCK_ROWS >= len(token_ids) > 0:
            blocks = blocks[1:]
        if len(token_ids):
            rows = [*blocks, np.concatenate(vectors).reshape(len(vectors), len(hidden))] if vectors else blocks
            products = np.concatenate([keys @ hidden for keys in rows])[-len(token_ids) :]
            similarity = self.settings.theta * products
            weights = np.exp(similarity - similarity.max())
            cached = np.bincount(token_ids, weights=weights / weights.sum(), minlength=len(log_probs))
            weight = self.settings.weight
            probs = (1 - weight) * np.exp(log_probs.astype(np.float64)) + weight * cached
            log_probs = np.log(probs).astype(np.float32)
        return log_probs, CacheState(model_state, hidden, blocks, vectors, token_ids)

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        output = base.forward_sequence(self.model, ids)
        probs = cache_probs(output.hidden_states, ids, self.settings.window, [self.settings.theta])[0]
        yield SequenceOutput(_interpolate(output.log_probs, probs, self.settings.weight), output.hidden_states)


def cache_probs(hidden_states: HiddenVector, ids: TokenIds, window: int, thetas: Sequence[float]) -> Float64Array:
    """Return the probability `[thetas, time]` of each token, predicted from `hidden_states`, under the cache alone."""
    probs = np.zeros((len(thetas), len(ids)))
    for start in range(0, len(ids), base.SCORING_CHUNK):
        oldest, end = max(0, start - window), min(start + base.SCORING_CHUNK, len(ids))
        chunk = slice(start, end)
        current, cached = np.arange(start, end)[:, None], np.arange(oldest, end)[None, :]
        in_window = (cached < current) & (cached >= current - window)
        is_same = ids[chunk, None] == ids[None, oldest:end]
        products = hidden_states[chunk] @ hidden_states[oldest:end].T
        has_cache = in_window.any(axis=1)
        for i, theta in enumerate(thetas):
            similarity = np.where(in_window, theta * products, -np.inf)
            similarity[has_cache] -= similarity[has_cache].max(axis=1, keepdims=True)
            weights = np.exp(similarity)
            totals = weights.sum(axis=1)
            probs[i, chunk] = (weights * is_same).sum(axis=1) / np.where(totals > 0, totals, 1)
    return probs


def _interpolate(log_probs: Float64Array, cache_probs: Float64Array, weight: float) -> Float64Array:
    mixed = np.log((1 - weight) * np.exp(log_probs) + weight * cache_probs)
    mixed[0] = log_probs[0]  # the cache is empty
    return mixed


def tune_cache(output: SequenceOutput, ids: TokenIds, window: int = CacheSettings.window) -> CacheSettings:
    """Return the settings of the grids that maximize the likelihood of `ids`, given the output without a cache."""
    probs_by_theta = dict(zip(THETA_GRID, cache_probs(output.hidden_states, ids, window, THETA_GRID), strict=True))
    theta, weight = max(
        ((theta, weight) for theta in THETA_GRID for weight in WEIGHT_GRID),
        key=lambda pair: _interpolate(output.log_probs, probs_by_theta[pair[0]], pair[1]).sum(),
    )
    return CacheSettings(window, theta, weight)
