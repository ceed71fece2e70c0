"""GGUF files of Llama, Mistral and Qwen2 as bases: their settings, and the names and the order of their weights."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.errors import InvalidInputError, printable
from engine.models.pretrained.base import (
    VOCABULARY_TENSORS,
    Base,
    LazyTensors,
    UnsupportedModelError,
    check_shapes,
    new_config,
    vocabulary_rows,
)
from engine.models.pretrained.gguf_tensors import GGUFFile
from engine.models.pretrained.gguf_vocabulary import read_vocabulary
from engine.models.transformer_layout import rotary_frequencies

Value = TypeVar("Value", int, float, str)

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2"}
"""Architectures of llama.cpp that are read, with their names; Mistral's files are "llama" too."""
PERMUTED_ARCHITECTURE = "llama"
"""Architecture whose files store the rows of queries and keys in another order, in which rotated units are neighbours.
"""
ROPE_FACTORS = "rope_freqs.weight"
"""Tensor of the numbers that Llama 3.1 and later divide the rotary frequencies by."""
LLAMA3_ORIGINAL_CONTEXT = 8192
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
"""Names of tensors outside of the layers, by their names in the file, without their ends such as ".weight"."""
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names of tensors of a layer, by their names in the file."""


def read_gguf_base(path: Path, name: str) -> Base:
    """Return the model of a GGUF file; its weights are read when they are needed.

    Raises:
        UnsupportedModelError: If only transformers can load the model.
        InvalidInputError: If the file is damaged.
    """
    file = GGUFFile(path, name)
    config = _read_config(file)
    tokenizer_files = read_vocabulary(file.metadata, name)
    num_tokens = len(file.metadata["tokenizer.ggml.tokens"])
    tensors = {_our_name(tensor): tensor for tensor in file.shapes if tensor != ROPE_FACTORS}
    check_shapes(name, {ours: file.shapes[tensor] for ours, tensor in tensors.items()}, config, num_tokens)
    tokenizer = tokenizer_files.make_tokenizer(name, _end_ids(file.metadata), num_tokens)
    family = FAMILIES[file.metadata["general.architecture"]]
    order = _row_orders(config) if file.metadata["general.architecture"] == PERMUTED_ARCHITECTURE else {}
    order |= dict.fromkeys(VOCABULARY_TENSORS, vocabulary_rows(tokenizer))
    readers = {
        ours: partial(file.read, tensor, order.get(ours if ours in order else ours.split(".")[-2]))
        for ours, tensor in tensors.items()
    }
    chat = tokenizer_files.make_chat_template(tokenizer)
    return Base(name, family, (path,), config, tokenizer, LazyTensors(readers), chat)


def _our_name(tensor: str) -> str:
    """Return the name of a tensor in our layout; an unknown name is returned as it is."""
    stem, _, kind = tensor.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    match stem.split("."):
        case ["blk", index, part] if part in LAYER_NAMES and index.isdecimal():
            return f"model.layers.{index}.{LAYER_NAMES[part]}.{kind}"
    return tensor


def _read_config(file: GGUFFile) -> ModelConfig:
    architecture, name = file.metadata.get("general.architecture"), file.name
    if not isinstance(architecture, str):
        raise InvalidInputError(f"{name} is a GGUF file without an architecture, so it is no language model")
    if architecture not in FAMILIES:
        raise UnsupportedModelError(f"{name} is a model of the kind {printable(architecture[:60])!r}")

    def setting(key: str, default: Value | None = None) -> Value:
        value = file.metadata.get(f"{architecture}.{key}", default)
        kinds = (int, float) if isinstance(default, float) else type(default) if default is not None else int
        is_usable = isinstance(value, kinds) and (isinstance(value, str) or value > 0 or value == default)
        if isinstance(value, bool) or not is_usable:
            raise InvalidInputError(f"{name} has no usable {key}: {printable(str(value)[:60])}; fetch the model again")
        return value  # type: ignore[return-value]

    heads, width = setting("attention.head_count"), setting("embedding_length")
    size = setting("attention.key_length", width // heads)
    context_size = setting("context_length")
    scaling = setting("rope.scaling.type", "none")
    is_plain = (
        setting("expert_count", 0) == 0
        and setting("attention.value_length", size) == size
        and setting("rope.dimension_count", size) == size
        and scaling in ("none", "linear")
    )
    if not is_plain:
        raise UnsupportedModelError(f"{name} has experts, or rotary positions of another kind ({scaling})")
    settings = {
        "embedding_size": width,
        "num_layers": setting("block_count"),
        "num_heads": heads,
        "num_kv_heads": setting("attention.head_count_kv", heads),
        "head_size": size,
        "feed_forward_size": setting("feed_forward_length"),
        "norm_eps": _short(setting("attention.layer_norm_rms_epsilon", 1e-5)),
        "rope_base": _short(setting("rope.freq_base", 10_000.0)),
        "rope_scaling": scaling,
        "rope_factor": _short(setting("rope.scaling.factor", 1.0)),
        "qkv_bias": "blk.0.attn_q.bias" in file.shapes,
        "tie_weights": "output.weight" not in file.shapes,
    }
    # Up to the size of a sliding window, attention to the window is attention to all tokens.
    config = new_config(name, min(context_size, setting("attention.sliding_window", context_size)), settings)
    return _with_rope_factors(file, config) if ROPE_FACTORS in file.shapes else config


def _short(number: float) -> float:
    """Return a number that was stored in single precision with the digits that it was written with."""
    return float(str(np.float32(number)))


def _with_rope_factors(file: GGUFFile, config: ModelConfig) -> ModelConfig:
    """Return a configuration whose rotary frequencies are stored in the file, which are scaled as in Llama 3."""
    factors = file.read(ROPE_FACTORS)
    scaled = replace(
        config,
        rope_scaling="llama3",
        rope_factor=float(np.clip(factors.max(), 1, 1024)),
        rope_original_context=LLAMA3_ORIGINAL_CONTEXT,
    )
    if not np.allclose(rotary_frequencies(config), rotary_frequencies(scaled) * factors, rtol=1e-4, atol=0):
        raise UnsupportedModelError(f"{file.name} has rotary positions of another kind ({ROPE_FACTORS})")
    return scaled


def _end_ids(metadata: Mapping[str, Any]) -> list[int]:
    ids = (metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eot", "eom"))
    return [id for id in ids if isinstance(id, int)]


def _row_orders(config: ModelConfig) -> dict[str, npt.NDArray[np.intp]]:
    """Return the rows of the file in our order: the first halves of the rotated pairs of each head, then the second."""

    def order(num_heads: int) -> npt.NDArray[np.intp]:
        rows = np.arange(num_heads * config.head_size).reshape(num_heads, config.head_size // 2, 2)
        return rows.swapaxes(1, 2).reshape(-1)

    return {"q_proj": order(config.num_heads), "k_proj": order(config.num_kv_heads)}
