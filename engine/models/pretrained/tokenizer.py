"""Tokenizer of a model by others, as a tokenizer of the house."""

import re
import threading
from collections import UserList
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from msgspec import Raw
from msgspec.json import decode, encode
from tokenizers import Encoding, models
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.arrays import Int64Array
from engine.data.tokenizers.base import EOS_ID, PieceDecoder, TokenIds
from engine.data.tokenizers.bytes import ByteDecoder, ByteTokenizer, byte_characters, check_unicode
from engine.errors import InvalidInputError

SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # of SentencePiece
BYTE_PATTERN = re.compile(r"<0x([0-9A-F]{2})>")  # of single bytes in vocabularies of SentencePiece


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
        self.specials = specials
        self.end_id = specials.end_id  # the model's id of the token that is `<eos>` here
        special_ids = set(specials.special_ids)
        self._lock = threading.Lock()
        with convert_panics():
            self._json, self._backend, vocabulary, added = _read_backend(backend_json, size, special_ids)
        names: list[str | None] = [None] * size
        for name, id in vocabulary.items():
            if id < size:
                names[id] = name
        # By the model's id.
        self.special_texts = {id: text for id in sorted(special_ids) if (text := added.get(id, names[id])) is not None}
        parts = (self._backend.pre_tokenizer, self._backend.decoder)
        is_byte_level = any(b'"ByteLevel"' in part.__getstate__() for part in parts if part is not None)
        spelled = _decode_vocabulary(names, added | self.special_texts, is_byte_level=is_byte_level)
        # The model's id of each of our ids, and our id of each of the model's.
        self.swapped_ids = np.arange(size, dtype=np.int32)
        self.swapped_ids[[EOS_ID, self.end_id]] = [self.end_id, EOS_ID]
        spelled[self.end_id] = spelled[EOS_ID]
        super().__init__([*spelled[:EOS_ID], *spelled[EOS_ID + 1 :]])
        self._is_for_scripts = False
        ids = self._encode_plain("a").ids
        token_bytes = b"".join(self.token_bytes[id] for id in self._swap_known(ids).tolist())
        self._adds_space = token_bytes == b" a" and self._backend.decode(ids) == "a"
        self.start_id = int(self.swapped_ids[specials.start_id])
        self.other_end_ids = tuple(int(self.swapped_ids[id]) for id in specials.end_ids if id != self.end_id)

    @cached_property
    def special_cuts(self) -> re.Pattern[str]:
        # Places after the first character of each special token in a text.
        rests: dict[str, list[str]] = {}
        for text in filter(None, self.special_texts.values()):
            rests.setdefault(re.escape(text[0]), []).append(re.escape(text[1:]))
        return re.compile("|".join(f"(?<={first})(?={'|'.join(rests[first])})" for first in rests) or "(?!)")

    def for_scripts(self) -> Self:
        if not self._adds_space and not any(self.token_bytes[id].strip() for id in self.line_end_ids):
            return self
        tokenizer = copy(self)
        tokenizer._is_for_scripts = True
        return tokenizer

    def _encode(self, text: str) -> TokenIds:
        if not self._is_for_scripts:
            return self._to_our_ids(text, self._encode_plain(text).ids)
        before = "\n" if self._adds_space else ""  # a space is added only at the start of a text
        num_before = len(self._encode_plain(before).ids)
        texts = [before + part for part in re.findall(r"\n|[^\n]+", text)]
        ids = [self._to_our_ids(text, self._encode_plain(text).ids)[num_before:] for text in texts]
        return np.concatenate([np.empty(0, np.int32), *ids])

    def _encode_plain(self, text: str) -> Encoding:
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
        for line in lines:
            check_unicode(line)
        if self._is_for_scripts:
            return [self._encode(line) for line in lines]
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
        encoding = self._encode_plain(text)
        ends = np.array([end for _, end in encoding.offsets], np.int64)
        if len(ends) != len(ids):
            ends = np.minimum(np.cumsum(self._num_bytes[ids]), len(text))
        ends = np.maximum.accumulate(ends)
        ends[-1:] = len(text)
        return ends

    def piece_decoder(self) -> PieceDecoder:
        strips_space = self._adds_space and not self._is_for_scripts
        return _SpaceStrippingDecoder(self.token_bytes) if strips_space else super().piece_decoder()

    def ids_with_prefix(self, prefix: bytes) -> npt.NDArray[np.intp]:
        is_plain = np.ones(len(self), np.bool_)
        is_plain[self.swapped_ids[list(self.special_texts)]] = False
        ids = super().ids_with_prefix(prefix)
        return ids[is_plain[ids]]

    def to_json(self) -> str:
        return self._json


@contextmanager
def convert_panics() -> Iterator[None]:
    # A panic of tokenizers is no `Exception`.
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidInputError(f"the tokenizer fails: {error}") from error


class _SpaceStrippingDecoder(ByteDecoder):
    # Leaves out the space that some tokenizers add before a text.
    _is_at_start = True

    def decode(self, id: int) -> str:
        piece = super().decode(id)
        if not piece or not self._is_at_start:
            return piece
        self._is_at_start = False
        return piece.removeprefix(" ")


def _decode_vocabulary(
    names: Sequence[str | None], added_tokens: Mapping[int, str], *, is_byte_level: bool
) -> list[bytes]:
    # The bytes of each token, given its name in a vocabulary, which is byte-level or else of SentencePiece; None for an
    # id without a token. Added tokens are plain text. Each character becomes the one with the number of its byte;
    # others below 256 become one beyond, which fails.
    translation = dict.fromkeys(range(256), chr(256)) | {
        ord(char): chr(byte) for char, byte in byte_characters().items()
    }
    tokens = []
    for id, name in enumerate(names):
        if id in added_tokens or name is None:
            token = added_tokens.get(id, "").encode(errors="replace")
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


def _read_backend(
    backend_json: str, size: int, special_ids: Collection[int]
) -> tuple[str, HuggingFaceTokenizer, dict[str, int], dict[int, str]]:
    # The content of a `tokenizer.json`, its tokenizer, its vocabulary, and the tokens added to that by id: without
    # those from `size` on, and with exactly `special_ids` marked as special.
    content = decode(backend_json, type=dict[str, Raw])
    added = decode(content.get("added_tokens", b"null")) or []
    kept = [{**token, "special": token["id"] in special_ids} for token in added if token["id"] < size]
    if kept != added:
        content["added_tokens"] = Raw(encode(kept))
        backend_json = encode(content).decode()
    model = decode(content["model"], type=dict[str, Raw])
    if decode(model.pop("type", b"null")) == "BPE":  # `from_str` takes twice as long, and stops other threads
        vocabulary, pairs = decode(model.pop("vocab"), type=dict[str, int]), model.pop("merges")
        merges: Any = [
            tuple(merge.split(" ", 1)) if isinstance(merge, str) else merge
            for merge in decode(pairs, type=list[str | tuple[str, str]])
        ]
        options: Any = {key: option for key, raw in model.items() if key != "dropout" and (option := decode(raw))}
        # The added tokens find their ids in a vocabulary of their own.
        small = {"type": "BPE", "vocab": {token["content"]: token["id"] for token in kept}, "merges": []}
        backend = HuggingFaceTokenizer.from_str(encode({**content, "model": small}).decode())
        backend.model = models.BPE(vocabulary, UserList(merges), **options)  # read in Python, with other threads
    else:
        backend = HuggingFaceTokenizer.from_str(backend_json)
        vocabulary = backend.get_vocab(with_added_tokens=False)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend_json, backend, vocabulary, {token["id"]: token["content"] for token in kept}
