"""The networks by architecture, with their initial weights."""

from collections.abc import Mapping

import torch

from engine.config import Config
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset
from engine.models.lstm import LSTMModel
from engine.models.network import Network
from engine.models.subword_embeddings import build_subword_matrix
from engine.models.transformer import TransformerModel


def build_network(
    config: Config, dataset: Dataset, initial_weights: Mapping[str, Float32Array] | None = None
) -> Network:
    """Build the configured network for the vocabulary of `dataset`.

    The weights are drawn from the configured seed, unless there are `initial_weights`.

    Raises:
        ConfigError: If the sizes of a Transformer do not fit together.
    """
    tokenizer = dataset.tokenizer
    generator = torch.Generator().manual_seed(config.training.seed)
    network: Network
    if config.model.architecture == "transformer":
        network = TransformerModel(config.model, len(tokenizer), generator)
    else:
        subwords = build_subword_matrix(tokenizer) if config.model.subword_embeddings else None
        network = LSTMModel(config.model, len(tokenizer), generator, subwords)
    if initial_weights is not None:
        network.load_weights(initial_weights)
    elif config.model.unigram_bias:
        network.init_output_bias(dataset.train)
    return network
