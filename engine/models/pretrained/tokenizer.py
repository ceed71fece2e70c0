"""Tokenizer of a model by others, as a tokenizer of the house."""

import re
import threading
from collections import UserList
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from msgspec import Raw
from msgspec.json import decode, encode
from tokenizers import Encoding, models
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.arrays import Int64Array
from engine.data.tokenizers.base import EOS_ID, PieceDecoder, TokenIds
from engine.data.tokenizers.bytes import ByteTokenizer, check_unicode
from engine.errors import InvalidInputError
from engine.models.pretrained.token_bytes import decode_vocabulary

_BPE_OPTIONS = (
    *("unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
    *("fuse_unk", "byte_fallback", "ignore_merges"),
)  # not `dropout`, which is for training


@dataclass(frozen=True)
class SpecialTokens:
    """A model's ids of the tokens that start and end texts."""

    start_id: int
    end_id: int
    """Token that ends a reply in the model's chat template, or else a text."""
    end_ids: tuple[int, ...]
    """All tokens that end a text or a reply, `end_id` among them."""
    special_ids: tuple[int, ...]
    """All special tokens, which no text is encoded as."""


class PretrainedTokenizer(ByteTokenizer):
    """Tokenizer of a model by others. Ids are the model's, except that id 1 and the id of its end token are swapped.

    Special tokens in a text, such as `<|im_end|>`, are read as the characters that they consist of. Line breaks are
    ordinary characters, and `<eos>` ends a whole text or a reply.
    """

    name = "pretrained"
    reads_line_ends = True

    def __init__(self, backend_json: str, size: int, specials: SpecialTokens) -> None:
        """Create a tokenizer.

        Args:
            backend_json: Content of the model's `tokenizer.json`.
            size: Number of tokens of the model; tokens beyond have no logits and are left out.
            specials: The special tokens, which the file need not mark as special.
        """
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
        self.special_texts = {id: text for id in sorted(special_ids) if (text := added.get(id, names[id])) is not None}
        """Text of each special token, by the model's id."""
        parts = (self._backend.pre_tokenizer, self._backend.decoder)
        is_byte_level = any(b'"ByteLevel"' in part.__getstate__() for part in parts if part is not None)
        token_bytes = decode_vocabulary(names, added | self.special_texts, is_byte_level=is_byte_level)
        self._to_model_id = np.arange(size, dtype=np.int32)
        self._to_model_id[[EOS_ID, self.end_id]] = [self.end_id, EOS_ID]
        token_bytes[self.end_id] = token_bytes[EOS_ID]
        super().__init__([*token_bytes[:EOS_ID], *token_bytes[EOS_ID + 1 :]])
        self._is_for_scripts = False
        self._adds_space = (
            self._backend.decode(self._encode_plain("a").ids) == "a" and self._decode_bytes(self._encode("a")) == b" a"
        )
        self.start_id = self.swap_id(specials.start_id)
        self.other_end_ids = tuple(self.swap_id(id) for id in specials.end_ids if id != self.end_id)

    def for_scripts(self) -> Self:
        if not self._adds_space and not any(self.token_bytes[id].strip() for id in self.line_end_ids):
            return self
        tokenizer = copy(self)
        tokenizer._is_for_scripts = True
        return tokenizer

    def swap(self, ids: TokenIds) -> TokenIds:
        """Return the model's ids of our `ids`, or our ids of the model's: the same exchange of two ids."""
        return self._to_model_id[ids]

    def swap_id(self, id: int) -> int:
        """Return the model's id of our `id`, or our id of the model's."""
        return EOS_ID if id == self.end_id else self.end_id if id == EOS_ID else id

    def _encode(self, text: str) -> TokenIds:
        if not self._is_for_scripts:
            return self._to_our_ids(text, self._encode_plain(text).ids)
        before = "\n" if self._adds_space else ""  # a space is added only at the start of a text
        num_before = len(self._encode_plain(before).ids)
        texts = [before + part for part in re.findall(r"\n|[^\n]+", text)]
        ids = [self._to_our_ids(text, self._encode_plain(text).ids)[num_before:] for text in texts]
        return np.concatenate([np.empty(0, np.int32), *ids])

    def _encode_plain(self, text: str) -> Encoding:
        """Encode a text in which special tokens are read as the characters that they consist of."""
        with self._lock, convert_panics():
            return self._backend.encode(text, add_special_tokens=False)

    def encode_with_special_tokens(self, text: str) -> TokenIds:
        """Return the token ids of `text`, in which special tokens are read as such: never for the text of a user."""
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
        if not self.special_texts.keys().isdisjoint(model_ids):
            model_ids = self._encode_split(text)
        return self._swap_known(model_ids)

    def _swap_known(self, model_ids: list[int]) -> TokenIds:
        """Return our ids; a token that the model has no logits of becomes the token 0."""
        ids = np.array(model_ids, np.int32)
        return self._to_model_id[np.where(ids < len(self._to_model_id), ids, 0)]

    def _encode_split(self, text: str) -> list[int]:
        """Encode a text in which the vocabulary itself finds a special token: cut each inside, as often as needed."""
        parts = [text]
        for special in sorted(self.special_texts.values(), key=len, reverse=True):
            half = max(1, len(special) // 2)
            middle = re.compile(f"(?<={re.escape(special[:half])})(?={re.escape(special[half:])})")
            parts = [piece for part in parts for piece in middle.split(part)]
        ids = [id for part in parts for id in self._encode_plain(part).ids]
        return [id for id in ids if id not in self.special_texts]  # only <unk> of a vocabulary without bytes is left

    def end_offsets(self, text: str, ids: TokenIds) -> Int64Array:
        # The bytes of the tokens are counted where they are the text. A tokenizer may also normalize the text or add a
        # space before it; then its own offsets are used.
        if self._decode_bytes(ids) == text.encode():
            return super().end_offsets(text, ids)
        encoding = self._encode_plain(text)
        if len(encoding.ids) == len(ids):
            ends = np.array([end for _, end in encoding.offsets], np.int64)
        else:
            ends = np.minimum(np.cumsum(self._num_bytes[ids]), len(text))
        ends = np.maximum.accumulate(ends)
        ends[-1:] = len(text)
        return ends

    def _decode_bytes(self, ids: TokenIds) -> bytes:
        return b"".join([self.token_bytes[id] for id in ids.tolist()])

    def piece_decoder(self) -> PieceDecoder:
        decoder = super().piece_decoder()
        return _SpaceStrippingDecoder(decoder) if self._adds_space and not self._is_for_scripts else decoder

    def ids_with_prefix(self, prefix: bytes) -> npt.NDArray[np.intp]:
        is_plain = np.ones(len(self), np.bool_)
        is_plain[self._to_model_id[list(self.special_texts)]] = False
        ids = super().ids_with_prefix(prefix)
        return ids[is_plain[ids]]

    def to_json(self) -> str:
        """Return the tokenizer in Hugging Face's format, with the model's ids."""
        return self._json


@contextmanager
def convert_panics() -> Iterator[None]:
    """Turn a panic of tokenizers, which is no `Exception`, into an InvalidInputError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidInputError(f"the tokenizer fails: {error}") from error


class _SpaceStrippingDecoder:
    """Decoder that leaves out the space that some tokenizers add before a text."""

    def __init__(self, decoder: PieceDecoder) -> None:
        self._decoder = decoder
        self._is_at_start = True

    def decode(self, id: int) -> str:
        piece = self._decoder.decode(id)
        if self._is_at_start and piece:
            self._is_at_start = False
            return piece.removeprefix(" ")
        return piece

    def flush(self) -> str:
        return self._decoder.flush()


def _read_backend(
    backend_json: str, size: int, special_ids: Collection[int]
) -> tuple[str, HuggingFaceTokenizer, dict[str, int], dict[int, str]]:
    """Return the content of a `tokenizer.json` without the tokens from `size` on, and its tokenizer.

    Exactly the tokens `special_ids` are marked as special. The vocabulary, and the tokens that were added to it by id,
    are returned too. A vocabulary of byte pairs is read in steps, since `from_str` takes twice as long, in which it
    stops the other threads.
    """
    content = decode(backend_json, type=dict[str, Raw])
    added = decode(content.get("added_tokens", b"null")) or []
    kept = [{**token, "special": token["id"] in special_ids} for token in added if token["id"] < size]
    if kept != added:
        content["added_tokens"] = Raw(encode(kept))
        backend_json = encode(content).decode()
    model = decode(content["model"], type=dict[str, Raw])
    if decode(model.pop("type", b"null")) == "BPE":
        vocabulary, pairs = decode(model.pop("vocab"), type=dict[str, int]), model.pop("merges")
        merges: Any = [
            tuple(merge.split(" ", 1)) if isinstance(merge, str) else merge
            for merge in decode(pairs, type=list[str | tuple[str, str]])
        ]
        options: Any = {name: option for name in _BPE_OPTIONS if (option := decode(model.get(name, b"null")))}
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
