"""Tokenizers in the metadata of GGUF files: they become Hugging Face's `tokenizer.json`, and are made from it."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.tokenizers.base import MAX_TOKEN_CHARACTERS
from engine.errors import InvalidInputError
from engine.models.pretrained.base import UnsupportedModelError
from engine.models.pretrained.chat import JinjaTemplate
from engine.models.pretrained.special_tokens import TokenizerFiles
from engine.models.pretrained.token_bytes import BYTE_PATTERN, SPACE_MARK

_PREFIX = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens."""
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _pattern(digits: str) -> list[dict[str, Any]]:
    """Return the way of Llama 3 and Qwen 2, which differ in the number of digits in a part."""
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return [split, {**_BYTE_LEVEL, "use_regex": False}]


PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTE_LEVEL],
    "default": [_BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    "llama-bpe": _pattern("{1,3}"),
    "qwen2": _pattern(""),
}
"""Ways to cut texts before byte pairs are merged, by the names of llama.cpp."""
WHOLE_WORD_PRE_TOKENIZERS = ("llama-bpe",)
"""Ways whose tokens are also found without a path of merges to them."""
_SAMPLE_TEXT = (
    "I'll see. He'LL (in 12 or 345 days)...\n\n  It's caf\u00e9 time!\r\n\u65e5\u672c x\u00b2\u00bd\t~~\U0001f600 "
)
"""Text that the known ways cut differently. Numbers are short: those of over three digits are no token of ours."""


def read_vocabulary(metadata: Mapping[str, Any], name: str) -> TokenizerFiles:
    """Return the tokenizer of a GGUF file.

    Raises:
        UnsupportedModelError: If it is of a kind that only transformers knows.
        InvalidInputError: If it is missing or damaged.
    """
    tokens = metadata.get(_PREFIX + "tokens")
    if not isinstance(tokens, list) or not tokens:
        raise InvalidInputError(f"{name} has no tokens, so it is no language model; use another file")
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or max(map(len, tokens)) > MAX_TOKEN_CHARACTERS:
        raise InvalidInputError(f"{name} has a damaged vocabulary: a token is listed twice, or too long")
    types = _numbers(metadata, "token_type", len(tokens), name).tolist()
    ids = {kind: _token_id(metadata, kind, len(tokens), name) for kind in ("bos", "eos", "unknown")}
    kind = metadata.get(_PREFIX + "model")
    pre_tokenizer = metadata.get(_PREFIX + "pre", "default")
    if kind == "gpt2":
        content = _byte_pairs(metadata, vocabulary, pre_tokenizer, name)
    elif kind == "llama":
        content = _sentencepiece(metadata, vocabulary, types, tokens[ids["unknown"] or 0], name)
    else:
        raise UnsupportedModelError(f"{name} has a tokenizer of the kind {str(kind)[:60]!r}")
    added = np.flatnonzero(np.isin(types, (_UNKNOWN, _CONTROL, _USER_DEFINED))).tolist()
    content["added_tokens"] = [
        _added_token(id, tokens[id], is_special=bool(types[id] != _USER_DEFINED)) for id in added
    ]
    adds_bos = metadata.get(_PREFIX + "add_bos_token", kind == "llama" or pre_tokenizer in WHOLE_WORD_PRE_TOKENIZERS)
    template = metadata.get("tokenizer.chat_template")
    variables = {f"{kind}_token": None if (id := ids[kind]) is None else tokens[id] for kind in ("bos", "eos")}
    return TokenizerFiles(
        json.dumps(content, ensure_ascii=False),
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        first_id=ids["bos"] if adds_bos else None,
        template=JinjaTemplate(template, variables) if isinstance(template, str) else None,
    )


def _numbers(metadata: Mapping[str, Any], key: str, count: int, name: str) -> npt.NDArray[Any]:
    """Return one number per token; they are all 1 if the file has none, as normal tokens have in `token_type`."""
    numbers = metadata.get(_PREFIX + key)
    if numbers is None:
        return np.ones(count, np.int32)
    if not isinstance(numbers, np.ndarray) or len(numbers) != count or not np.isfinite(numbers).all():
        raise InvalidInputError(f"{name} has a damaged vocabulary: its {key} does not have {count:,} numbers")
    return numbers


def _token_id(metadata: Mapping[str, Any], kind: str, num_tokens: int, name: str) -> int | None:
    id = metadata.get(f"{_PREFIX}{kind}_token_id")
    if id is not None and (not isinstance(id, int) or not 0 <= id < num_tokens):
        raise InvalidInputError(f"{name} has a damaged vocabulary: its {kind} token is {str(id)[:60]}")
    return id


def _added_token(id: int, text: str, *, is_special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": text, **flags, "special": is_special}


def _byte_pairs(
    metadata: Mapping[str, Any], vocabulary: Mapping[str, int], pre_tokenizer: object, name: str
) -> dict[str, Any]:
    """Return a tokenizer of byte pairs, as GPT-2 has it."""
    if pre_tokenizer not in PRE_TOKENIZERS:
        raise UnsupportedModelError(f"{name} cuts texts in a way of its own ({str(pre_tokenizer)[:60]!r})")
    merges = metadata.get(_PREFIX + "merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) and " " in merge for merge in merges):
        raise InvalidInputError(f"{name} has a damaged vocabulary: its merges are missing, or no pairs")
    model = {
        "type": "BPE",
        "vocab": vocabulary,
        "merges": [merge.split(" ", 1) for merge in merges],
        "ignore_merges": pre_tokenizer in WHOLE_WORD_PRE_TOKENIZERS,
    }
    return {
        "version": "1.0",
        "normalizer": {"type": "NFC"} if pre_tokenizer == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[str(pre_tokenizer)]},
        "decoder": _BYTE_LEVEL,
        "model": model,
    }


def _sentencepiece(
    metadata: Mapping[str, Any], vocabulary: Mapping[str, int], types: Sequence[int], unknown: str, name: str
) -> dict[str, Any]:
    """Return a tokenizer of SentencePiece, as Llama 2 has it: pairs with the best score are merged first."""
    scores = _numbers(metadata, "scores", len(vocabulary), name).tolist()
    merges = []
    for token, id in vocabulary.items():
        if types[id] == _NORMAL:
            pairs = ((token[:end], token[end:]) for end in range(1, len(token)))
            merges += [(scores[id], *pair) for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    merges.sort(key=lambda merge: (-merge[0], -len(merge[1]), -len(merge[2])))
    model = {
        "type": "BPE",
        "vocab": vocabulary,
        "merges": [pair for _, *pair in merges],
        "unk_token": unknown,
        "fuse_unk": True,
        "byte_fallback": True,
    }
    adds_space = metadata.get(_PREFIX + "add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    marks = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}
    first_space = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if adds_space else []
    decoders = [marks, {"type": "ByteFallback"}, {"type": "Fuse"}, *first_space]
    normalizers = [*([{"type": "Prepend", "prepend": SPACE_MARK}] if adds_space else []), spaces]
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def vocabulary_metadata(
    tokenizer_json: str, num_tokens: int, special_ids: Collection[int], name: str
) -> dict[str, Any]:
    """Return the metadata from which llama.cpp and `read_vocabulary` read the same tokenizer, without bos and eos.

    Args:
        tokenizer_json: Content of `tokenizer.json`.
        num_tokens: Number of tokens of the model; those that the file lacks are called `[PAD…]`.
        special_ids: Ids of the special tokens.
        name: Name of the model for errors.

    Raises:
        UnsupportedModelError: If llama.cpp has no such tokenizer.
    """
    content = json.loads(tokenizer_json)
    model, backend = content["model"], HuggingFaceTokenizer.from_str(tokenizer_json)
    if model["type"] != "BPE":
        raise UnsupportedModelError(f"{name} has a {model['type']} tokenizer, which llama.cpp does not have")
    is_sentencepiece = bool(model.get("byte_fallback"))
    tokens, types = [f"[PAD{id}]" for id in range(num_tokens)], np.full(num_tokens, _UNUSED, np.int32)
    for token, id in model["vocab"].items():
        if id < num_tokens:
            tokens[id] = token.replace(" ", SPACE_MARK) if is_sentencepiece else token
            types[id] = _BYTE if is_sentencepiece and BYTE_PATTERN.fullmatch(token) else _NORMAL
    for token in content["added_tokens"]:
        tokens[token["id"]], types[token["id"]] = token["content"], _USER_DEFINED
    types[list(special_ids)] = _CONTROL
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    metadata: dict[str, Any] = {"tokens": tokens, "token_type": types}
    if is_sentencepiece:
        # Pairs with the best score are merged first: that of a token follows from the first of its merges.
        ranks = {"".join(merge): rank for rank, merge in reversed(list(enumerate(merges)))}
        first_token = backend.encode("a", add_special_tokens=False).tokens[0]
        metadata |= {
            "model": "llama",
            "scores": -np.array([ranks.get(token, len(merges)) for token in tokens], np.float32),
            "add_space_prefix": first_token.startswith(SPACE_MARK),
        }
        if (unknown := model["vocab"].get(model.get("unk_token"))) is not None:
            types[unknown], metadata["unknown_token_id"] = _UNKNOWN, unknown
    else:
        metadata |= {
            "model": "gpt2",
            "pre": _find_pre_tokenizer(backend, name),
            "merges": [" ".join(merge) for merge in merges],
        }
    metadata = {_PREFIX + key: value for key, value in metadata.items()}
    read = HuggingFaceTokenizer.from_str(read_vocabulary(metadata, name).backend_json)
    if read.encode(_SAMPLE_TEXT).ids != backend.encode(_SAMPLE_TEXT, add_special_tokens=False).ids:
        raise UnsupportedModelError(f"{name} reads texts in a way that llama.cpp does not have")
    return metadata


def _find_pre_tokenizer(backend: HuggingFaceTokenizer, name: str) -> str:
    """Return llama.cpp's name of the way in which a tokenizer cuts texts."""
    if backend.pre_tokenizer is not None:
        pieces = backend.pre_tokenizer.pre_tokenize_str(_SAMPLE_TEXT)
        for known, parts in PRE_TOKENIZERS.items():
            content = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
            content |= {"pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}
            other = HuggingFaceTokenizer.from_str(json.dumps(content)).pre_tokenizer
            if other.pre_tokenize_str(_SAMPLE_TEXT) == pieces:
                return known
    raise UnsupportedModelError(f"{name} cuts texts in a way for which llama.cpp has no name")
