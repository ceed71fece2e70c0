"""Tokenizer with one token per character, and one per byte for characters that the training text does not have."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from engine.data.tokenizers.base import EOS_ID, MAX_VOCABULARY_SIZE, TokenIds
from engine.data.tokenizers.bytes import ByteTokenizer
from engine.errors import InvalidInputError, RunError
from engine.storage.schema import decode_json


@dataclass(frozen=True)
class _CharactersFile:
    """Content of the tokenizer's file."""

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
        kept = [character for character, count in counts.items() if count >= min_count and not character.isascii()]
        return cls([character for character in kept if character.isprintable()])

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
            characters = decode_json(_CharactersFile, text).characters
        except InvalidInputError as error:
            raise RunError(
                f"{source} is not a tokenizer of characters that this version reads ({str(error).removesuffix('.')}); "
                "train a new run"
            ) from error
        if len(set(characters)) != len(characters) or not all(c.isprintable() and not c.isascii() for c in characters):
            raise RunError(f"{source} lists a character twice, or one that cannot be shown; the run is damaged")
        return cls(characters)
