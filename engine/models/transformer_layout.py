"""Layout of the Transformer's weights, which are named and shaped as in Llama, and what its layers have in common."""

import math
from typing import Any

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float64Array
from engine.errors import ConfigError

# Rotations in the original context up to, and from which frequencies are scaled, and not.
LLAMA3_LOW_FACTOR, LLAMA3_HIGH_FACTOR = 1.0, 4.0

# Of the settings that only LSTMs can choose.
TRANSFORMER_VALUES: dict[str, Any] = {
    "weight_drop": 0.0, "subword_embeddings": False, "punctuation": False, "initialization": "uniform",
    "mogrifier_rounds": 0,
}  # fmt: skip


def head_size(config: ModelConfig) -> int:
    return config.head_size or config.embedding_size // config.num_heads


def num_kv_heads(config: ModelConfig) -> int:
    """Return the number of heads with keys and values; groups of consecutive query heads share them."""
    return config.num_kv_heads or config.num_heads


def largest_num_heads(embedding_size: int, max_heads: int) -> int:
    """Return the largest number of heads up to `max_heads` that gives each an even size; `max_heads` if none does."""
    return next((heads for heads in range(max_heads, 0, -1) if embedding_size % (2 * heads) == 0), max_heads)


def inner_size(config: ModelConfig) -> int:
    """Return the inner units of the feed-forward layers: by default 8 / 3 of the width, in 32s (Shazeer 2020)."""
    return config.feed_forward_size or -(-8 * config.embedding_size // (3 * 32)) * 32


def num_kept_tokens(context_size: int) -> int:
    """Return how many last tokens a full context keeps: they are read again from position 0."""
    return context_size // 2


def rotary_frequencies(config: ModelConfig) -> Float64Array:
    """Return the angle `[head size / 2]` per position of each pair of units (Su et al. 2021, arXiv 2104.09864).

    Unit `i` of the first half of a head and unit `i` of the second half are a pair, as in the weights of Hugging Face.
    """
    size = head_size(config)
    frequencies: Float64Array = config.rope_base ** (-np.arange(0, size, 2) / size)
    if config.rope_scaling == "none":
        return frequencies
    scaled = frequencies / config.rope_factor
    if config.rope_scaling == "linear":
        return scaled
    rotations = config.rope_original_context * frequencies / (2 * math.pi)
    unscaled = (rotations - LLAMA3_LOW_FACTOR) / (LLAMA3_HIGH_FACTOR - LLAMA3_LOW_FACTOR)
    mixed: Float64Array = scaled + (frequencies - scaled) * unscaled.clip(0, 1)
    return mixed


def check_transformer_config(config: ModelConfig) -> None:
    """Raise a ConfigError if a setting has a value that only LSTMs can have, or the heads have no even size."""
    width, heads, kv_heads = config.embedding_size, config.num_heads, num_kv_heads(config)
    if not config.head_size and width % (2 * heads):
        raise ConfigError(
            f"embedding_size={width} cannot be divided into num_heads={heads} heads of an even size; "
            f"use --set embedding_size={max(1, width // (2 * heads)) * 2 * heads} or another number of heads"
        )
    if config.head_size % 2:
        raise ConfigError(f"head_size={config.head_size} is odd; use --set head_size={config.head_size + 1}")
    if heads % kv_heads:
        divisor = math.gcd(heads, kv_heads)
        raise ConfigError(
            f"num_heads={heads} query heads cannot be divided among num_kv_heads={kv_heads}; "
            f"use --set num_kv_heads={divisor}"
        )
    for name, value in TRANSFORMER_VALUES.items():
        if (actual := getattr(config, name)) != value:
            shown, needed = (str(item).lower() if isinstance(item, bool) else item for item in (actual, value))
            raise ConfigError(f"a transformer cannot have {name}={shown}; use --set {name}={needed}")


def transformer_weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in `model.safetensors`; linear layers are `[outputs, inputs]`."""
    width, inner, size = config.embedding_size, inner_size(config), head_size(config)
    attended, kv_units = config.num_heads * size, num_kv_heads(config) * size
    sizes = {"q_proj": attended, "k_proj": kv_units, "v_proj": kv_units}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary_size, width)}
    for i in range(config.num_layers):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (width,)
        for name, num_units in sizes.items():
            shapes[f"{layer}.self_attn.{name}.weight"] = (num_units, width)
            if config.qkv_bias:
                shapes[f"{layer}.self_attn.{name}.bias"] = (num_units,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (width, attended)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (width,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (inner, width)
        shapes[f"{layer}.mlp.up_proj.weight"] = (inner, width)
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, inner)
    shapes["model.norm.weight"] = (width,)
    if not config.tie_weights:
        shapes["lm_head.weight"] = (vocabulary_size, width)
    return shapes
