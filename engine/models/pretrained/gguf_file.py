"""GGUF files of Llama, Mistral and Qwen2 as bases: read with limits, their tensors dequantized one at a time."""

import math
import mmap
import os
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import MAX_VOCABULARY_SIZE
from engine.errors import InvalidInputError, printable
from engine.models.pretrained.base import Base, UnsupportedModelError
from engine.models.pretrained.base_folder import new_base, read_config
from engine.models.pretrained.gguf_vocabulary import read_vocabulary
from engine.models.transformer_layout import rotary_frequencies
from engine.storage.files import open_regular_file

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2"}  # architectures of llama.cpp; Mistral's files are "llama" too
PERMUTED_ARCHITECTURE = "llama"  # its files store the rows of queries and keys so that rotated units are neighbours
ROPE_FACTORS = "rope_freqs.weight"  # which Llama 3.1 and later divide the rotary frequencies by
LLAMA3_ORIGINAL_CONTEXT = 8192
# Names of tensors, by their names in the file, without their ends such as ".weight".
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
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

# Names in a `config.json`, by those in the file.
SETTINGS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "context_length": "max_position_embeddings",
    "attention.sliding_window": "sliding_window",
}
DEFAULT_ALIGNMENT = 32
MAX_HEADER_BYTES = 64_000_000  # of everything before the tensors; 256,000 tokens with their merges need 12 million
MAX_TENSORS, MAX_KEYS, MAX_TEXT_BYTES = 10_000, 10_000, 4_000_000
_TEXT, _ARRAY = 8, 9  # codes of types in metadata; those of numbers follow
_DTYPES = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


def read_gguf_base(path: Path, name: str) -> Base:
    """Return the model of a GGUF file, or raise an InvalidInputError; its weights are read when needed."""
    file = _GGUFFile(path, name)
    architecture = str(file.metadata.get("general.architecture"))
    config = _read_config(file, architecture)
    tensors = {_our_name(tensor): tensor for tensor in file.tensors if tensor != ROPE_FACTORS}

    def read(ours: str, rows: npt.NDArray[np.intp] | None) -> Float32Array:
        kind = ours.split(".")[-2]
        if architecture == PERMUTED_ARCHITECTURE and kind in ("q_proj", "k_proj"):
            # The first halves of the rotated pairs of each head, and then the second ones.
            num_heads = config.num_heads if kind == "q_proj" else config.num_kv_heads
            rows = np.arange(num_heads * config.head_size).reshape(num_heads, config.head_size // 2, 2)
            rows = rows.swapaxes(1, 2).reshape(-1)
        return file.read(tensors[ours], rows)

    return new_base(
        name,
        FAMILIES[architecture],
        (path,),
        config,
        read_vocabulary(file.metadata, name),
        [id for kind in ("eot", "eom") if isinstance(id := file.metadata.get(f"tokenizer.ggml.{kind}_token_id"), int)],
        {ours: file.tensors[tensor].shape for ours, tensor in tensors.items()},
        read,
        len(file.metadata["tokenizer.ggml.tokens"]),
    )


def _our_name(tensor: str) -> str:
    stem, _, kind = tensor.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    return f"model.layers.{layer[1]}.{LAYER_NAMES[layer[2]]}.{kind}" if layer and layer[2] in LAYER_NAMES else tensor


def _read_config(file: "_GGUFFile", architecture: str) -> ModelConfig:
    if architecture not in FAMILIES:
        raise UnsupportedModelError(f"{file.name} is a model of the kind {printable(architecture[:60])!r}")
    prefix = f"{architecture}."
    stated = {k.removeprefix(prefix): v for k, v in file.metadata.items() if isinstance(v, (int, float, str))}
    settings: dict[str, Any] = {ours: stated[theirs] for theirs, ours in SETTINGS.items() if theirs in stated}
    settings |= {"model_type": architecture, "use_sliding_window": True}
    settings["tie_word_embeddings"] = "output.weight" not in file.tensors
    settings.setdefault("rms_norm_eps", 1e-5)
    if (scaling := stated.get("rope.scaling.type", "none")) != "none":
        factor = stated.get("rope.scaling.factor", 1.0)
        settings["rope_scaling"] = {"rope_type": str(scaling), "factor": factor}
    config = read_config(settings, file.name)
    sizes = {stated.get(key, config.head_size) for key in ("attention.value_length", "rope.dimension_count")}
    if stated.get("expert_count", 0) != 0 or sizes != {config.head_size}:
        raise UnsupportedModelError(f"{file.name} has experts, or rotary positions of another kind")
    # Numbers in single precision get the digits that they were written with.
    shortened: dict[str, Any] = {
        key: float(str(np.float32(getattr(config, key)))) for key in ("norm_eps", "rope_base", "rope_factor")
    }
    config = replace(config, **shortened)
    if ROPE_FACTORS not in file.tensors:
        return config
    factors = file.read(ROPE_FACTORS)
    factor = float(np.clip(factors.max(), 1, 1024))
    scaled = replace(config, rope_scaling="llama3", rope_factor=factor, rope_original_context=LLAMA3_ORIGINAL_CONTEXT)
    if not np.allclose(rotary_frequencies(config), rotary_frequencies(scaled) * factors, rtol=1e-4, atol=0):
        raise UnsupportedModelError(f"{file.name} has rotary positions of another kind ({ROPE_FACTORS})")
    return scaled


class _Tensor(NamedTuple):
    shape: tuple[int, ...]  # as numpy has it: matrices are [outputs, inputs]
    type: Any  # a gguf.GGMLQuantizationType
    row_bytes: int  # of the whole tensor if it is a vector
    start: int
    num_bytes: int


class _GGUFFile:
    # A mapped file, whose metadata and tensor list are read and checked here in a fraction of gguf's time.
    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        try:
            with os.fdopen(open_regular_file(path), "rb") as file:
                if file.read(4) != b"GGUF":
                    raise InvalidInputError(
                        f"{name} is not a GGUF file; give the path of one, or hf:FOLDER for safetensors"
                    )
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InvalidInputError(f"{name} cannot be read: {error.strerror or error}") from error
        self._position = 4
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, _Tensor] = {}
        try:
            self._read_header()
        except (ValueError, struct.error) as error:
            raise InvalidInputError(f"{name} is a damaged GGUF file: it ends too early or has wrong sizes") from error

    def _read_header(self) -> None:
        import gguf

        version, num_tensors, num_keys = (self._numbers(dtype).item() for dtype in ("<u4", "<u8", "<u8"))
        if version not in (2, 3):
            raise InvalidInputError(f"{self.name} is a GGUF file of version {version}; versions 2 and 3 can be read")
        _check(num_tensors <= MAX_TENSORS and num_keys <= MAX_KEYS)
        for _ in range(num_keys):
            (key,) = self._texts(1)
            self.metadata[key] = self._value()
        entries = []
        for _ in range(num_tensors):
            (tensor,), num_dimensions = self._texts(1), self._numbers("<u4").item()
            _check(1 <= num_dimensions <= 4)
            shape = tuple(map(int, reversed(self._numbers("<u8", num_dimensions))))
            _check(all(shape) and math.prod(shape) <= 2**48)
            entries.append((tensor, shape, self._numbers("<u4").item(), self._numbers("<u8").item()))
        alignment = self.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        _check(isinstance(alignment, int) and 0 < alignment <= mmap.PAGESIZE)
        start = end = -(-self._position // alignment) * alignment
        for tensor, shape, type_code, offset in entries:  # one after the other, as llama.cpp demands
            try:
                type_ = gguf.GGMLQuantizationType(type_code)
                block_size, block_bytes = gguf.GGML_QUANT_SIZES[type_]
                gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), type_)
            except (ValueError, KeyError, NotImplementedError) as error:
                reason = f"{printable(tensor)} has the type {type_code}, which the package gguf cannot read"
                raise InvalidInputError(f"{self.name}: {reason}; update gguf, or use Q8_0") from error
            num_blocks, rest = divmod(shape[-1], block_size)
            row_bytes = num_blocks * block_bytes
            num_bytes = math.prod(shape[:-1]) * row_bytes
            _check(not rest and start + offset == end and end + num_bytes <= len(self._content))
            self.tensors[tensor] = _Tensor(shape, type_, row_bytes, end, num_bytes)
            end = -(-(end + num_bytes) // alignment) * alignment
        _check(len(self.metadata) == num_keys and len(self.tensors) == num_tensors)  # no name twice

    def _numbers(self, dtype: str, count: int = 1) -> npt.NDArray[Any]:
        start = self._position
        self._position += count * np.dtype(dtype).itemsize
        _check(self._position <= min(len(self._content), MAX_HEADER_BYTES))
        return np.frombuffer(self._content, dtype, count, start)

    def _texts(self, count: int) -> list[str]:
        # Stored with their lengths in bytes; a vocabulary has hundreds of thousands.
        content, position, limit, texts = self._content, self._position, MAX_HEADER_BYTES, []
        unpack_length = struct.Struct("<Q").unpack_from
        for _ in range(count):
            (length,) = unpack_length(content, position)
            end = position + 8 + length
            _check(length <= MAX_TEXT_BYTES and end <= limit)
            texts.append(content[position + 8 : end].decode())
            position = end
        _check(position <= len(content))
        self._position = position
        return texts

    def _value(self) -> Any:
        code, count = self._numbers("<u4").item(), 1
        if is_array := code == _ARRAY:
            code, count = self._numbers("<u4").item(), self._numbers("<u8").item()
        _check(count <= MAX_VOCABULARY_SIZE and (code == _TEXT or code in _DTYPES))
        if code == _TEXT:
            texts = self._texts(count)
            return texts if is_array else texts[0]
        numbers = self._numbers(_DTYPES[code], count)
        return numbers if is_array else numbers.item()

    def read(self, name: str, rows: npt.NDArray[np.intp] | None = None) -> Float32Array:
        # All of a tensor, or the given rows (of a vector, its elements) in order.
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        data = np.frombuffer(self._content, np.uint8, tensor.num_bytes, tensor.start)
        data = data.reshape(*tensor.shape[:-1], tensor.row_bytes)
        if rows is not None and data.ndim > 1:
            data, rows = data[rows], None
        values: Float32Array = dequantize(data, tensor.type)
        return values if rows is None else values[rows]


def _check(is_valid: bool) -> None:
    if not is_valid:
        raise ValueError("damaged")
