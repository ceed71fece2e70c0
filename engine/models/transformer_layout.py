"""Layout of the Transformer's weights, which are named and shaped as in Llama, and the constants of its layers."""

from typing import Any

from engine.config import ModelConfig
from engine.errors import ConfigError

RMS_NORM_EPS = 1e-5
"""Number added to the mean square before its root, so that RMSNorm never divides by zero."""
ROPE_BASE = 10_000.0
"""Base of the rotary position embedding's frequencies (Su et al. 2021, arXiv 2104.09864)."""
FEED_FORWARD_MULTIPLE = 32
"""The automatic inner size of feed-forward layers is a multiple of this."""

TRANSFORMER_VALUES: dict[str, Any] = {
    "tie_weights": True, "weight_drop": 0.0, "subword_embeddings": False, "punctuation": False,
    "speaker_input": "token", "initialization": "uniform", "mogrifier_rounds": 0,
}  # fmt: skip
"""Values of the settings that only LSTMs can choose."""


def head_size(config: ModelConfig) -> int:
    """Return the number of units of each attention head."""
    return config.embedding_size // config.num_heads


def largest_num_heads(embedding_size: int, max_heads: int) -> int:
    """Return the largest number of heads up to `max_heads` that gives each an even size; `max_heads` if none does."""
    return next((heads for heads in range(max_heads, 0, -1) if embedding_size % (2 * heads) == 0), max_heads)


def inner_size(config: ModelConfig) -> int:
    """Return the inner size of the feed-forward layers."""
    if config.feed_forward_size:
        return config.feed_forward_size
    # With its three matrices, a SwiGLU layer of this size has the parameters of a two-matrix layer of four times the
    # width (Shazeer 2020, arXiv 2002.05202).
    return -(-8 * config.embedding_size // (3 * FEED_FORWARD_MULTIPLE)) * FEED_FORWARD_MULTIPLE


def num_kept_tokens(context_size: int) -> int:
    """Return the number of last tokens that a full context keeps: they are read again from position 0."""
    return context_size // 2


def check_transformer_config(config: ModelConfig) -> None:
    """Raise a ConfigError if a setting has a value that only LSTMs can have, or the heads have no even size."""
    width, heads = config.embedding_size, config.num_heads
    if width % (2 * heads):
        raise ConfigError(
            f"embedding_size={width} cannot be divided into num_heads={heads} heads of an even size; "
            f"use --set embedding_size={max(1, width // (2 * heads)) * 2 * heads} or another number of heads"
        )
    for name, value in TRANSFORMER_VALUES.items():
        if (actual := getattr(config, name)) != value:
            shown, needed = (str(item).lower() if isinstance(item, bool) else item for item in (actual, value))
            raise ConfigError(f"a transformer cannot have {name}={shown}; use --set {name}={needed}")


def transformer_weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in `model.safetensors`; linear layers are `[outputs, inputs]`."""
    width, inner = config.embedding_size, inner_size(config)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary_size, width)}
    for i in range(config.num_layers):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (width,)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{layer}.self_attn.{name}.weight"] = (width, width)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (width,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (inner, width)
        shapes[f"{layer}.mlp.up_proj.weight"] = (inner, width)
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, inner)
    shapes["model.norm.weight"] = (width,)
    return shapes
