"""A small PyTorch LSTM and input for it."""

import torch

from engine.config import ModelConfig
from engine.models.lstm import LSTMModel
from tests.support.training import NO_DROPOUT

VOCABULARY_SIZE = 11


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make_model(seed=0, **values):
    """Create a model with two layers and without dropout, unless `values` say otherwise."""
    small = {"embedding_size": 6, "hidden_size": 8, "num_layers": 2, **NO_DROPOUT}
    return LSTMModel(ModelConfig(**(small | values)), VOCABULARY_SIZE, seeded(seed))


def make_window(time=7, batch=3):
    """Return random token ids `[time, batch]`."""
    return torch.randint(VOCABULARY_SIZE, (time, batch), generator=seeded(9))
