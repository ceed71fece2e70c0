"""Small models of open vocabularies, of byte pairs and of characters, with random weights."""

from dataclasses import replace
from functools import cache

import numpy as np

from engine.config import Config, ModelConfig
from engine.data.tokenizers import EOS_ID, BPETokenizer, CharacterTokenizer
from engine.models.adapters import Adapter, adapter_shapes
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.weights import TRANSFORMER_VALUES
from tests.support.files import write_run
from tests.support.models import random_weights

LINES = (
    "Bilbo Baggins is a very old friend of mine, and I think he knows it.",
    "Where is Frodo? The lamp was lit in the high tower before winter came down from the north.",
    "“We walked all night with our pony,” said Rosa. “Tolly asked for bread…”",
    "The wizard’s staff is old; the wizard is older. Éowyn smiled, and Théoden wept.",
    "Where is the Ring? It is safe for tonight - do not ask me more than that!",
)
MODEL_CONFIG = ModelConfig(embedding_size=12, hidden_size=12)
TRANSFORMER = {
    **TRANSFORMER_VALUES, "architecture": "transformer", "embedding_size": 32, "num_layers": 3, "num_heads": 4,
    "context_size": 512,
}  # fmt: skip
"""Settings of a small Transformer."""


@cache
def bpe_tokenizer():
    """Return a tokenizer of 340 tokens, which has many of the words of `LINES` as one token."""
    return BPETokenizer.train(LINES * 3, 340)


@cache
def character_tokenizer():
    """Return a tokenizer of the bytes and of the characters of `LINES`, except “Éowyn”’s first."""
    return CharacterTokenizer.from_lines(LINES, min_count=2)


def open_model(tokenizer, seed=0):
    """Return a model with random weights that prefers the tokens of `LINES` and seldom ends a text."""
    return NumpyLSTM(MODEL_CONFIG, tokenizer, _weights(tokenizer, seed))


def adapted_model(*names):
    """Return a Transformer with random weights and adapters of these names, which change it much."""
    config, adapters = ModelConfig(**TRANSFORMER, lora_rank=2), []
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        tensors = {part: rng.normal(0, 0.3, shape).astype(np.float32) for part, shape in adapter_shapes(config).items()}
        adapters.append(Adapter(name, config, tensors))
    return NumpyTransformer(config, bpe_tokenizer(), random_weights(config, bpe_tokenizer()), adapters=adapters)


def _weights(tokenizer, seed):
    bias = np.full(len(tokenizer), -8.0, np.float32)
    for ids in tokenizer.encode_lines(LINES):
        np.add.at(bias, ids, 1.0)
    bias[EOS_ID] = -6.0
    return {**random_weights(MODEL_CONFIG, tokenizer, seed), "output.bias": np.minimum(bias, -2.0)}


def write_open_run(path, tokenizer):
    """Write a finished run in line mode with the weights of `open_model`, and return its directory."""
    config = Config(model=MODEL_CONFIG)
    config = replace(config, data=replace(config.data, tokenizer=tokenizer.name, mode="line"))
    return write_run(path, config, tokenizer, _weights(tokenizer, 0))


def write_transformer_run(path, tokenizer, **values):
    """Write a run of a Transformer with random weights that are exact in half precision, and return its directory."""
    config = Config("gpt-tiny").with_values(**TRANSFORMER | values, tokenizer=tokenizer.name)
    weights = random_weights(config.model, tokenizer, len(tokenizer), scale=0.2)
    exact = {name: weight.astype(np.float16).astype(np.float32) for name, weight in weights.items()}
    return write_run(path, config, tokenizer, exact)


class RecitingModel:
    """A model that knows one line by heart: it continues each beginning of it, and then ends the line."""

    def __init__(self, tokenizer, line):
        self.tokenizer = tokenizer
        self._ids = (*tokenizer.encode(line).tolist(), EOS_ID)

    def start(self):
        return ()

    def advance(self, state, token):
        ids = () if token == EOS_ID else (*state, token)
        probs = np.full(len(self.tokenizer), 1e-9)
        if self._ids[: len(ids)] == ids:
            probs[self._ids[len(ids)]] = 1
        return np.log(probs / probs.sum()).astype(np.float32), ids
