"""Open vocabularies, whose tokens are sequences of bytes, so that they encode any text; and the one of characters."""

import codecs
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from engine.data.arrays import Int64Array
from engine.data.tokenizers.base import EOS, EOS_ID, MAX_VOCABULARY_SIZE, PieceDecoder, TokenIds, Tokenizer, TokenSpan
from engine.errors import InvalidInputError, RunError
from engine.storage.files import decode, parse_json

EOS_BYTES = b"\n"  # bytes that `<eos>` is decoded to


class ByteTokenizer(Tokenizer):
    """A tokenizer whose tokens are `<eos>` at id 1 and otherwise sequences of bytes, among them every single byte."""

    is_open = True
    unk_id = None

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """Create a tokenizer of the tokens `token_bytes`, without `<eos>`, which is inserted at its id."""
        self.token_bytes = (*token_bytes[:EOS_ID], EOS_BYTES, *token_bytes[EOS_ID:])
        names = [_token_name(token) for token in self.token_bytes]
        names[EOS_ID] = EOS
        self.tokens = tuple(names)

    @abstractmethod
    def _encode(self, text: str) -> TokenIds:
        """Return the token ids `[time]` of a text without lone surrogates."""

    def encode(self, text: str) -> TokenIds:
        check_unicode(text)
        return self._encode(text)

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

    def piece_decoder(self) -> PieceDecoder:
        return ByteDecoder(self.token_bytes)

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
        """Return `[vocabulary]`: whether the first (0) or last (-1) character of each token can be part of a word."""
        edges = np.fromiter((token[place] for token in self.token_bytes), np.uint8, len(self))
        result: npt.NDArray[np.bool_] = np.array([is_word_character(chr(byte)) for byte in range(256)])[edges]
        for id in np.flatnonzero(edges >= 128).tolist():  # part of a character beyond ASCII
            result[id] = is_word_character(self.token_bytes[id].decode(errors="replace")[place])
        return result

    def ids_with_prefix(self, prefix: bytes) -> npt.NDArray[np.intp]:
        """Return the ids of the tokens that begin with `prefix` and are longer."""
        longer = (id for id, token in enumerate(self.token_bytes) if token.startswith(prefix) and token != prefix)
        return np.array([id for id in longer if id != EOS_ID], np.intp)


class ByteDecoder:
    """Decoder that keeps the bytes of an incomplete character until the character is complete."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, id: int) -> str:
        return self._decoder.decode(self._token_bytes[id])

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


def check_unicode(text: str) -> None:
    """Raise an InvalidInputError if `text` has a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"character {error.start + 1} is a lone surrogate (U+{ord(text[error.start]):X})"
        raise InvalidInputError(f"the text is no Unicode: {problem}; remove it, or save the text as UTF-8") from error


def _token_name(token: bytes) -> str:
    r"""Return the text of a token; bytes that are no text, or would not be visible, as <0x..>."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        text = "\0"
    if text.isprintable() or (text.isspace() and not text.strip(" ")):
        return text
    return "".join(f"<0x{byte:02X}>" for byte in token)


def is_word_character(character: str) -> bool:
    """Return True for a letter, a digit or an apostrophe, and for a part of a character that may be one."""
    return character.isalnum() or character in ("'", "’", "\N{REPLACEMENT CHARACTER}")


def byte_characters() -> dict[str, int]:
    """Return the byte that each printable character stands for in byte-level vocabularies, as in GPT-2."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


@dataclass(frozen=True)
class _CharactersFile:
    type: Literal["characters"]
    version: Literal[1]
    characters: Annotated[list[Annotated[str, Meta(min_length=1, max_length=1)]], Meta(max_length=MAX_VOCABULARY_SIZE)]


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

    def _encode(self, text: str) -> TokenIds:
        if text.isascii():
            return self._byte_ids[np.frombuffer(text.encode(), np.uint8)]
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
