"""The tokenizer interface, and the special tokens that all tokenizers share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from engine.config import TokenizerName
from engine.data.arrays import Int32Array

UNK, EOS = "<unk>", "<eos>"
UNK_ID, EOS_ID = 0, 1
"""Ids of the special tokens. Id 1 is `<eos>` in every tokenizer; id 0 is an ordinary token of an open vocabulary."""
MAX_VOCABULARY_SIZE = 1_000_000
MAX_TOKEN_CHARACTERS = 1000

TokenIds = Int32Array  # token ids `[time]`


def is_open_vocabulary(name: TokenizerName) -> bool:
    """Return True if the tokenizers of this name encode any text as written."""
    return name in ("characters", "bpe", "pretrained")


class TokenSpan(NamedTuple):
    """A token of a text, and the characters that it was read from."""

    start: int
    end: int  # index after the last character. It equals `start` if the token is a later byte of the character before
    id: int


class UnknownSpan(NamedTuple):
    start: int
    end: int
    text: str


class PieceDecoder(Protocol):
    """Decoder of a stream of token ids into text, one piece of text per token."""

    def decode(self, id: int) -> str:
        """Return the text that the token adds: never a part of a character, so it can be empty."""

    def flush(self) -> str:
        """Return a replacement character if the stream ended inside a character, or else an empty text."""


class Tokenizer(ABC):
    """Conversion between text and the token ids of a model's vocabulary."""

    name: TokenizerName
    is_open: bool
    """True for an open vocabulary, which encodes any text as written. A closed one reads other words as `<unk>`."""
    unk_id: int | None  # None in an open vocabulary, which has no `<unk>`
    tokens: tuple[str, ...]  # text of each token, by id. Tokens of an open vocabulary include the space before a word
    reads_line_ends: bool = False
    """True if line breaks are ordinary characters and `<eos>` ends a whole text, as in models by others."""
    start_id: int = EOS_ID  # token that a text starts with: an `<eos>` before the first token is read as this one
    other_end_ids: tuple[int, ...] = ()
    """Tokens of models by others that also end a text. Models predict `<eos>` in their place."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and (self.name, self.tokens) == (other.name, other.tokens)

    def __hash__(self) -> int:
        return hash((self.name, len(self)))  # not of all tokens, which may be a million

    def __contains__(self, token: str) -> bool:
        return token in self.token_to_id

    @abstractmethod
    def encode(self, text: str) -> TokenIds:
        """Return the token ids `[time]` of a text, without `<eos>`."""

    def encode_lines(self, lines: Sequence[str]) -> list[TokenIds]:
        return [self.encode(line) for line in lines]

    @abstractmethod
    def spans(self, text: str) -> list[TokenSpan]:
        """Return the tokens of `encode` with the characters that they were read from."""

    def unknown_spans(self, text: str) -> list[UnknownSpan]:
        """Return the parts of `text` that the model does not know, in text order; none in an open vocabulary."""
        return []

    @abstractmethod
    def piece_decoder(self) -> PieceDecoder:
        """Return a decoder at the start of a text. `<eos>` is decoded as a line feed."""

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return the text that each token adds to the text before it. The pieces joined are the decoded text."""
        decoder = self.piece_decoder()
        pieces = [decoder.decode(id) for id in ids]
        if pieces:
            pieces[-1] += decoder.flush()
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
    def token_to_id(self) -> dict[str, int]:
        return {token: id for id, token in enumerate(self.tokens)}

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
