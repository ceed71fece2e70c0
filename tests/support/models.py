"""Small language models with random weights, and the distributions that models predict."""

import math

import numpy as np

from engine.analysis.evaluation import EncodedText, convert_text, native_form
from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.models.base import predict_one_by_one, score_sequence
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.weights import weight_shapes


def make_tokenizer(size):
    return WordTokenizer(("<unk>", "<eos>", *(f"w{i}" for i in range(size - 2))))


def random_ids(length, vocabulary_size, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary_size, length).astype(np.int32)


def random_weights(config, tokenizer, seed=0, scale=0.3):
    """Return normally distributed weights with standard deviation `scale`, and a mean of 1 in norms."""
    rng, shapes = np.random.default_rng(seed), weight_shapes(config, len(tokenizer)).items()
    return {name: rng.normal(name.endswith("norm.weight"), scale, shape).astype(np.float32) for name, shape in shapes}


def random_lstm(config, tokenizer, seed=0, scale=1.0):
    return NumpyLSTM(config, tokenizer, random_weights(config, tokenizer, seed, scale))


def distributions(model, ids):
    """Return the probabilities `[time + 1, vocabulary]` after `<eos>` and after each token, in float64."""
    state, rows = model.start(), []
    for token in (EOS_ID, *ids):
        log_probs, state = model.advance(state, int(token))
        rows.append(np.exp(log_probs.astype(np.float64)))
    return np.stack(rows)


class TokenByTokenModel:
    """The same model without its fast methods for whole texts and batches."""

    def __init__(self, model):
        self.tokenizer = model.tokenizer
        self.model = model

    def start(self):
        return self.model.start()

    def advance(self, state, token):
        return self.model.advance(state, token)


class ParallelReader(TokenByTokenModel):
    """A model that reads several tokens at once, with the results of `advance`."""

    def __init__(self, model):
        super().__init__(model)
        self.num_passes = 0  # number of calls that have read several tokens

    def predict_tokens(self, state, tokens, *, last_only=False):
        self.num_passes += 1
        return predict_one_by_one(self.model, state, tokens, last_only=last_only)

    def advance_batch(self, states, tokens):
        return [self.advance(state, token) for state, token in zip(states, tokens, strict=True)]


class UniformModel:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def start(self):
        return None

    def advance(self, state, token):
        return np.full(len(self.tokenizer), -np.log(len(self.tokenizer)), np.float32), None


def naive_bits(model, ids):
    log_probs, state = model.advance(model.start(), EOS_ID)
    total = 0.0
    for token in ids:
        total -= float(log_probs[token]) / math.log(2)
        log_probs, state = model.advance(state, token)
    return total


def text_bits_per_character(model, text, mode):
    encoded = EncodedText(convert_text(text, native_form(model.tokenizer), mode), model.tokenizer, mode)
    return encoded.bits_per_character(score_sequence(model, encoded.ids))
