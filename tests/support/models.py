"""Small language models with random weights, and the distributions that models predict."""

import math
from collections.abc import Sequence

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.data.tokenizers.words import WordTokenizer
from engine.models.base import HiddenVector, LanguageModel, LogProbs, ModelState, hidden_vector_function
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes


def make_tokenizer(size: int) -> Tokenizer:
    return WordTokenizer(("<unk>", "<eos>", *(f"w{i}" for i in range(size - 2))))


def random_ids(length: int, vocabulary_size: int, seed: int = 0) -> TokenIds:
    return np.random.default_rng(seed).integers(0, vocabulary_size, length).astype(np.int32)


def random_lstm(config: ModelConfig, tokenizer: Tokenizer, seed: int = 0, scale: float = 1.0) -> NumpyLSTM:
    """Create an LSTM whose weights are normally distributed with standard deviation `scale`."""
    rng = np.random.default_rng(seed)
    shapes = weight_shapes(config, len(tokenizer))
    weights = {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    return NumpyLSTM(config, tokenizer, weights)


def distributions(model: LanguageModel, ids: Sequence[int] | TokenIds) -> np.ndarray:
    """Return the probabilities `[time + 1, vocabulary]` after `<eos>` and after each token, in float64."""
    state, rows = model.start(), []
    for token in (EOS_ID, *ids):
        log_probs, state = model.advance(state, int(token))
        rows.append(np.exp(log_probs.astype(np.float64)))
    return np.stack(rows)


def hidden_vector(model: LanguageModel, state: ModelState) -> HiddenVector:
    """Return the vector that the token after `state` is predicted from; empty if the model has none."""
    return hidden_vector_function(model)(state)


class TokenByTokenModel:
    """The same model without its fast methods for whole texts and batches."""

    def __init__(self, model: LanguageModel) -> None:
        self.tokenizer = model.tokenizer
        self.model = model

    def start(self) -> ModelState:
        return self.model.start()

    def advance(self, state: ModelState, token: int) -> tuple[LogProbs, ModelState]:
        return self.model.advance(state, token)


class ParallelReader(TokenByTokenModel):
    """A model that reads several tokens at once, with the results of `advance`."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self.num_passes = 0
        """Number of calls that have read several tokens."""

    def advance_tokens(self, state: ModelState, tokens: Sequence[int]) -> tuple[LogProbs, ModelState]:
        rows, state = self.predict_tokens(state, tokens)
        return rows[-1], state

    def predict_tokens(self, state: ModelState, tokens: Sequence[int]) -> tuple[Float32Array, ModelState]:
        self.num_passes += 1
        rows = []
        for token in tokens:
            log_probs, state = self.model.advance(state, token)
            rows.append(log_probs)
        return np.stack(rows), state


def assert_branches_are_independent(model: LanguageModel, state: ModelState, token: int, other_token: int) -> None:
    """Assert that a kept state and its results do not change when the model reads on from it, twice."""
    first, state_after = model.advance(state, token)
    second, _ = model.advance(state_after, other_token)
    kept = first.copy()
    model.advance(state, other_token)
    again, state_after_again = model.advance(state, token)
    assert np.array_equal(first, kept)
    assert np.array_equal(first, again)
    assert np.array_equal(second, model.advance(state_after_again, other_token)[0])


class UniformModel:
    """A model for which all tokens are equally likely."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def start(self) -> None:
        return None

    def advance(self, state: None, token: int) -> tuple[LogProbs, None]:
        return np.full(len(self.tokenizer), -np.log(len(self.tokenizer)), np.float32), None


def naive_bits(model: LanguageModel, ids: Sequence[int]) -> float:
    """Return the bits of tokens, read one by one after `<eos>`."""
    log_probs, state = model.advance(model.start(), EOS_ID)
    total = 0.0
    for token in ids:
        total -= float(log_probs[token]) / math.log(2)
        log_probs, state = model.advance(state, token)
    return total
