"""A small PyTorch Transformer."""

from engine.config import ModelConfig
from engine.models.transformer import TransformerModel
from engine.models.transformer_layout import TRANSFORMER_VALUES
from tests.support.lstm import VOCABULARY_SIZE, seeded

TRANSFORMER = {
    "architecture": "transformer",
    "embedding_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "context_size": 12,
    **TRANSFORMER_VALUES,
}
"""Settings of a small Transformer, to be combined with those of a small training."""


def make_transformer(seed=0, **values):
    """Create a Transformer of two layers without dropout, unless `values` say otherwise."""
    plain = {"embedding_dropout": 0.0, "input_dropout": 0.0, "hidden_dropout": 0.0, "output_dropout": 0.0}
    return TransformerModel(ModelConfig(**(TRANSFORMER | plain | values)), VOCABULARY_SIZE, seeded(seed))
