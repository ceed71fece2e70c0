"""The models of runs for inference in numpy, by architecture."""

from collections.abc import Mapping

from engine.config import ModelConfig
from engine.data.tokenizers import Tokenizer
from engine.models import numpy_lstm
from engine.models.adapter import MergedWeights, adapter_shapes
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer_layout import transformer_weight_shapes
from engine.storage.tensor_file import StoredTensor

NumpyDecoder = NumpyLSTM | NumpyTransformer


def weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in `model.safetensors`."""
    if config.architecture == "transformer":
        return transformer_weight_shapes(config, vocabulary_size)
    return numpy_lstm.weight_shapes(config, vocabulary_size)


def trained_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that a training changes, of an adapter or of the whole model."""
    return adapter_shapes(config) if config.lora_rank else weight_shapes(config, vocabulary_size)


def build_decoder(
    config: ModelConfig, tokenizer: Tokenizer, weights: Mapping[str, StoredTensor], *, int8: bool = False
) -> NumpyDecoder:
    """Prepare the weights of a run, named as in `weight_shapes`, for inference; see the constructor of each model."""
    if config.architecture == "transformer":
        return NumpyTransformer(config, tokenizer, MergedWeights(config, weights, {}, int8=True) if int8 else weights)
    return NumpyLSTM(config, tokenizer, weights, int8=int8)
