"""Tokenizers of models by others as ours, and ours as tokenizers of Hugging Face."""

import re
import sys
import threading
import time
from collections import UserList
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tokenizers
from msgspec import Raw
from msgspec.json import decode, encode
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from engine.data import tokenizers as ours
from engine.data.arrays import Int64Array
from engine.data.tokenizers import BYTE_CHARACTERS, EOS, EOS_ID, ByteTokenizer, TokenIds, check_unicode
from engine.errors import InvalidInputError, LotrError, describe_error

PART_CHARACTERS = 64  # a text is tried in parts of this length, if a tokenizer has patterns that can be slow
MAX_SECONDS, MAX_PART_SECONDS = 0.2, 0.002  # of the processor, for a text and for each part; usual ones take 0.0001
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
        self.specials, special_ids = specials, set(specials.special_ids)
        self._lock, self._is_for_scripts = threading.Lock(), False
        content = decode(backend_json, type=dict[str, Raw])
        listed = decode(content.get("added_tokens", b"null")) or []
        kept = [{**token, "special": token["id"] in special_ids} for token in listed if token["id"] < size]
        if kept != listed:
            content["added_tokens"] = Raw(encode(kept))
            backend_json = encode(content).decode()
        added = {token["id"]: token["content"] for token in kept}
        with convert_errors(()):  # others say that the file is damaged
            self._backend, vocabulary = _read_backend(content, added)
        self._json, names = backend_json, {id: name for name, id in vocabulary.items()} | added
        self.special_texts = {id: names[id] for id in sorted(special_ids) if id in names}  # by the model's id
        parts = (self._backend.normalizer, self._backend.pre_tokenizer, self._backend.decoder)
        rules = b"".join(part.__getstate__() for part in parts if part is not None)
        is_byte_level = b'"ByteLevel"' in rules
        self._has_patterns = b'"Regex"' in rules  # which may take any time
        self._is_too_slow = False
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
        with self._lock, convert_errors():
            self._check_speed([text])
            return self._backend.encode(text, add_special_tokens=False)

    def _check_speed(self, texts: Iterable[str]) -> None:
        # Nothing stops the library once it encodes a text, so it is tried in parts.
        if not self._has_patterns:
            return
        limit = time.thread_time() + MAX_SECONDS
        for text in texts:
            for first in range(0, len(text), PART_CHARACTERS):
                if not self._is_too_slow:
                    self._backend.encode(text[first : first + PART_CHARACTERS], add_special_tokens=False)
                    limit += MAX_PART_SECONDS
                    self._is_too_slow = time.thread_time() > limit
                if self._is_too_slow:
                    raise InvalidInputError("the tokenizer is too slow for such texts; choose another model")

    def encode_with_special_tokens(self, text: str) -> TokenIds:
        """Return the token ids of `text` with its special tokens: never for the text of a user."""
        # Other threads encode texts of users; a second backend would take 70 ms and 20 MB.
        with self._lock, convert_errors():
            self._check_speed([text])
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
        with self._lock, convert_errors():
            self._check_speed(lines)
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


@contextmanager
def convert_errors(kinds: type[Exception] | tuple[()] = Exception) -> Iterator[None]:
    # Errors of these kinds, and a panic of tokenizers, which is no `Exception`.
    try:
        yield
    except LotrError:
        raise
    except BaseException as error:
        is_of_library = isinstance(error, kinds) or type(error).__name__ == "PanicException"
        if not is_of_library:
            raise
        problem = describe_error(error)
        raise InvalidInputError(f"the tokenizer fails for this text ({problem}); choose another model") from error


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


def to_hugging_face(tokenizer: ours.Tokenizer) -> tokenizers.Tokenizer:
    """Return a Hugging Face tokenizer with the same ids as `tokenizer`, which puts `<eos>` before a text.

    It reads "<eos>" in a text as ordinary text only with `encode_special_tokens` set, which `tokenizer.json` does not
    store; `split_special_tokens` is its name in transformers.
    """
    if isinstance(tokenizer, ours.BPETokenizer):
        backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
        backend.decoder = decoders.ByteLevel()
    elif isinstance(tokenizer, ours.CharacterTokenizer):  # byte pairs without a merge
        names = [chr(byte) if byte < 128 else f"<0x{byte:02X}>" for byte in range(256)]
        names = [*names[:EOS_ID], EOS, *names[EOS_ID:], *tokenizer.characters]
        vocabulary = {name: id for id, name in enumerate(names)}
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    else:
        assert isinstance(tokenizer, ours.WordTokenizer), "all other tokenizers have a closed vocabulary of words"
        backend = tokenizers.Tokenizer(models.WordLevel(tokenizer.token_to_id, unk_token=ours.UNK))
        pattern = ours.WORD_PATTERN.pattern
        if tokenizer.name == "words":
            backend.normalizer = normalizers.Lowercase()
        else:  # the printable characters of Python's version of Unicode but the space, as ranges
            is_printable = [chr(code).isprintable() and code != ord(" ") for code in range(sys.maxunicode + 1)]
            edges = np.flatnonzero(np.diff(is_printable, prepend=False, append=False)).reshape(-1, 2)
            pattern = "[" + "".join(rf"\x{{{start:x}}}-\x{{{end - 1:x}}}" for start, end in edges.tolist()) + "]+"
        # Removes all but the words. Without a decoder, they are joined by spaces.
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    backend.add_special_tokens([tokenizers.AddedToken(EOS, normalized=False, special=True)])
    backend.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, EOS_ID)])
    backend.encode_special_tokens = True
    return backend
