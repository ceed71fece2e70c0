"""The tokenizer, and the table between words and ids."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.errors import RunError

UNK, EOS = "<unk>", "<eos>"
UNK_ID, EOS_ID = 0, 1
MAX_WORDS = 1_000_000

Ids = npt.NDArray[np.int32]

Tokenizer = Literal["words", "spaces"]
"""words: the notebook's; spaces: whatever stands between white space, for text that was tokenized before."""

MAX_WORD_CHARACTERS = 1000

_NOT_A_WORD = re.compile(r"[^a-z0-9']+")
WORD = re.compile(r"[a-z0-9']+")
"""A word in lower-case text."""
_FILLED = re.compile(r"[^ ]+")


def tokenize(text: str, tokenizer: Tokenizer = "words") -> list[str]:
    """Split into lower-case words of letters, digits and apostrophes, as the notebook does, or at white space alone.

    What cannot be printed, as control characters, counts as white space.
    """
    if tokenizer == "words":
        return _NOT_A_WORD.sub(" ", text.lower()).split()
    return (text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)).split()


def spans(text: str, tokenizer: Tokenizer) -> Iterator[tuple[int, int, str]]:
    """Start, end and the word itself, for each word that `tokenize` makes of `text`."""
    if tokenizer == "spaces":
        spaced = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
        for match in _FILLED.finditer(spaced):
            yield match.start(), match.end(), match[0]
        return
    lower = text.lower()
    # A character may become two in lower case (İ): then each is looked up where it came from.
    origin = range(len(text)) if len(lower) == len(text) else [i for i, c in enumerate(text) for _ in c.lower()]
    for match in WORD.finditer(lower):
        yield origin[match.start()], origin[match.end() - 1] + 1, match[0]


@dataclass(frozen=True)
class Vocabulary:
    """`<unk>`, `<eos>`, then the known words; a word's id is its place."""

    words: tuple[str, ...]
    tokenizer: Tokenizer = "words"
    """How text becomes these words."""

    @classmethod
    def from_words(cls, words: Iterable[str], min_count: int, tokenizer: Tokenizer = "words") -> "Vocabulary":
        """Keep the words seen `min_count` times or more, in order of first appearance.

        A text that was prepared for language models has `<unk>` and `<eos>` in it already; they are those.
        """
        counts = Counter(words)
        kept = (word for word, count in counts.items() if count >= min_count and word not in (UNK, EOS))
        return cls((UNK, EOS, *kept), tokenizer)

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def tokenize(self, text: str) -> list[str]:
        """The words of `text`, known or not."""
        return tokenize(text, self.tokenizer)

    def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """The words of `text` and where they stand: start, end and the word itself."""
        return spans(text, self.tokenizer)

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
    def from_json(cls, text: str, source: str, tokenizer: Tokenizer = "words") -> "Vocabulary":
        """Read what `to_json` wrote; `tokenizer` stands in the run's configuration.

        Raises:
            RunError: not a list of distinct words that starts with `<unk>, <eos>`.
        """
        # Before it is parsed, which takes many times the memory; some words have a comma in them.
        if text.count(",") > 2 * MAX_WORDS:
            raise RunError(f"{source} is no vocabulary: it has more than {MAX_WORDS:,} words")
        try:
            words = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{source} is not JSON; the run is damaged") from error
        if not isinstance(words, list) or words[:2] != [UNK, EOS] or not 2 < len(words) <= MAX_WORDS:
            raise RunError(f"{source} is no vocabulary: a list that starts with {UNK}, {EOS} is expected")
        # Words go to the terminal as they are, so nothing but what the tokenizer can make gets in.
        if not all(isinstance(w, str) and _is_word(w, tokenizer) for w in words[2:]) or len(set(words)) != len(words):
            raise RunError(f"{source} holds entries that are no words, or the same word twice; the run is damaged")
        return cls(tuple(words), tokenizer)


def _is_word(text: str, tokenizer: Tokenizer) -> bool:
    if tokenizer == "words":
        return WORD.fullmatch(text) is not None
    return len(text) <= MAX_WORD_CHARACTERS and tokenize(text, tokenizer) == [text]
