"""Small numpy Transformers with random weights."""

from typing import Any

import numpy as np

from engine.config import ModelConfig
from engine.data.tokenizers.base import Tokenizer
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer_layout import transformer_weight_shapes


def transformer_config(**values: Any) -> ModelConfig:
    """Return the configuration of a small Transformer, unless `values` say otherwise."""
    small = {"embedding_size": 8, "num_layers": 2, "num_heads": 2, "weight_drop": 0.0, "subword_embeddings": False}
    return ModelConfig(architecture="transformer", **(small | values))


def random_transformer_weights(
    config: ModelConfig, vocabulary_size: int, seed: int = 0, scale: float = 0.4
) -> dict[str, np.ndarray]:
    """Return normally distributed weights with standard deviation `scale`, and a mean of 1 in the norms."""
    rng, shapes = np.random.default_rng(seed), transformer_weight_shapes(config, vocabulary_size)
    return {name: rng.normal(len(shape) == 1, scale, shape).astype(np.float32) for name, shape in shapes.items()}


def random_transformer(tokenizer: Tokenizer, seed: int = 0, **values: Any) -> NumpyTransformer:
    """Create a small Transformer; `values` are settings of the model."""
    config = transformer_config(**values)
    return NumpyTransformer(config, tokenizer, random_transformer_weights(config, len(tokenizer), seed))
