"""GGUF files of Llama, Mistral and Qwen2: read as bases, and their vocabularies, which are written too."""

import json
import math
import mmap
import os
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import MAX_TOKEN_CHARACTERS
from engine.errors import InvalidInputError, RunError
from engine.models.pretrained.base import (
    Base,
    UnsupportedModelError,
    check_family,
    make_base,
    read_config,
    read_tokenizer,
)
from engine.models.pretrained.tokenizer import SPACE_MARK
from engine.models.weights import rotary_frequencies
from engine.storage.files import open_regular_file
from engine.storage.tensor_file import row_blocks

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2"}  # architectures of llama.cpp; Mistral's files are "llama" too
PERMUTED_ARCHITECTURE = "llama"  # its files store the rows of queries and keys so that rotated units are neighbours
ROPE_FACTORS = "rope_freqs.weight"  # which Llama 3.1 and later divide the rotary frequencies by
LLAMA3_ORIGINAL_CONTEXT = 8192
# Parts of the names of tensors, by those in the file.
TENSOR_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
# Names in a `config.json`, by those in the file.
SETTINGS = {
    "embedding_length": "hidden_size", "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "feed_forward_length": "intermediate_size",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps", "rope.freq_base": "rope_theta",
    "context_length": "max_position_embeddings", "attention.sliding_window": "sliding_window",
}  # fmt: skip
MAX_HEADER_BYTES = 64_000_000  # of everything before the tensors; 256,000 tokens with their merges need 12 million
_FLOAT32, _TEXT, _ARRAY = 6, 8, 9  # codes of types in metadata; numbers follow
_DTYPES = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip

_PREFIX = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5  # types of tokens
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# Around the number of digits in a part, in which Llama 3 and Qwen 2 differ.
_PARTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_SPLITS = [
    {"type": "Split", "pattern": {"Regex": digits.join(_PARTS)}, "behavior": "Isolated", "invert": False}
    for digits in ("{1,3}", "")
]
# Ways to cut texts before byte pairs are merged, by the names of llama.cpp.
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTE_LEVEL],
    "default": [_BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    "llama-bpe": [_SPLITS[0], {**_BYTE_LEVEL, "use_regex": False}],
    "qwen2": [_SPLITS[1], {**_BYTE_LEVEL, "use_regex": False}],
}
WHOLE_WORD_PRE_TOKENIZER = "llama-bpe"  # its tokens are also found without a path of merges to them
# The known ways cut it differently; our vocabularies have no numbers of over three digits.
_SAMPLE_TEXT = (
    "I'll see. He'LL (in 12 or 345 days)...\n\n  It's caf\u00e9 time!\r\n\u65e5\u672c x\u00b2\u00bd\t~~\U0001f600 "
)


def read_gguf_base(path: Path, name: str) -> Base:
    """Return the model of a GGUF file, or raise an error of any type; its weights are read when needed."""
    file = _GGUFFile(path)
    metadata, architecture = file.metadata, str(file.metadata.get("general.architecture"))
    config = _read_config(file, architecture)
    readers = {}
    for tensor in file.tensors:
        stem, _, kind = tensor.rpartition(".")
        layer, _, short = stem.rpartition(".")
        parts = [layer.replace("blk", "model.layers"), TENSOR_NAMES.get(short, ""), kind]
        ours = ".".join(filter(None, parts)) if short in TENSOR_NAMES else tensor
        order = None
        if architecture == PERMUTED_ARCHITECTURE and short in ("attn_q", "attn_k"):
            # The first halves of the rotated pairs of each head, and then the second ones.
            num_heads = config.num_heads if short == "attn_q" else config.num_kv_heads
            order = np.arange(num_heads * config.head_size).reshape(num_heads, -1, 2).swapaxes(1, 2).reshape(-1)
        readers[ours] = partial(file.read, tensor, order)
    readers.pop(ROPE_FACTORS, None)
    end_ids = [metadata[key] for kind in ("eot", "eom") if (key := f"{_PREFIX}{kind}_token_id") in metadata]
    tokenizer, chat = read_tokenizer(*read_vocabulary(metadata), end_ids, len(metadata[_PREFIX + "tokens"]))
    origin = FAMILIES[architecture], [path], config, readers
    return make_base(name, *origin, tokenizer, chat, [file.release_pages])


def _read_config(file: "_GGUFFile", architecture: str) -> ModelConfig:
    check_family(architecture, FAMILIES)
    prefix = f"{architecture}."
    stated = {key.removeprefix(prefix): value for key, value in file.metadata.items() if not isinstance(value, list)}
    settings: dict[str, Any] = {"rms_norm_eps": 1e-5, "model_type": architecture, "use_sliding_window": True}
    settings |= {ours: stated[theirs] for theirs, ours in SETTINGS.items() if theirs in stated}
    settings["tie_word_embeddings"] = "output.weight" not in file.tensors
    if (scaling := stated.get("rope.scaling.type", "none")) != "none":
        settings["rope_scaling"] = {"rope_type": scaling, "factor": stated.get("rope.scaling.factor", 1.0)}
    config = read_config(settings)
    sizes = {stated.get(key, config.head_size) for key in ("attention.value_length", "rope.dimension_count")}
    if stated.get("expert_count", 0) != 0 or sizes != {config.head_size}:
        raise UnsupportedModelError("it has experts, or rotary positions of another kind")
    if ROPE_FACTORS not in file.tensors:
        return config
    factors = file.read(ROPE_FACTORS)
    factor = float(np.clip(factors.max(), 1, 1024))
    scaled = replace(config, rope_scaling="llama3", rope_factor=factor, rope_original_context=LLAMA3_ORIGINAL_CONTEXT)
    if not np.allclose(rotary_frequencies(config), rotary_frequencies(scaled) * factors, rtol=1e-4, atol=0):
        raise UnsupportedModelError(f"it has rotary positions of another kind ({ROPE_FACTORS})")
    return scaled


class _GGUFFile:
    # A mapped file, whose metadata and tensor list are read here in a fifth of the time of `gguf.GGUFReader`.
    def __init__(self, path: Path) -> None:
        import gguf

        with os.fdopen(open_regular_file(path), "rb") as file:
            if file.read(4) != b"GGUF":
                raise InvalidInputError("it is not a GGUF file; give the path of one, or hf:FOLDER for safetensors")
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._position = 4
        version, num_tensors, num_keys = (self._numbers(dtype).item() for dtype in ("<u4", "<u8", "<u8"))
        if version not in (2, 3):
            raise InvalidInputError(f"it is a GGUF file of version {version}; versions 2 and 3 can be read")
        self.metadata = {self._texts(1)[0]: self._value() for _ in range(num_keys)}
        entries = []
        for _ in range(num_tensors):
            (tensor,), num_dimensions = self._texts(1), self._numbers("<u4").item()
            shape = self._numbers("<u8", num_dimensions)[::-1].tolist()  # of matrices: [outputs, inputs]
            entries.append((tensor, shape, self._numbers("<u4").item(), self._numbers("<u8").item()))
        alignment = self.metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        start = -(-self._position // alignment) * alignment
        # Type of quantization and bytes of each tensor; the last axis of the bytes is a row of numbers.
        self.tensors: dict[str, tuple[Any, npt.NDArray[np.uint8]]] = {}
        for tensor, shape, type_code, offset in entries:
            type_ = gguf.GGMLQuantizationType(type_code)
            rows = gguf.quant_shape_to_byte_shape(shape, type_)
            data = np.frombuffer(self._content, np.uint8, math.prod(rows), start + offset)
            self.tensors[tensor] = type_, data.reshape(rows)

    def _numbers(self, dtype: str, count: int = 1) -> npt.NDArray[Any]:
        start = self._position
        self._position += count * np.dtype(dtype).itemsize
        if self._position > min(MAX_HEADER_BYTES, len(self._content)):
            raise RunError("its header is too long, or cut off")
        return np.frombuffer(self._content, dtype, count, start)

    def _texts(self, count: int) -> list[str]:
        # Stored with their lengths in bytes; a vocabulary has hundreds of thousands.
        content, position, texts = self._content, self._position, []
        unpack_length = struct.Struct("<Q").unpack_from
        for _ in range(count):
            (length,) = unpack_length(content, position)
            end = position + 8 + length
            if end > min(MAX_HEADER_BYTES, len(content)):
                raise RunError("a text in its header is too long, or cut off")
            texts.append(content[position + 8 : end].decode())
            position = end
        self._position = position
        return texts

    def _value(self) -> Any:
        code, count = self._numbers("<u4").item(), 1
        if is_array := code == _ARRAY:
            code, count = self._numbers("<u4").item(), self._numbers("<u8").item()
        if code == _FLOAT32 and not is_array:  # with the digits that it was written with
            return float(str(self._numbers("<f4")[0]))
        values = self._texts(count) if code == _TEXT else self._numbers(_DTYPES[code], count).tolist()
        return values if is_array else values[0]

    def read(
        self, name: str, order: npt.NDArray[np.intp] | None = None, rows: npt.NDArray[np.intp] | None = None
    ) -> Float32Array:
        # All of a tensor, or the given rows (of a vector, its elements) in order.
        import gguf
        from gguf.quants import dequantize

        type_, data = self.tensors[name]
        rows = order if rows is None else rows
        if data.ndim < 2:
            values: Float32Array = dequantize(data, type_)
            return values if rows is None else values[rows]
        rows = np.arange(len(data)) if rows is None else rows
        values = np.empty((len(rows), *gguf.quant_shape_from_byte_shape(data.shape, type_)[1:]), np.float32)
        for block in row_blocks(values.shape):
            values[block] = dequantize(data[rows[block]], type_)
        return values

    def release_pages(self) -> None:
        with suppress(OSError, AttributeError):  # not all systems can
            self._content.madvise(mmap.MADV_DONTNEED)


def read_vocabulary(metadata: Mapping[str, Any]) -> tuple[str, dict[str, str | None], int | None, str | None]:
    """Return the first arguments of `read_tokenizer` from the metadata of a GGUF file, or raise any error."""
    tokens = metadata[_PREFIX + "tokens"]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    types = metadata.get(_PREFIX + "token_type", [_NORMAL] * len(tokens))
    if not len(vocabulary) == len(tokens) == len(types) or max(map(len, tokens)) > MAX_TOKEN_CHARACTERS:
        raise RunError("a token is listed twice, is too long or has no type")
    ids = {special: metadata.get(f"{_PREFIX}{special}_token_id") for special in ("bos", "eos")}
    if unknown_ids := [id for id in ids.values() if id is not None and not 0 <= id < len(tokens)]:
        raise RunError(f"a text starts or ends with the token {unknown_ids[0]}, which does not exist")
    kind, pre_tokenizer = metadata.get(_PREFIX + "model"), metadata.get(_PREFIX + "pre", "default")
    if kind == "llama":
        unknown, adds_space = tokens[metadata.get(_PREFIX + "unknown_token_id", 0)], _PREFIX + "add_space_prefix"
        content = _sentencepiece(vocabulary, metadata[_PREFIX + "scores"], types, unknown)
        if metadata.get(adds_space) is not False:
            content["normalizer"]["normalizers"].insert(0, {"type": "Prepend", "prepend": SPACE_MARK})
            content["decoder"]["decoders"].append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    elif kind != "gpt2":
        raise UnsupportedModelError(f"it has a tokenizer of the kind {str(kind)[:60]!r}")
    elif pre_tokenizer not in PRE_TOKENIZERS:
        raise UnsupportedModelError(f"it cuts texts in a way of its own ({str(pre_tokenizer)[:60]!r})")
    else:
        merges = [merge.split(" ", 1) for merge in metadata[_PREFIX + "merges"]]
        content = _byte_pairs(vocabulary, merges, pre_tokenizer)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [
        {"id": id, "content": token, **flags, "special": type_ != _USER_DEFINED}
        for (token, id), type_ in zip(vocabulary.items(), types, strict=True)
        if type_ in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    adds_bos = metadata.get(_PREFIX + "add_bos_token", kind == "llama" or pre_tokenizer == WHOLE_WORD_PRE_TOKENIZER)
    texts = {f"{special}_token": None if id is None else tokens[id] for special, id in ids.items()}
    template = metadata.get("tokenizer.chat_template")
    return json.dumps(content, ensure_ascii=False), texts, ids["bos"] if adds_bos else None, template


def _byte_pairs(vocabulary: Mapping[str, int], merges: list[list[str]], pre_tokenizer: str) -> dict[str, Any]:
    ignore_merges = pre_tokenizer == WHOLE_WORD_PRE_TOKENIZER
    return {
        "version": "1.0",
        "normalizer": {"type": "NFC"} if pre_tokenizer == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre_tokenizer]},
        "decoder": _BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "ignore_merges": ignore_merges},
    }


def _sentencepiece(
    vocabulary: Mapping[str, int], scores: Sequence[float], types: Sequence[int], unknown: str
) -> dict[str, Any]:
    # As Llama 2 has it: pairs with the best score are merged first.
    merges = []
    for token, id in vocabulary.items():
        if types[id] == _NORMAL:
            pairs = ((token[:end], token[end:]) for end in range(1, len(token)))
            merges += [(scores[id], *pair) for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    merges.sort(key=lambda merge: (-merge[0], -len(merge[1]), -len(merge[2])))
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    space = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [pair for _, *pair in merges], "unk_token": unknown}
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [mark]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {**model, "fuse_unk": True, "byte_fallback": True},
    }


def vocabulary_metadata(
    tokenizer_json: str, num_tokens: int, special_ids: Collection[int], name: str
) -> dict[str, Any]:
    """Return the metadata for llama.cpp but bos and eos, or raise an UnsupportedModelError.

    Tokens from `num_tokens` on are left out, and tokens that `tokenizer.json` lacks are called `[PAD…]`.
    """
    content, backend = json.loads(tokenizer_json), tokenizers.Tokenizer.from_str(tokenizer_json)
    model, pieces = content["model"], backend.pre_tokenizer and backend.pre_tokenizer.pre_tokenize_str(_SAMPLE_TEXT)
    for known in PRE_TOKENIZERS:
        other = tokenizers.Tokenizer.from_str(json.dumps({**_byte_pairs({}, [], known), "added_tokens": []}))
        if other.pre_tokenizer.pre_tokenize_str(_SAMPLE_TEXT) == pieces and model["type"] == "BPE":
            break
    else:
        raise UnsupportedModelError(f"{name} has a tokenizer for which llama.cpp has no name")
    tokens, types = [f"[PAD{id}]" for id in range(num_tokens)], np.full(num_tokens, _UNUSED, np.int32)
    for token, id in model["vocab"].items():
        if id < num_tokens:
            tokens[id], types[id] = token, _NORMAL
    for token in content["added_tokens"]:
        tokens[token["id"]], types[token["id"]] = token["content"], _USER_DEFINED
    types[list(special_ids)] = _CONTROL
    metadata = {
        _PREFIX + "tokens": tokens,
        _PREFIX + "token_type": types.tolist(),
        _PREFIX + "model": "gpt2",
        _PREFIX + "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        _PREFIX + "pre": known,
    }
    read = tokenizers.Tokenizer.from_str(read_vocabulary(metadata)[0])
    if read.encode(_SAMPLE_TEXT).ids != backend.encode(_SAMPLE_TEXT, add_special_tokens=False).ids:
        raise UnsupportedModelError(f"{name} reads texts in a way that llama.cpp does not have")
    return metadata
