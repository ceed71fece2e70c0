"""The networks by architecture, with their initial weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from engine.config import Config
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset
from engine.models.lstm import LSTMModel, build_subword_matrix
from engine.models.transformer import TransformerModel
from engine.storage.tensor_file import to_float32

if TYPE_CHECKING:  # most trainings need no tokenizers by others
    from engine.models.pretrained.base import Base

Network = LSTMModel | TransformerModel


def build_network(
    config: Config,
    dataset: Dataset,
    initial_weights: Mapping[str, Float32Array] | None = None,
    base: "Base | None" = None,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Build the configured network for the vocabulary of `dataset`; impossible sizes raise a ConfigError.

    The weights are `initial_weights`, those of the pre-trained model `base` (frozen in `dtype` under an adapter), or
    random.
    """
    tokenizer = dataset.tokenizer
    generator = torch.Generator().manual_seed(config.training.seed)
    network: Network
    if config.model.architecture == "transformer":
        frozen = base.weights if base is not None and config.model.lora_rank else None
        network = TransformerModel(config.model, len(tokenizer), generator, frozen, dtype)
        network.start_id = tokenizer.start_id
        if base is not None and frozen is None and initial_weights is None:
            initial_weights = {name: to_float32(tensor) for name, tensor in base.weights.items()}
    else:
        subwords = build_subword_matrix(tokenizer) if config.model.subword_embeddings else None
        network = LSTMModel(config.model, len(tokenizer), generator, subwords)
    if initial_weights is not None:
        network.load_weights(initial_weights)
    elif config.model.unigram_bias and isinstance(network, LSTMModel):
        network.init_output_bias(dataset.train)
    return network
