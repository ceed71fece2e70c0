"""Small numpy Transformers with random weights, and their predictions token by token."""

import numpy as np

from engine.config import ModelConfig
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer_layout import transformer_weight_shapes
from tests.support.models import make_tokenizer

VOCABULARY_SIZE = 37
VOCABULARY = make_tokenizer(VOCABULARY_SIZE)
CONFIGS = {
    "one layer, one head": {"embedding_size": 8, "num_layers": 1, "num_heads": 1},
    "two layers": {"embedding_size": 24, "num_layers": 2, "num_heads": 3},
    "three layers, small heads": {"embedding_size": 12, "num_layers": 3, "num_heads": 6, "feed_forward_size": 17},
}
"""Sizes of small Transformers."""


def transformer_config(**values):
    """Return the configuration of a small Transformer, unless `values` say otherwise."""
    small = {"embedding_size": 8, "num_layers": 2, "num_heads": 2, "weight_drop": 0.0, "subword_embeddings": False}
    return ModelConfig(architecture="transformer", **(small | values))


def random_transformer_weights(config, vocabulary_size, seed=0, scale=0.4):
    """Return normally distributed weights with standard deviation `scale`, and a mean of 1 in the norms."""
    rng, shapes = np.random.default_rng(seed), transformer_weight_shapes(config, vocabulary_size)
    return {name: rng.normal(len(shape) == 1, scale, shape).astype(np.float32) for name, shape in shapes.items()}


def random_transformer(tokenizer, seed=0, **values):
    """Create a small Transformer; `values` are settings of the model."""
    config = transformer_config(**values)
    return NumpyTransformer(config, tokenizer, random_transformer_weights(config, len(tokenizer), seed))


def make_config(name="two layers", **values):
    """Return one of `CONFIGS` with a context of 512 tokens, unless `values` say otherwise."""
    return transformer_config(**({"context_size": 512} | CONFIGS[name] | values))


def random_weights(config, scale=0.3):
    """Return random weights for `VOCABULARY`."""
    return random_transformer_weights(config, VOCABULARY_SIZE, scale=scale)


def make_model(name="two layers", *, int8=False, **values):
    """Create a Transformer of `VOCABULARY` with one of `CONFIGS`; `values` are settings of the model."""
    config = make_config(name, **values)
    return NumpyTransformer(config, VOCABULARY, random_weights(config), int8=int8)


def token_by_token(model, tokens):
    """Return the log-probabilities `[time, vocabulary]` after each token, and the last state."""
    state, rows = model.start(), []
    for token in tokens:
        log_probs, state = model.advance(state, int(token))
        rows.append(log_probs)
    return np.stack(rows), state
