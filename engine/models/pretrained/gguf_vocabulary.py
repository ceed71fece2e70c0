"""Tokenizers in the metadata of GGUF files: they become Hugging Face's `tokenizer.json`, and are made from it."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.tokenizers.base import MAX_TOKEN_CHARACTERS
from engine.errors import InvalidInputError
from engine.models.pretrained.base import UnsupportedModelError
from engine.models.pretrained.chat import JinjaTemplate
from engine.models.pretrained.special_tokens import TokenizerFiles
from engine.models.pretrained.tokenizer import SPACE_MARK

_PREFIX = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5  # types of tokens
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _pattern(digits: str) -> list[dict[str, Any]]:
    # Llama 3 and Qwen 2 differ in the number of digits in a part
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return [split, {**_BYTE_LEVEL, "use_regex": False}]


# Ways to cut texts before byte pairs are merged, by the names of llama.cpp.
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTE_LEVEL],
    "default": [_BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    "llama-bpe": _pattern("{1,3}"),
    "qwen2": _pattern(""),
}
WHOLE_WORD_PRE_TOKENIZER = "llama-bpe"  # its tokens are also found without a path of merges to them
# The known ways cut it differently; numbers of over three digits are no token of ours.
_SAMPLE_TEXT = (
    "I'll see. He'LL (in 12 or 345 days)...\n\n  It's caf\u00e9 time!\r\n\u65e5\u672c x\u00b2\u00bd\t~~\U0001f600 "
)


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
        numbers = columns[key] = metadata.get(_PREFIX + key, np.ones(len(tokens), np.int32))
        if not isinstance(numbers, np.ndarray) or len(numbers) != len(tokens) or not np.isfinite(numbers).all():
            raise InvalidInputError(f"{name} has a damaged vocabulary: its {key} does not have {len(tokens):,} numbers")
    types = columns["token_type"].tolist()
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
        unknown, adds_space = tokens[ids["unknown"] or 0], metadata.get(_PREFIX + "add_space_prefix") is not False
        content = _sentencepiece(vocabulary, columns["scores"].tolist(), types, unknown, adds_space)
    else:
        raise UnsupportedModelError(f"{name} has a tokenizer of the kind {str(kind)[:60]!r}")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [
        {"id": id, "content": tokens[id], **flags, "special": types[id] != _USER_DEFINED}
        for id in np.flatnonzero(np.isin(types, (_UNKNOWN, _CONTROL, _USER_DEFINED))).tolist()
    ]
    adds_bos = metadata.get(_PREFIX + "add_bos_token", kind == "llama" or pre_tokenizer == WHOLE_WORD_PRE_TOKENIZER)
    template = metadata.get("tokenizer.chat_template")
    texts = {f"{special}_token": None if (id := ids[special]) is None else tokens[id] for special in ("bos", "eos")}
    return TokenizerFiles(
        json.dumps(content, ensure_ascii=False),
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        first_id=ids["bos"] if adds_bos is True else None,
        template=JinjaTemplate(template, texts) if isinstance(template, str) else None,
    )


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
    vocabulary: Mapping[str, int], scores: Sequence[float], types: Sequence[int], unknown: str, adds_space: bool
) -> dict[str, Any]:
    # As Llama 2 has it: pairs with the best score are merged first.
    merges = []
    for token, id in vocabulary.items():
        if types[id] == _NORMAL:
            pairs = ((token[:end], token[end:]) for end in range(1, len(token)))
            merges += [(scores[id], *pair) for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    merges.sort(key=lambda merge: (-merge[0], -len(merge[1]), -len(merge[2])))
    normalizers = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}]
    decoders = [
        {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if adds_space:
        normalizers.insert(0, {"type": "Prepend", "prepend": SPACE_MARK})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [pair for _, *pair in merges],
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }


def vocabulary_metadata(
    tokenizer_json: str, num_tokens: int, special_ids: Collection[int], name: str
) -> dict[str, Any]:
    """Return the metadata for llama.cpp and `read_vocabulary`, or raise an UnsupportedModelError; without bos and eos.

    Tokens from `num_tokens` on are left out, and those that `tokenizer.json` lacks are called `[PAD…]`.
    """
    content = json.loads(tokenizer_json)
    model, backend = content["model"], HuggingFaceTokenizer.from_str(tokenizer_json)
    pre_tokenizer = _find_pre_tokenizer(backend)
    if model["type"] != "BPE" or pre_tokenizer is None:
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
        _PREFIX + "pre": pre_tokenizer,
    }
    read = HuggingFaceTokenizer.from_str(read_vocabulary(metadata, name).backend_json)
    if read.encode(_SAMPLE_TEXT).ids != backend.encode(_SAMPLE_TEXT, add_special_tokens=False).ids:
        raise UnsupportedModelError(f"{name} reads texts in a way that llama.cpp does not have")
    return metadata


def _find_pre_tokenizer(backend: HuggingFaceTokenizer) -> str | None:
    if backend.pre_tokenizer is None:
        return None
    pieces = backend.pre_tokenizer.pre_tokenize_str(_SAMPLE_TEXT)
    for known in PRE_TOKENIZERS:
        other = HuggingFaceTokenizer.from_str(json.dumps({**_byte_pairs({}, [], known), "added_tokens": []}))
        if other.pre_tokenizer.pre_tokenize_str(_SAMPLE_TEXT) == pieces:
            return known
    return None
