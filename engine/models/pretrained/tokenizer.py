"""Tokenizers of models by others as tokenizers of the house, and what the files of a model say about its tokens."""

import json
import re
import threading
from collections import UserList
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tokenizers
from msgspec import Raw
from msgspec.json import decode, encode

from engine.data.arrays import Int64Array
from engine.data.tokenizers import BYTE_CHARACTERS, EOS_ID, MAX_VOCABULARY_SIZE, ByteTokenizer, TokenIds, check_unicode
from engine.errors import InvalidInputError
from engine.models.pretrained.chat import ChatTemplate, JinjaTemplate

SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # of SentencePiece
BYTE_PATTERN = re.compile(r"<0x([0-9A-F]{2})>")  # of single bytes in vocabularies of SentencePiece
# Of replies and texts in well-known models.
END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
TEXT_START_TOKEN = "<|endoftext|>"
CLOSED_VOCABULARIES = ("WordLevel", "WordPiece")  # they lose the spaces or the unknown words of a text
TRIED_TEXTS = ("", " ", "Where is the Ring?\nIt's safe, for 12 days. \u65e5\u672c \U0001f600", "a" * 1000, "a b " * 500)
# As vocabularies write them; the second in byte-level ones.
_LINE_FEEDS = ("\n", "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}", "<0x0A>")


@dataclass(frozen=True)
class SpecialTokens:
    """A model's ids of the tokens that start and end texts."""

    start_id: int
    end_id: int  # it ends a reply in the model's chat template, or else a text
    end_ids: tuple[int, ...]  # all tokens that end a text or a reply, `end_id` among them
    special_ids: tuple[int, ...]  # all special tokens, which no text is encoded as


class PretrainedTokenizer(ByteTokenizer):
    """Tokenizer of a model by others. Ids are the model's, except that id 1 and the id of its end token are swapped.

    Special tokens in a text are read as the characters that they consist of. Line breaks are characters, too.
    """

    name = "pretrained"
    reads_line_ends = True

    def __init__(self, backend_json: str, size: int, specials: SpecialTokens) -> None:
        """Read a `tokenizer.json`, without the tokens from `size` on, of which the model has no logits."""
        self.specials, special_ids = specials, set(specials.special_ids)
        self._lock, self._is_for_scripts = threading.Lock(), False
        content = decode(backend_json, type=dict[str, Raw])
        listed = decode(content.get("added_tokens", b"null")) or []
        kept = [{**token, "special": token["id"] in special_ids} for token in listed if token["id"] < size]
        if kept != listed:
            content["added_tokens"] = Raw(encode(kept))
            backend_json = encode(content).decode()
        added = {token["id"]: token["content"] for token in kept}
        with convert_panics():
            self._backend, vocabulary = _read_backend(content, added)
        self._json, names = backend_json, {id: name for name, id in vocabulary.items()} | added
        self.special_texts = {id: names[id] for id in sorted(special_ids) if id in names}  # by the model's id
        parts = (self._backend.pre_tokenizer, self._backend.decoder)
        is_byte_level = any(b'"ByteLevel"' in part.__getstate__() for part in parts if part is not None)
        spelled = _spell_tokens(names, size, added | self.special_texts, is_byte_level)
        # The model's id of each of our ids, and our id of each of the model's.
        self.swapped_ids = np.arange(size, dtype=np.int32)
        self.swapped_ids[[EOS_ID, specials.end_id]] = [specials.end_id, EOS_ID]
        spelled[specials.end_id] = spelled[EOS_ID]
        super().__init__([*spelled[:EOS_ID], *spelled[EOS_ID + 1 :]])
        ids = self._encode_plain("a").ids
        token_bytes = b"".join(self.token_bytes[id] for id in self._swap_known(ids).tolist())
        self._adds_space = self.strips_space = token_bytes == b" a" and self._backend.decode(ids) == "a"
        self.start_id = int(self.swapped_ids[specials.start_id])
        self.other_end_ids = tuple(int(self.swapped_ids[id]) for id in specials.end_ids if id != specials.end_id)

    @cached_property
    def special_cuts(self) -> re.Pattern[str]:
        # Places after the first character of each special token in a text.
        escaped = [(re.escape(text[0]), re.escape(text[1:])) for text in self.special_texts.values() if text]
        return re.compile("|".join(f"(?<={first})(?={rest})" for first, rest in escaped) or "(?!)")

    def for_scripts(self) -> Self:
        if not self._adds_space and not any(self.token_bytes[id].strip() for id in self.line_end_ids):
            return self
        tokenizer = copy(self)
        tokenizer._is_for_scripts, tokenizer.strips_space = True, False
        return tokenizer

    def encode(self, text: str) -> TokenIds:
        check_unicode(text)
        if not self._is_for_scripts:
            return self._to_our_ids(text, self._encode_plain(text).ids)
        before = "\n" if self._adds_space else ""  # a space is added only at the start of a text
        num_before = len(self._encode_plain(before).ids)
        texts = [before + part for part in re.findall(r"\n|[^\n]+", text)]
        ids = [self._to_our_ids(text, self._encode_plain(text).ids)[num_before:] for text in texts]
        return np.concatenate([np.empty(0, np.int32), *ids])

    def _encode_plain(self, text: str) -> tokenizers.Encoding:
        with self._lock, convert_panics():
            return self._backend.encode(text, add_special_tokens=False)

    def encode_with_special_tokens(self, text: str) -> TokenIds:
        """Return the token ids of `text` with its special tokens: never for the text of a user."""
        # Other threads encode texts of users; a second backend would take 70 ms and 20 MB.
        with self._lock, convert_panics():
            self._backend.encode_special_tokens = False
            try:
                ids = self._backend.encode(text, add_special_tokens=False).ids
            finally:
                self._backend.encode_special_tokens = True
        return self._swap_known(ids)

    def encode_lines(self, lines: Sequence[str]) -> list[TokenIds]:
        if self._is_for_scripts:
            return [self.encode(line) for line in lines]
        for line in lines:
            check_unicode(line)
        with self._lock, convert_panics():
            encodings = self._backend.encode_batch(list(lines), add_special_tokens=False)
        return [self._to_our_ids(line, encoding.ids) for line, encoding in zip(lines, encodings, strict=True)]

    def _to_our_ids(self, text: str, model_ids: list[int]) -> TokenIds:
        if not self.special_texts.keys().isdisjoint(model_ids):  # the vocabulary itself finds special tokens
            ids = [id for part in self.special_cuts.split(text) for id in self._encode_plain(part).ids]
            model_ids = [id for id in ids if id not in self.special_texts]  # <unk> of a vocabulary without bytes
        return self._swap_known(model_ids)

    def _swap_known(self, model_ids: list[int]) -> TokenIds:
        # A token that the model has no logits of becomes the token 0.
        ids = np.array(model_ids, np.int32)
        return self.swapped_ids[np.where(ids < len(self.swapped_ids), ids, 0)]

    def end_offsets(self, text: str, ids: TokenIds) -> Int64Array:
        if b"".join(self.token_bytes[id] for id in ids.tolist()) == text.encode():
            return super().end_offsets(text, ids)
        # It normalizes the text or adds a space before it, so its own offsets are used.
        ends = np.array([end for _, end in self._encode_plain(text).offsets], np.int64)
        if len(ends) != len(ids):
            ends = np.minimum(np.cumsum(self._num_bytes[ids]), len(text))
        ends = np.maximum.accumulate(ends)
        ends[-1:] = len(text)
        return ends

    def ids_with_prefix(self, prefix: bytes) -> npt.NDArray[np.intp]:
        ids = super().ids_with_prefix(prefix)
        return ids[~np.isin(ids, self.swapped_ids[list(self.special_texts)])]

    def to_json(self) -> str:
        return self._json


Tokens = tuple[PretrainedTokenizer, ChatTemplate | None]


@contextmanager
def convert_panics() -> Iterator[None]:
    # A panic of tokenizers is no `Exception`.
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidInputError(f"the tokenizer fails: {error}") from error


def _read_backend(content: Mapping[str, Raw], added: Mapping[int, str]) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    # The tokenizer of a `tokenizer.json`, and its vocabulary without the added tokens.
    model = decode(content["model"], type=dict[str, Raw])
    if decode(model.pop("type", b"null")) == "BPE":  # `from_str` takes twice as long, and stops other threads
        vocabulary, pairs = decode(model.pop("vocab"), type=dict[str, int]), model.pop("merges")
        merges: Any = [
            tuple(merge.split(" ", 1)) if isinstance(merge, str) else merge
            for merge in decode(pairs, type=list[str | tuple[str, str]])
        ]
        options: Any = {key: option for key, raw in model.items() if key != "dropout" and (option := decode(raw))}
        # The added tokens find their ids in a vocabulary of their own.
        small = {"type": "BPE", "vocab": {text: id for id, text in added.items()}, "merges": []}
        backend = tokenizers.Tokenizer.from_str(encode({**content, "model": small}).decode())
        # `UserList` is read in Python, with other threads.
        backend.model = tokenizers.models.BPE(vocabulary, UserList(merges), **options)
    else:
        backend = tokenizers.Tokenizer.from_str(encode(content).decode())
        vocabulary = backend.get_vocab(with_added_tokens=False)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend, vocabulary


def _spell_tokens(names: Mapping[int, str], size: int, added: Mapping[int, str], is_byte_level: bool) -> list[bytes]:
    # The bytes of each token, given its name in a vocabulary, which is byte-level or else of SentencePiece. Added
    # tokens are plain text.
    translation = {ord(char): chr(byte) for char, byte in BYTE_CHARACTERS.items()}
    tokens = []
    for id in range(size):
        name = names.get(id)
        if id in added or name is None:
            token = added.get(id, "").encode(errors="replace")
        elif is_byte_level:
            try:
                token = name.translate(translation).encode("latin-1")
            except UnicodeEncodeError:
                token = name.encode(errors="replace")
        elif match := BYTE_PATTERN.fullmatch(name):
            token = bytes([int(match[1], 16)])
        else:
            token = name.replace(SPACE_MARK, " ").encode(errors="replace")
        tokens.append(token or f"<unused {id}>".encode())
    return tokens


def read_tokens(
    backend_json: str,
    texts: Mapping[str, str | None],
    first_id: int | None,
    template: str | None,
    other_end_ids: Sequence[int],
    max_size: int,
) -> Tokens:
    """Return the tokenizer of a `tokenizer.json`, with at most `max_size` tokens, and its chat template if it has one.

    `texts` are special tokens by names such as "bos_token", `first_id` is the token that the tokenizer puts before a
    text. A tokenizer that cannot spell every text or end one raises an InvalidInputError.
    """
    content: Any = json.loads(backend_json)
    if (kind := content["model"].get("type")) in CLOSED_VOCABULARIES:
        reason = f"it has a {kind} tokenizer, which cannot spell every text"
        raise InvalidInputError(f"{reason}; play the run that it was exported from, or a model of byte pairs")
    ids, all_added = content["model"]["vocab"], content.get("added_tokens") or []
    if not isinstance(ids, dict):  # pairs of a token and its score
        ids = {token: id for id, (token, _) in enumerate(ids)}
    ids |= {token["content"]: token["id"] for token in all_added}
    size = min(max_size, 1 + max(ids.values()))
    added = [token for token in all_added if token["id"] < size]
    added_ids = {token["content"]: token["id"] for token in added}
    known_ends = {text: added_ids[text] for text in END_TOKENS if text in added_ids}
    turn_ends = [id for text, id in known_ends.items() if text in (template or "")]
    # Tokens with a line feed, which end the replies of models of scripts, are text.
    line_ends = {id for text, id in ids.items() if id in other_end_ids and any(mark in text for mark in _LINE_FEEDS)}
    bos_id, eos_id = (ids.get(texts.get(key) or "") for key in ("bos_token", "eos_token"))
    candidates = [*turn_ends[:1], eos_id, *(id for id in other_end_ids if id not in line_ends), *known_ends.values()]
    end_ids = tuple(dict.fromkeys(id for id in candidates if id is not None and 0 <= id < size))
    if not end_ids:
        raise InvalidInputError("it has no token that ends a text (eos_token), so it cannot be played")
    special_ids = {*end_ids, *(token["id"] for token in added if token["special"])}
    # Chat models often name the start of a message as bos, which starts no text and is not put before one.
    candidates = [added_ids.get(TEXT_START_TOKEN), bos_id, end_ids[0]]
    if first_id in {*special_ids, bos_id}:
        candidates.insert(0, first_id)
    start_id = next(id for id in candidates if id is not None and id < size)
    specials = SpecialTokens(start_id, end_ids[0], end_ids, tuple(sorted({*special_ids, start_id})))
    tokenizer = PretrainedTokenizer(backend_json, size, specials)
    return tokenizer, None if template is None else ChatTemplate(JinjaTemplate(template, {**texts}), tokenizer)


def try_tokenizer(path: str, texts: dict[str, str | None], end_ids: Sequence[int]) -> int | None:
    """Return the token that a tokenizer puts before a text; call this in a sandbox, since the library may crash."""
    content = Path(path).read_text("utf-8")
    first_id = next(iter(tokenizers.Tokenizer.from_str(content).encode("a").ids), None)
    tokenizer, _ = read_tokens(content, texts, first_id, None, end_ids, MAX_VOCABULARY_SIZE)
    for text, encoded in zip(TRIED_TEXTS, tokenizer.encode_lines(TRIED_TEXTS), strict=True):
        tokenizer.decode(encoded)
        tokenizer.end_offsets(text, encoded)
        tokenizer.encode_with_special_tokens(text)
    return first_id
