"""Tokenizers with a closed vocabulary of words; other words are read as `<unk>`."""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from engine.data.tokenizers import base
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, UNK_ID, TokenIds, Tokenizer, TokenSpan, UnknownSpan
from engine.errors import RunError

WordTokenizerName = Literal["words", "whitespace"]

PunctuationIds = npt.NDArray[np.uint8]

WORD_PATTERN = re.compile(r"[a-z0-9']+")  # a word of the `words` tokenizer, in lower-case text
_NON_WORD_PATTERN = re.compile(r"[^a-z0-9']+")


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

    is_open = False
    unk_id = UNK_ID
    name: WordTokenizerName

    def __init__(self, tokens: Sequence[str], name: WordTokenizerName = "words") -> None:
        self.tokens = tuple(tokens)
        self.name = name

    def encode(self, text: str) -> TokenIds:
        words = split_words(text, self.name)
        return np.fromiter((self.token_to_id.get(word, UNK_ID) for word in words), np.int32, len(words))

    def spans(self, text: str) -> list[TokenSpan]:
        known = self.token_to_id
        return [TokenSpan(start, end, known.get(word, UNK_ID)) for start, end, word in word_spans(text, self.name)]

    def unknown_spans(self, text: str) -> list[UnknownSpan]:
        unknown = [UnknownSpan(*span) for span in word_spans(text, self.name) if span[2] not in self]
        return sorted([*unknown, *skipped_spans(text, self.name)])

    def piece_decoder(self) -> "_WordDecoder":
        return _WordDecoder(self.tokens)

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
        max_size, max_length = base.MAX_VOCABULARY_SIZE, base.MAX_TOKEN_CHARACTERS
        are_words = all(len(word) <= max_length and split_words(word, name) == [word] for word in tokens[2:])
        if tokens[:2] != [UNK, EOS] or not 2 < len(set(tokens)) == len(tokens) <= max_size or not are_words:
            raise RunError(
                f"{source} is not a vocabulary: {UNK}, {EOS} and different words of at most {max_length:,} "
                f"characters, at most {max_size:,} entries; the run is damaged"
            )
        return cls(tokens, name)


class _WordDecoder:
    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._space = ""

    def decode(self, id: int) -> str:
        if id == EOS_ID:
            self._space = ""
            return "\n"
        piece, self._space = self._space + self._tokens[id], " "
        return piece

    def flush(self) -> str:
        return ""
