"""Small LSTMs and Transformers with random weights, in PyTorch and in numpy."""

from types import SimpleNamespace

import numpy as np
import torch

from engine.config import ModelConfig
from engine.models.lstm import LSTMModel
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer import TransformerModel
from engine.models.weights import TRANSFORMER_VALUES
from tests.support.models import make_tokenizer, random_weights
from tests.support.training import NO_DROPOUT

VOCABULARY_SIZE = 37
VOCABULARY = make_tokenizer(VOCABULARY_SIZE)
TRANSFORMER = {"architecture": "transformer", "embedding_size": 16, "num_layers": 2, "num_heads": 2, "context_size": 12}
TRANSFORMER |= TRANSFORMER_VALUES
"""Settings of a small Transformer, to be combined with those of a small training."""
CONFIGS = {
    "one layer, one head": {"embedding_size": 8, "num_layers": 1, "num_heads": 1},
    "two layers": {"embedding_size": 24, "num_layers": 2, "num_heads": 3},
    "three layers, small heads": {"embedding_size": 12, "num_layers": 3, "num_heads": 6, "feed_forward_size": 17},
    "grouped heads": {"embedding_size": 20, "num_layers": 2, "num_heads": 6, "num_kv_heads": 2, "head_size": 8}
    | {"rope_base": 1000.0, "rope_scaling": "linear", "rope_factor": 2.0, "norm_eps": 1e-3}
    | {"tie_weights": False, "qkv_bias": True},
}  # sizes of small Transformers


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make_model(seed=0, **values):
    """Create an LSTM with two layers and without dropout, unless `values` say otherwise."""
    small = {"embedding_size": 6, "hidden_size": 8, "num_layers": 2, **NO_DROPOUT}
    return LSTMModel(ModelConfig(**(small | values)), VOCABULARY_SIZE, seeded(seed))


def make_window(time=7, batch=3):
    return torch.randint(VOCABULARY_SIZE, (time, batch), generator=seeded(9))


def make_transformer(seed=0, **values):
    return TransformerModel(ModelConfig(**(TRANSFORMER | NO_DROPOUT | values)), VOCABULARY_SIZE, seeded(seed))


def transformer_config(name="two layers", **values):
    """Return one of `CONFIGS` with a context of 512 tokens, unless `values` say otherwise."""
    small = {"context_size": 512, "weight_drop": 0.0, "subword_embeddings": False}
    return ModelConfig(architecture="transformer", **(small | CONFIGS[name] | values))


def random_transformer(tokenizer=VOCABULARY, name="two layers", *, int8=False, **values):
    config = transformer_config(name, **values)
    return NumpyTransformer(config, tokenizer, random_weights(config, tokenizer), int8=int8)


def random_base(config, tokenizer):
    """Return a pre-trained model with random weights for an adapter of `config`; None for other models."""
    weights = random_weights(config, tokenizer)
    return SimpleNamespace(name="random", weights=weights, required_memory=lambda **_: 0) if config.lora_rank else None


def token_by_token(model, tokens):
    """Return the log-probabilities `[time, vocabulary]` after each token, and the last state."""
    state, rows = model.start(), []
    for token in tokens:
        log_probs, state = model.advance(state, int(token))
        rows.append(log_probs)
    return np.stack(rows), state
