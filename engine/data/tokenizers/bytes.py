"""Common base of the open vocabularies, whose tokens are sequences of bytes, so that they encode any text."""

import codecs
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Int64Array
from engine.data.tokenizers.base import EOS, EOS_ID, PieceDecoder, TokenIds, Tokenizer, TokenSpan
from engine.errors import InvalidInputError

EOS_BYTES = b"\n"  # bytes that `<eos>` is decoded to


class ByteTokenizer(Tokenizer):
    """A tokenizer whose tokens are `<eos>` at id 1 and otherwise sequences of bytes, among them every single byte."""

    is_open = True

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """Create a tokenizer of the tokens `token_bytes`, without `<eos>`, which is inserted at its id."""
        self.token_bytes = (*token_bytes[:EOS_ID], EOS_BYTES, *token_bytes[EOS_ID:])
        names = [_token_name(token) for token in self.token_bytes]
        names[EOS_ID] = EOS
        self.tokens = tuple(names)

    @abstractmethod
    def _encode(self, text: str) -> TokenIds:
        """Return the token ids `[time]` of a text that is valid Unicode."""

    def encode(self, text: str) -> TokenIds:
        """Return the token ids `[time]` of a text as written; a lone surrogate raises an InvalidInputError."""
        check_unicode(text)
        return self._encode(text)

    def spans(self, text: str) -> list[TokenSpan]:
        """Return the tokens of `text` with their characters. A character belongs to the token of its first byte."""
        ids = self.encode(text)
        edges = [0, *self.end_offsets(text, ids).tolist()]
        return [TokenSpan(*span) for span in zip(edges[:-1], edges[1:], ids.tolist(), strict=True)]

    def end_offsets(self, text: str, ids: TokenIds) -> Int64Array:
        """Return the index `[tokens]` after the last character of each token, given the encoding `ids` of `text`."""
        is_first_byte = (np.frombuffer(text.encode(), np.uint8) & 0xC0) != 0x80
        num_characters = np.append(0, np.cumsum(is_first_byte))
        edges: Int64Array = num_characters[np.cumsum(self._num_bytes[ids])]
        return edges

    @cached_property
    def _num_bytes(self) -> Int64Array:
        return np.fromiter(map(len, self.token_bytes), np.int64, len(self))

    @cached_property
    def _joined_bytes(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(b"".join(self.token_bytes), np.uint8)

    @cached_property
    def line_end_ids(self) -> TokenIds:
        places = np.flatnonzero(self._joined_bytes == EOS_BYTES[0])
        has_line_feed = np.zeros(len(self), np.bool_)  # np.unique would import numpy.ma
        has_line_feed[np.searchsorted(np.cumsum(self._num_bytes), places, side="right")] = True
        return np.flatnonzero(has_line_feed).astype(np.int32)

    def piece_decoder(self) -> PieceDecoder:
        return _ByteDecoder(self.token_bytes)

    @cached_property
    def word_starts(self) -> npt.NDArray[np.bool_]:
        """`[vocabulary]`: False for tokens that start with a letter, a digit, an apostrophe or a later byte."""
        return ~self._has_word_character(0)

    @cached_property
    def word_ends(self) -> npt.NDArray[np.bool_]:
        """`[vocabulary]`: True for tokens that are complete whatever follows, such as punctuation and line ends."""
        is_space: npt.NDArray[np.bool_] = self._joined_bytes[np.cumsum(self._num_bytes) - 1] == ord(" ")
        return ~(self._has_word_character(-1) | is_space)

    def _has_word_character(self, place: int) -> npt.NDArray[np.bool_]:
        """Return `[vocabulary]`: whether the first (0) or last (-1) character of each token can be part of a word."""
        edges = np.fromiter((token[place] for token in self.token_bytes), np.uint8, len(self))
        result: npt.NDArray[np.bool_] = np.array([is_word_character(chr(byte)) for byte in range(256)])[edges]
        for id in np.flatnonzero(edges >= 128).tolist():  # part of a character beyond ASCII
            result[id] = is_word_character(self.token_bytes[id].decode(errors="replace")[place])
        return result

    def ids_with_prefix(self, prefix: bytes) -> npt.NDArray[np.intp]:
        """Return the ids of the tokens that begin with `prefix` and are longer."""
        starts = np.cumsum(self._num_bytes) - self._num_bytes
        ids = np.flatnonzero(self._num_bytes > len(prefix))
        for place, byte in enumerate(prefix):
            ids = ids[self._joined_bytes[starts[ids] + place] == byte]
        others: npt.NDArray[np.intp] = ids[ids != EOS_ID]
        return others


class _ByteDecoder:
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
        code_point = ord(text[error.start])
        # Python reads a byte that is not UTF-8 as such a surrogate.
        origin = f", read from the byte 0x{code_point - 0xDC00:X}" if 0xDC80 <= code_point <= 0xDCFF else ""
        raise InvalidInputError(
            f"the text is not valid Unicode: character {error.start + 1} is a lone surrogate "
            f"(U+{code_point:X}){origin}; remove it, or save the text as UTF-8"
        ) from error


def _token_name(token: bytes) -> str:
    r"""Return the text of a token; bytes that are no text, or would not be visible, as <0x..>."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        text = ""
    if text and (text.isprintable() or (text.isspace() and not text.strip(" "))):
        return text
    return "".join(f"<0x{byte:02X}>" for byte in token)


def is_word_character(character: str) -> bool:
    """Return True for a letter, a digit or an apostrophe, and for a part of a character that may be one."""
    return character.isalnum() or character in ("'", "’", "\N{REPLACEMENT CHARACTER}")
