"""GGUF files of Llama, Mistral and Qwen2 as bases: read with limits, their tensors dequantized one at a time.

Their tokenizers become Hugging Face's `tokenizer.json`, and are made from it.
"""

import json
import math
import mmap
import os
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import MAX_TOKEN_CHARACTERS, MAX_VOCABULARY_SIZE
from engine.errors import InvalidInputError, printable
from engine.models.pretrained.base import Base, UnsupportedModelError
from engine.models.pretrained.folder import new_base, read_config
from engine.models.pretrained.tokenizer import SPACE_MARK, TokenizerFiles
from engine.models.transformer_layout import rotary_frequencies
from engine.storage.files import open_regular_file

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
MAX_TENSORS, MAX_KEYS, MAX_TEXT_BYTES = 10_000, 10_000, 4_000_000
_TEXT, _ARRAY = 8, 9  # codes of types in metadata; those of numbers follow
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
_LLAMA3, _QWEN2 = (
    [
        {"type": "Split", "pattern": {"Regex": digits.join(_PARTS)}, "behavior": "Isolated", "invert": False},
        {**_BYTE_LEVEL, "use_regex": False},
    ]
    for digits in ("{1,3}", "")
)
# Ways to cut texts before byte pairs are merged, by the names of llama.cpp.
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTE_LEVEL],
    "default": [_BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    "llama-bpe": _LLAMA3,
    "qwen2": _QWEN2,
}
WHOLE_WORD_PRE_TOKENIZER = "llama-bpe"  # its tokens are also found without a path of merges to them
# The known ways cut it differently; numbers of over three digits are no token of ours.
_SAMPLE_TEXT = (
    "I'll see. He'LL (in 12 or 345 days)...\n\n  It's caf\u00e9 time!\r\n\u65e5\u672c x\u00b2\u00bd\t~~\U0001f600 "
)


def read_gguf_base(path: Path, name: str) -> Base:
    """Return the model of a GGUF file, or raise an InvalidInputError; its weights are read when needed."""
    file = _GGUFFile(path, name)
    architecture = str(file.metadata.get("general.architecture"))
    config = _read_config(file, architecture)
    tensors = {}
    for tensor in file.tensors:
        stem, _, kind = tensor.rpartition(".")
        layer, _, short = stem.rpartition(".")
        name_parts = [layer.replace("blk", "model.layers"), TENSOR_NAMES.get(short, ""), kind]
        tensors[".".join(filter(None, name_parts)) if short in TENSOR_NAMES else tensor] = tensor
    tensors.pop(ROPE_FACTORS, None)

    def read(ours: str, rows: npt.NDArray[np.intp] | None) -> Float32Array:
        kind = ours.split(".")[-2]
        if architecture == PERMUTED_ARCHITECTURE and kind in ("q_proj", "k_proj"):
            # The first halves of the rotated pairs of each head, and then the second ones.
            num_heads = config.num_heads if kind == "q_proj" else config.num_kv_heads
            rows = np.arange(num_heads * config.head_size).reshape(num_heads, config.head_size // 2, 2)
            rows = rows.swapaxes(1, 2).reshape(-1)
        return file.read(tensors[ours], rows)

    ends = [file.metadata.get(f"{_PREFIX}{kind}_token_id") for kind in ("eot", "eom")]
    return new_base(
        name,
        FAMILIES[architecture],
        (path,),
        config,
        read_vocabulary(file.metadata, name),
        [id for id in ends if isinstance(id, int)],
        {ours: file.tensors[tensor].shape for ours, tensor in tensors.items()},
        read,
        len(file.metadata[f"{_PREFIX}tokens"]),
    )


def _read_config(file: "_GGUFFile", architecture: str) -> ModelConfig:
    if architecture not in FAMILIES:
        raise UnsupportedModelError(f"{file.name} is a model of the kind {printable(architecture[:60])!r}")
    prefix = f"{architecture}."
    stated = {k.removeprefix(prefix): v for k, v in file.metadata.items() if isinstance(v, (int, float, str))}
    settings: dict[str, Any] = {"rms_norm_eps": 1e-5, "model_type": architecture, "use_sliding_window": True}
    settings |= {ours: stated[theirs] for theirs, ours in SETTINGS.items() if theirs in stated}
    settings["tie_word_embeddings"] = "output.weight" not in file.tensors
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
    data: npt.NDArray[np.uint8]  # mapped, `[..., bytes of a row]`


class _GGUFFile:
    # A mapped file, whose metadata and tensor list are read and checked here in a fifth of the time of `GGUFReader`.
    def __init__(self, path: Path, name: str) -> None:
        self.name, self._position = name, 4
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, _Tensor] = {}
        try:
            with os.fdopen(open_regular_file(path), "rb") as file:
                if file.read(4) != b"GGUF":
                    hint = "give the path of one, or hf:FOLDER for safetensors"
                    raise InvalidInputError(f"{name} is not a GGUF file; {hint}")
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._read_header()
        except OSError as error:
            raise InvalidInputError(f"{name} cannot be read: {error.strerror or error}") from error
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
        alignment = self.metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
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
            rows = (*shape[:-1], num_blocks * block_bytes)
            _check(not rest and start + offset == end and end + math.prod(rows) <= len(self._content))
            data = np.frombuffer(self._content, np.uint8, math.prod(rows), end).reshape(rows)
            self.tensors[tensor] = _Tensor(shape, type_, data)
            end = -(-(end + data.size) // alignment) * alignment
        _check(len(self.metadata) == num_keys and len(self.tensors) == num_tensors)  # no name twice

    def _numbers(self, dtype: str, count: int = 1) -> npt.NDArray[Any]:
        start = self._position
        self._position += count * np.dtype(dtype).itemsize
        _check(self._position <= min(len(self._content), MAX_HEADER_BYTES))
        return np.frombuffer(self._content, dtype, count, start)

    def _texts(self, count: int) -> list[str]:
        # Stored with their lengths in bytes; a vocabulary has hundreds of thousands.
        content, position, texts = self._content, self._position, []
        unpack_length = struct.Struct("<Q").unpack_from
        for _ in range(count):
            (length,) = unpack_length(content, position)
            end = position + 8 + length
            _check(length <= MAX_TEXT_BYTES and end <= MAX_HEADER_BYTES)
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

        _, type_, data = self.tensors[name]
        if rows is not None and data.ndim > 1:
            data, rows = data[rows], None
        values: Float32Array = dequantize(data, type_)
        return values if rows is None else values[rows]


def _check(is_valid: bool) -> None:
    if not is_valid:
        raise ValueError("damaged")


def read_vocabulary(metadata: Mapping[str, Any], name: str) -> TokenizerFiles:
    """Return the tokenizer of a GGUF file, or raise an InvalidInputError."""
    tokens = metadata.get(_PREFIX + "tokens")
    if not isinstance(tokens, list) or not tokens:
        raise InvalidInputError(f"{name} has no tokens, so it is no language model; use another file")
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or max(map(len, tokens)) > MAX_TOKEN_CHARACTERS:
        raise InvalidInputError(f"{name} has a damaged vocabulary: a token is listed twice, or too long")
    columns = {}  # one number per token, all 1 if the file has none, as normal tokens have as their type
    for key in ("token_type", "scores"):
        numbers = metadata.get(_PREFIX + key, np.ones(len(tokens), np.int32))
        if not isinstance(numbers, np.ndarray) or len(numbers) != len(tokens) or not np.isfinite(numbers).all():
            raise InvalidInputError(f"{name} has a damaged vocabulary: its {key} does not have {len(tokens):,} numbers")
        columns[key] = numbers.tolist()
    ids = {special: metadata.get(f"{_PREFIX}{special}_token_id") for special in ("bos", "eos", "unknown")}
    for special, id in ids.items():
        if id is not None and (not isinstance(id, int) or not 0 <= id < len(tokens)):
            raise InvalidInputError(f"{name} has a damaged vocabulary: its {special} token is {str(id)[:60]}")
    kind, pre_tokenizer = metadata.get(_PREFIX + "model"), str(metadata.get(_PREFIX + "pre", "default"))
    if kind == "gpt2":
        if pre_tokenizer not in PRE_TOKENIZERS:
            raise UnsupportedModelError(f"{name} cuts texts in a way of its own ({pre_tokenizer[:60]!r})")
        merges = metadata.get(_PREFIX + "merges")
        if not isinstance(merges, list) or not all(isinstance(merge, str) and " " in merge for merge in merges):
            raise InvalidInputError(f"{name} has a damaged vocabulary: its merges are missing, or no pairs")
        content = _byte_pairs(vocabulary, [merge.split(" ", 1) for merge in merges], pre_tokenizer)
    elif kind == "llama":
        content = _sentencepiece(vocabulary, columns["scores"], columns["token_type"], tokens[ids["unknown"] or 0])
        if metadata.get(_PREFIX + "add_space_prefix") is not False:
            content["normalizer"]["normalizers"].insert(0, {"type": "Prepend", "prepend": SPACE_MARK})
            content["decoder"]["decoders"].append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    else:
        raise UnsupportedModelError(f"{name} has a tokenizer of the kind {str(kind)[:60]!r}")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [
        {"id": id, "content": tokens[id], **flags, "special": type_ != _USER_DEFINED}
        for id, type_ in enumerate(columns["token_type"])
        if type_ in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    adds_bos = metadata.get(_PREFIX + "add_bos_token", kind == "llama" or pre_tokenizer == WHOLE_WORD_PRE_TOKENIZER)
    template = metadata.get("tokenizer.chat_template")
    texts = {f"{special}_token": None if (id := ids[special]) is None else tokens[id] for special in ("bos", "eos")}
    first_id, template = ids["bos"] if adds_bos is True else None, template if isinstance(template, str) else None
    return TokenizerFiles(json.dumps(content, ensure_ascii=False), texts, first_id, template)


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
    """Return the metadata for llama.cpp and `read_vocabulary`, or raise an UnsupportedModelError; without bos and eos.

    Tokens from `num_tokens` on are left out, and those that `tokenizer.json` lacks are called `[PAD…]`.
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
        _PREFIX + "token_type": types,
        _PREFIX + "model": "gpt2",
        _PREFIX + "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        _PREFIX + "pre": known,
    }
    read = tokenizers.Tokenizer.from_str(read_vocabulary(metadata, name).backend_json)
    if read.encode(_SAMPLE_TEXT).ids != backend.encode(_SAMPLE_TEXT, add_special_tokens=False).ids:
        raise UnsupportedModelError(f"{name} reads texts in a way that llama.cpp does not have")
    return metadata
