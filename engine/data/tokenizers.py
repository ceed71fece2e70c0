"""Tokenizers: conversion between text and the token ids of a vocabulary, which knows some words or spells any text."""

import codecs
import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from functools import cached_property, partial
from typing import Annotated, Literal, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from engine.config import TokenizerName
from engine.data.arrays import Int32Array, Int64Array
from engine.errors import InvalidInputError, RunError
from engine.storage.files import decode, parse_json

UNK, EOS = "<unk>", "<eos>"
UNK_ID, EOS_ID = 0, 1
"""Ids of the special tokens. Id 1 is `<eos>` in every tokenizer; id 0 is an ordinary token of an open vocabulary."""
EOS_BYTES = b"\n"  # bytes that `<eos>` is decoded to
MAX_VOCABULARY_SIZE, MAX_TOKEN_CHARACTERS = 1_000_000, 1000
OPEN_VOCABULARIES = ("characters", "bpe", "pretrained")
"""Names of the tokenizers that encode any text as written. The others read words that they do not know as `<unk>`."""
TOKENIZER_FILES = dict.fromkeys(("words", "whitespace"), "vocabulary.json")  # in the directory of a run
TOKENIZER_FILES |= dict.fromkeys(OPEN_VOCABULARIES, "tokenizer.json")

TokenIds = Int32Array  # token ids `[time]`
PunctuationIds = npt.NDArray[np.uint8]
WordTokenizerName = Literal["words", "whitespace"]

WORD_PATTERN = re.compile(r"[a-z0-9']+")  # a word of the `words` tokenizer, in lower-case text
WORD_CHARACTER = re.compile(r"[^\W_]|['’\N{REPLACEMENT CHARACTER}]")
"""A letter, a digit or an apostrophe, or the character that replaces a part of one, which may be a letter."""
_NON_WORD_PATTERN = re.compile(r"[^a-z0-9']+")
_PRINTABLE_BYTES = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHER_BYTES = [byte for byte in range(256) if byte not in _PRINTABLE_BYTES]
BYTE_CHARACTERS = {chr(byte): byte for byte in _PRINTABLE_BYTES}
BYTE_CHARACTERS |= {chr(256 + index): byte for index, byte in enumerate(_OTHER_BYTES)}
"""The byte that each printable character stands for in byte-level vocabularies, as in GPT-2."""
CHUNK_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}{1,64}| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]{1,64}|\s+(?!\S)|\s+"
"""Parts of a text that byte pairs never cross, as in GPT-2; the limits keep a text without spaces fast."""
MAX_LEARNED_TOKEN_LENGTH = 24  # characters of a byte pair, so that rows of dashes do not take up the vocabulary


class TokenSpan(NamedTuple):
    """A token of a text, and the characters that it was read from."""

    start: int
    end: int  # index after the last character. It equals `start` if the token is a later byte of the character before
    id: int


class UnknownSpan(NamedTuple):
    start: int
    end: int
    text: str


class Tokenizer(ABC):
    """Conversion between text and the token ids of a model's vocabulary."""

    name: TokenizerName
    is_open: bool
    unk_id: int | None  # None in an open vocabulary, which has no `<unk>`
    tokens: tuple[str, ...]  # text of each token, by id. Tokens of an open vocabulary include the space before a word
    reads_line_ends: bool = False
    """True if line breaks are ordinary characters and `<eos>` ends a whole text, as in models by others."""
    start_id: int = EOS_ID  # token that a text starts with: an `<eos>` before the first token is read as this one
    other_end_ids: tuple[int, ...] = ()
    """Tokens of models by others that also end a text. Models predict `<eos>` in their place."""
    strips_space = False
    """True if the first token of a text includes a space that is not part of the text."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and (self.name, self.tokens) == (other.name, other.tokens)

    def __hash__(self) -> int:
        return hash((self.name, len(self)))  # not of all tokens, which may be a million

    @abstractmethod
    def encode(self, text: str) -> TokenIds:
        """Return the token ids `[time]` of a text, without `<eos>`; a lone surrogate raises an InvalidInputError."""

    def encode_lines(self, lines: Sequence[str]) -> list[TokenIds]:
        return [self.encode(line) for line in lines]

    @abstractmethod
    def spans(self, text: str) -> list[TokenSpan]:
        """Return the tokens of `encode` with the characters that they were read from."""

    def unknown_spans(self, text: str) -> list[UnknownSpan]:
        """Return the parts of `text` that the model does not know, in text order; none in an open vocabulary."""
        return []

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return the text that each token adds to the text before it. The pieces joined are the decoded text."""
        decoder = PieceDecoder(self)
        pieces = [decoder.decode(id) for id in ids]
        if pieces:
            pieces[-1] += decoder.utf8.decode(b"", final=True)
        return pieces

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.pieces(ids))

    @abstractmethod
    def to_json(self) -> str:
        """Return the content of the tokenizer's file in a run directory."""

    def for_scripts(self) -> Self:
        """Return the tokenizer for parts of scripts: a line feed is one token, and no space is added."""
        return self

    @cached_property
    @abstractmethod
    def word_starts(self) -> npt.NDArray[np.bool_]:
        """`[vocabulary]`: True for tokens that end the word before them, because they begin with something else."""

    @cached_property
    def line_end_ids(self) -> TokenIds:
        """Ids of the tokens that end a line: `<eos>`, and in an open vocabulary all that contain a line feed."""
        return np.array([EOS_ID], np.int32)

    @cached_property
    def colon_ids(self) -> TokenIds:
        """Ids of the tokens that end with a colon, as the name before a line of a script does."""
        return np.array([id for id, token in enumerate(self.tokens) if token.endswith(":")], np.int32)


@dataclass(eq=False)
class PieceDecoder:
    """Decoder of a stream of token ids into text, one piece of text per token, from the start of a text."""

    tokenizer: Tokenizer
    is_at_start: bool = True  # of the text, or in a closed vocabulary of a line
    utf8: codecs.IncrementalDecoder = field(default_factory=partial(codecs.getincrementaldecoder("utf-8"), "replace"))

    def decode(self, id: int) -> str:
        """Return the text that the token adds: never a part of a character, so it can be empty."""
        if isinstance(self.tokenizer, ByteTokenizer):
            piece = self.utf8.decode(self.tokenizer.token_bytes[id])
        elif id == EOS_ID:
            self.is_at_start = True
            return "\n"
        else:
            piece = f" {self.tokenizer.tokens[id]}"
        if piece and self.is_at_start:
            self.is_at_start = False
            piece = piece.removeprefix(" ") if self.tokenizer.strips_space else piece
        return piece


# Closed vocabularies of words


class Punctuation(IntEnum):
    """Classes of the marks between two words, which `words` leaves out of the text; the strongest mark decides."""

    NONE = 0  # white space; all between the tokens of `whitespace`, which keeps the marks as tokens
    COMMA = 1  # a mark that does not end a sentence
    SENTENCE_END = 2
    LINE_END = 3


def split_words(text: str, name: WordTokenizerName = "words") -> list[str]:
    """Split `text` into words. Unprintable characters, such as control characters, count as white space."""
    if name == "words":
        return _NON_WORD_PATTERN.sub(" ", text.lower()).split()
    return _replace_unprintable(text).split()


def word_spans(text: str, name: WordTokenizerName) -> Iterator[tuple[int, int, str]]:
    """Yield the start, the end and the text of each word that `split_words` returns."""
    if name == "whitespace":
        for match in re.finditer("[^ ]+", _replace_unprintable(text)):
            yield match.start(), match.end(), match[0]
        return
    lower = text.lower()
    # A character can become two in lower case (İ), so positions are mapped back to the original text.
    origin = range(len(text)) if len(lower) == len(text) else [i for i, c in enumerate(text) for _ in c.lower()]
    for match in WORD_PATTERN.finditer(lower):
        yield origin[match.start()], origin[match.end() - 1] + 1, match[0]


def _replace_unprintable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def skipped_spans(text: str, name: WordTokenizerName) -> Iterator[UnknownSpan]:
    """Yield each run of letters, digits and symbols beyond ASCII that are in no word of the `words` tokenizer."""
    if name == "whitespace" or text.isascii():
        return
    others, run_start = [*text, " "], None
    for start, end, _ in word_spans(text, name):
        others[start:end] = " " * (end - start)
    for index, character in enumerate(others):
        category = unicodedata.category(character)[0]
        # Not control characters, punctuation and separators; an accent belongs to the word or mark before it.
        is_skipped = not character.isascii() and category not in ("CPZM" if run_start is None else "CPZ")
        if is_skipped and run_start is None:
            run_start = index
        elif not is_skipped and run_start is not None:
            yield UnknownSpan(run_start, index, text[run_start:index])
            run_start = None


class WordTokenizer(Tokenizer):
    """A tokenizer whose tokens are `<unk>`, `<eos>`, then the known words."""

    is_open, strips_space = False, True
    unk_id = UNK_ID
    name: WordTokenizerName

    def __init__(self, tokens: Sequence[str], name: WordTokenizerName = "words") -> None:
        self.tokens, self.name = tuple(tokens), name
        self.token_to_id = {token: id for id, token in enumerate(self.tokens)}

    def encode(self, text: str) -> TokenIds:
        words = split_words(text, self.name)
        return np.fromiter((self.token_to_id.get(word, UNK_ID) for word in words), np.int32, len(words))

    def spans(self, text: str) -> list[TokenSpan]:
        known = self.token_to_id
        return [TokenSpan(start, end, known.get(word, UNK_ID)) for start, end, word in word_spans(text, self.name)]

    def unknown_spans(self, text: str) -> list[UnknownSpan]:
        unknown = [UnknownSpan(*span) for span in word_spans(text, self.name) if span[2] not in self.token_to_id]
        return sorted([*unknown, *skipped_spans(text, self.name)])

    @cached_property
    def word_starts(self) -> npt.NDArray[np.bool_]:
        return np.ones(len(self), np.bool_)

    def to_json(self) -> str:
        return json.dumps(self.tokens, indent=0)

    @classmethod
    def from_json(cls, text: str, source: str, name: WordTokenizerName = "words") -> "WordTokenizer":
        """Parse the output of `to_json`, which was read from the file `source`; damage raises a RunError."""
        try:
            tokens = msgspec.json.decode(text, type=list[str])
        except (ValueError, RecursionError) as error:
            raise RunError(f"{source} is not a list of words; the run is damaged") from error
        # Tokens are shown in the terminal unchanged, so anything that the tokenizer cannot produce is refused.
        are_words = all(len(word) <= MAX_TOKEN_CHARACTERS and split_words(word, name) == [word] for word in tokens[2:])
        is_vocabulary = tokens[:2] == [UNK, EOS] and 2 < len(set(tokens)) == len(tokens) <= MAX_VOCABULARY_SIZE
        if not (is_vocabulary and are_words):
            raise RunError(
                f"{source} is not a vocabulary: {UNK}, {EOS} and different words of at most {MAX_TOKEN_CHARACTERS:,} "
                f"characters, at most {MAX_VOCABULARY_SIZE:,} entries; the run is damaged"
            )
        return cls(tokens, name)


# Open vocabularies of sequences of bytes


class ByteTokenizer(Tokenizer):
    """A tokenizer whose tokens are `<eos>` at id 1 and otherwise sequences of bytes, among them every single byte."""

    is_open = True
    unk_id = None

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """Create a tokenizer of the tokens `token_bytes`, without `<eos>`, which is inserted at its id."""
        self.token_bytes = (*token_bytes[:EOS_ID], EOS_BYTES, *token_bytes[EOS_ID:])
        names = []
        for token in self.token_bytes:
            try:
                name = token.decode()
            except UnicodeDecodeError:
                name = "\0"
            is_visible = name.isprintable() or (name.isspace() and not name.strip(" "))
            names.append(name if is_visible else "".join(f"<0x{byte:02X}>" for byte in token))
        names[EOS_ID] = EOS
        self.tokens = tuple(names)

    def spans(self, text: str) -> list[TokenSpan]:
        """Return the tokens of `text` with their characters. A character belongs to the token of its first byte."""
        ids = self.encode(text)
        edges = [0, *self.end_offsets(text, ids).tolist()]
        return [TokenSpan(*span) for span in zip(edges[:-1], edges[1:], ids.tolist(), strict=True)]

    def end_offsets(self, text: str, ids: TokenIds) -> Int64Array:
        """Return the index `[tokens]` after the last character of each token of `text`."""
        is_first_byte = (np.frombuffer(text.encode(), np.uint8) & 0xC0) != 0x80
        num_characters = np.append(0, np.cumsum(is_first_byte))
        edges: Int64Array = num_characters[np.cumsum(self._num_bytes[ids])]
        return edges

    @cached_property
    def _num_bytes(self) -> Int64Array:
        return np.fromiter(map(len, self.token_bytes), np.int64, len(self))

    @cached_property
    def line_end_ids(self) -> TokenIds:
        return np.array([id for id, token in enumerate(self.token_bytes) if EOS_BYTES in token], np.int32)

    @cached_property
    def word_starts(self) -> npt.NDArray[np.bool_]:
        """`[vocabulary]`: False for tokens that start with a letter, a digit, an apostrophe or a later byte."""
        return ~self._has_word_character(0)

    @cached_property
    def word_ends(self) -> npt.NDArray[np.bool_]:
        """`[vocabulary]`: True for tokens that are complete whatever follows, such as punctuation and line ends."""
        ends_with_space = np.array([token.endswith(b" ") for token in self.token_bytes], np.bool_)
        return ~(self._has_word_character(-1) | ends_with_space)

    def _has_word_character(self, place: int) -> npt.NDArray[np.bool_]:
        # `[vocabulary]`: whether the first (0) or last (-1) character of each token can be part of a word.
        edges = np.fromiter((token[place] for token in self.token_bytes), np.uint8, len(self))
        is_word_byte = np.array([WORD_CHARACTER.match(chr(byte)) is not None for byte in range(256)])
        result: npt.NDArray[np.bool_] = is_word_byte[edges]
        for id in np.flatnonzero(edges >= 128).tolist():  # part of a character beyond ASCII
            character = self.token_bytes[id].decode(errors="replace")[place]
            result[id] = WORD_CHARACTER.match(character) is not None
        return result

    def ids_with_prefix(self, prefix: bytes) -> npt.NDArray[np.intp]:
        """Return the ids of the tokens that begin with `prefix` and are longer."""
        longer = (id for id, token in enumerate(self.token_bytes) if token.startswith(prefix) and token != prefix)
        return np.array([id for id in longer if id != EOS_ID], np.intp)


def check_unicode(text: str) -> None:
    """Raise an InvalidInputError if `text` has a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"character {error.start + 1} is a lone surrogate (U+{ord(text[error.start]):X})"
        raise InvalidInputError(f"the text is no Unicode: {problem}; remove it, or save the text as UTF-8") from error


@dataclass(frozen=True)
class _CharactersFile:
    type: Literal["characters"]
    version: Literal[1]
    characters: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=1)]], msgspec.Meta(max_length=MAX_VOCABULARY_SIZE)
    ]


class CharacterTokenizer(ByteTokenizer):
    """A tokenizer of single characters. ASCII characters and the bytes of rare characters are tokens of one byte."""

    name = "characters"

    def __init__(self, characters: Sequence[str]) -> None:
        """Create a tokenizer that knows the characters beyond ASCII in `characters`."""
        self.characters = tuple(characters)
        super().__init__([*(bytes([byte]) for byte in range(256)), *(character.encode() for character in characters)])
        self._byte_ids = np.array([0, *range(EOS_ID + 1, 257)], np.int32)
        self._ids = np.full(0x110000, -1, np.int32)  # of all code points
        self._ids[:128] = self._byte_ids[:128]
        self._ids[[ord(character) for character in characters]] = np.arange(257, 257 + len(characters))

    @classmethod
    def from_lines(cls, lines: Iterable[str], min_count: int) -> "CharacterTokenizer":
        """Build a tokenizer of the characters with at least `min_count` occurrences, in order of first appearance."""
        counts: Counter[str] = Counter()
        for line in lines:
            if not line.isascii():
                counts.update(line)
        return cls([c for c, count in counts.items() if count >= min_count and not c.isascii() and c.isprintable()])

    def encode(self, text: str) -> TokenIds:
        if text.isascii():
            return self._byte_ids[np.frombuffer(text.encode(), np.uint8)]
        check_unicode(text)
        ids = self._ids[np.frombuffer(text.encode("utf-32-le"), np.uint32)]
        if (ids >= 0).all():
            return ids
        parts = [
            [id] if id >= 0 else self._byte_ids[list(character.encode())].tolist()
            for character, id in zip(text, ids.tolist(), strict=True)
        ]
        return np.array([id for part in parts for id in part], np.int32)

    def to_json(self) -> str:
        return json.dumps(asdict(_CharactersFile("characters", 1, list(self.characters))), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> "CharacterTokenizer":
        """Parse the output of `to_json`, which was read from the file `source`; another form raises a RunError."""
        try:
            characters = decode(_CharactersFile, parse_json(text)).characters
        except InvalidInputError as error:
            problem = str(error).removesuffix(".")
            raise RunError(f"{source} is not a tokenizer of characters ({problem}); train a new run") from error
        if len(set(characters)) != len(characters) or not all(c.isprintable() and not c.isascii() for c in characters):
            raise RunError(f"{source} lists a character twice, or one that cannot be shown; the run is damaged")
        return cls(characters)


class BPETokenizer(ByteTokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019)."""

    name = "bpe"

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        """Create a tokenizer of the bytes and the results of `merges`, which are written as in Hugging Face's files."""
        from tokenizers import Regex, models, pre_tokenizers  # models of words and characters do not need it
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        self.merges = tuple(merges)
        names = dict.fromkeys(sorted(BYTE_CHARACTERS))
        for left, right in merges:
            if left not in names or right not in names or left + right in names:
                raise ValueError(f"impossible merge of {left!r} and {right!r}")
            names[left + right] = None
        super().__init__([bytes(map(BYTE_CHARACTERS.__getitem__, name)) for name in names])
        ordered = [*names]
        ordered.insert(EOS_ID, EOS)
        vocabulary = {name: id for id, name in enumerate(ordered)}
        self._backend = HuggingFaceTokenizer(models.BPE(vocab=vocabulary, merges=list(self.merges)))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = pre_tokenizers.Split(Regex(CHUNK_PATTERN), "isolated")
        self._backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> "BPETokenizer":
        """Learn the merges of `texts`, fewer if they have fewer pairs that occur twice."""
        from tokenizers.trainers import BpeTrainer

        backend = cls([])._backend
        trainer = BpeTrainer(
            vocab_size=vocabulary_size - 1,  # without <eos>
            initial_alphabet=[*BYTE_CHARACTERS],
            max_token_length=MAX_LEARNED_TOKEN_LENGTH,
            min_frequency=2,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls([(left, right) for left, right in json.loads(backend.to_str())["model"]["merges"]])

    def encode(self, text: str) -> TokenIds:
        if not text.isascii():
            check_unicode(text)
        return np.array(self._backend.encode(text).ids, np.int32)

    def encode_lines(self, lines: Sequence[str]) -> list[TokenIds]:
        for line in lines:
            check_unicode(line)
        return [np.array(encoding.ids, np.int32) for encoding in self._backend.encode_batch_fast(list(lines))]

    def to_json(self) -> str:
        return self._backend.to_str()

    @classmethod
    def from_json(cls, text: str, source: str) -> "BPETokenizer":
        """Parse the output of `to_json`, which was read from the file `source`; damage raises a RunError."""
        try:
            content = json.loads(text)
            tokenizer = cls([(left, right) for left, right in content["model"]["merges"]])
            content["vocabulary"] = content["model"].get("vocab")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RunError(f"{source} is not a tokenizer of byte pairs ({error}); the run is damaged") from error
        expected = json.loads(tokenizer._backend.to_str())
        expected["vocabulary"] = expected["model"]["vocab"]
        for key in ("version", "normalizer", "pre_tokenizer", "vocabulary"):
            if content.get(key) != expected[key]:
                raise RunError(f"{source} is damaged, or of another program: its {key} differs; train a new run")
        return tokenizer
