"""The tokenizer, and the table between words and ids."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine.errors import RunError

UNK, EOS = "<unk>", "<eos>"
UNK_ID, EOS_ID = 0, 1
MAX_WORDS = 1_000_000

Ids = npt.NDArray[np.int32]

_NOT_A_WORD = re.compile(r"[^a-z0-9']+")
_WORD = re.compile(r"[a-z0-9']+")


def tokenize(text: str) -> list[str]:
    """Split into lower-case words of letters, digits and apostrophes, as the notebook does."""
    return _NOT_A_WORD.sub(" ", text.lower()).split()


@dataclass(frozen=True)
class Vocabulary:
    """`<unk>`, `<eos>`, then the known words; a word's id is its place."""

    words: tuple[str, ...]

    @classmethod
    def from_words(cls, words: Iterable[str], min_count: int) -> "Vocabulary":
        """Keep what is seen `min_count` times or more, in order of first appearance."""
        counts = Counter(words)
        return cls((UNK, EOS, *(word for word, count in counts.items() if count >= min_count)))

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def encode(self, words: Sequence[str]) -> Ids:
        """Ids `[time]` of the words; unknown ones become `<unk>`."""
        return np.fromiter((self.index.get(w, UNK_ID) for w in words), np.int32, len(words))

    def decode(self, ids: Iterable[int]) -> str:
        """The words of `ids`, separated by spaces."""
        return " ".join(self.words[i] for i in ids)

    def to_json(self) -> str:
        """The words as a JSON list."""
        return json.dumps(self.words, indent=0)

    @classmethod
    def from_json(cls, text: str, source: str) -> "Vocabulary":
        """Read what `to_json` wrote.

        Raises:
            RunError: not a list of distinct words that starts with `<unk>, <eos>`.
        """
        try:
            words = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{source} is not JSON; the run is damaged") from error
        if not isinstance(words, list) or words[:2] != [UNK, EOS] or not 2 < len(words) <= MAX_WORDS:
            raise RunError(f"{source} is no vocabulary: a list that starts with {UNK}, {EOS} is expected")
        # Words go to the terminal as they are, so nothing but the tokenizer's own alphabet gets in.
        if not all(isinstance(w, str) and _WORD.fullmatch(w) for w in words[2:]) or len(set(words)) != len(words):
            raise RunError(f"{source} holds entries that are no words, or the same word twice; the run is damaged")
        return cls(tuple(words))
