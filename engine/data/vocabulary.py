"""Tokenizers, and the vocabulary that maps tokens to ids."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from engine.data.arrays import Int32Array
from engine.errors import RunError

UNK, EOS = "<unk>", "<eos>"
UNK_ID, EOS_ID = 0, 1
MAX_VOCABULARY_SIZE = 1_000_000
MAX_TOKEN_CHARACTERS = 1000
"""Maximum length of a token in a vocabulary; a longer one is always `<unk>`."""

TokenIds = Int32Array
"""Token ids `[time]`."""

TokenizerName = Literal["words", "whitespace"]
"""words: lower-case words of letters, digits and apostrophes, as in the notebook; whitespace: split at white space."""

WORD_PATTERN = re.compile(r"[a-z0-9']+")
"""A word of the `words` tokenizer, in lower-case text."""
_NON_WORD_PATTERN = re.compile(r"[^a-z0-9']+")
_NON_SPACE_PATTERN = re.compile(r"[^ ]+")


def tokenize(text: str, tokenizer: TokenizerName = "words") -> list[str]:
    """Split `text` into tokens. Unprintable characters, such as control characters, count as white space."""
    if tokenizer == "words":
        return _NON_WORD_PATTERN.sub(" ", text.lower()).split()
    return _replace_unprintable(text).split()


def token_spans(text: str, tokenizer: TokenizerName) -> Iterator[tuple[int, int, str]]:
    """Yield the start, the end and the text of each token that `tokenize` returns."""
    if tokenizer == "whitespace":
        for match in _NON_SPACE_PATTERN.finditer(_replace_unprintable(text)):
            yield match.start(), match.end(), match[0]
        return
    lower = text.lower()
    # A character can become two in lower case (İ), so positions are mapped back to the original text.
    origin = range(len(text)) if len(lower) == len(text) else [i for i, c in enumerate(text) for _ in c.lower()]
    for match in WORD_PATTERN.finditer(lower):
        yield origin[match.start()], origin[match.end() - 1] + 1, match[0]


def skipped_spans(text: str, tokenizer: TokenizerName) -> Iterator[tuple[int, int, str]]:
    """Yield the start, the end and the text of each run of characters that carry meaning but are in no token.

    The `words` tokenizer skips letters, digits and symbols beyond ASCII. White space, unprintable characters and
    punctuation are left out on purpose and do not count. The `whitespace` tokenizer skips nothing.
    """
    if tokenizer == "whitespace" or text.isascii():
        return
    is_in_token = bytearray(len(text))
    for start, end, _ in token_spans(text, tokenizer):
        is_in_token[start:end] = b"\1" * (end - start)
    run_start = None
    for index, character in enumerate(f"{text} "):
        category = unicodedata.category(character)[0]
        is_run_character = (
            not character.isascii()
            and not is_in_token[index]
            and category not in "CPZ"  # control characters, punctuation, separators
            and not (category == "M" and run_start is None)  # an accent belongs to the token or mark before it
        )
        if is_run_character and run_start is None:
            run_start = index
        elif not is_run_character and run_start is not None:
            yield run_start, index, text[run_start:index]
            run_start = None


@dataclass(frozen=True)
class Vocabulary:
    """The known tokens: `<unk>`, `<eos>`, then all others. The id of a token is its index."""

    tokens: tuple[str, ...]
    tokenizer: TokenizerName = "words"

    @classmethod
    def from_tokens(cls, tokens: Iterable[str], min_count: int, tokenizer: TokenizerName = "words") -> "Vocabulary":
        """Build a vocabulary of the tokens with at least `min_count` occurrences, in order of first appearance.

        Tokens of over `MAX_TOKEN_CHARACTERS` are left out. `<unk>` and `<eos>` in the text, as in Penn Treebank, are
        the special tokens of the vocabulary.
        """
        counts = Counter(token for token in tokens if len(token) <= MAX_TOKEN_CHARACTERS)
        kept = (token for token, count in counts.items() if count >= min_count and token not in (UNK, EOS))
        return cls((UNK, EOS, *kept), tokenizer)

    @cached_property
    def token_to_id(self) -> dict[str, int]:
        """The id of each token."""
        return {token: id for id, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: str) -> bool:
        return token in self.token_to_id

    def tokenize(self, text: str) -> list[str]:
        """Split `text` into tokens, known or unknown."""
        return tokenize(text, self.tokenizer)

    def token_spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield the start, the end and the text of each token of `text`, known or unknown."""
        return token_spans(text, self.tokenizer)

    def unknown_spans(self, text: str) -> list[tuple[int, int, str]]:
        """Return the start, the end and the text of each part of `text` that the model does not know, in text order.

        These are tokens outside the vocabulary, and the runs of characters that the tokenizer skips; the two never
        overlap.
        """
        unknown = [span for span in self.token_spans(text) if span[2] not in self]
        return sorted([*unknown, *skipped_spans(text, self.tokenizer)])

    def encode(self, tokens: Sequence[str]) -> TokenIds:
        """Return the ids `[time]` of the tokens; unknown tokens become `<unk>`."""
        return np.fromiter((self.token_to_id.get(token, UNK_ID) for token in tokens), np.int32, len(tokens))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the tokens of `ids`, separated by spaces."""
        return " ".join(self.tokens[id] for id in ids)

    def to_json(self) -> str:
        """Return the tokens as a JSON list."""
        return json.dumps(self.tokens, indent=0)

    @classmethod
    def from_json(cls, text: str, source: str, tokenizer: TokenizerName = "words") -> "Vocabulary":
        """Parse the output of `to_json`, which was read from the file `source`.

        Raises:
            RunError: If `text` is not a list of distinct tokens that starts with `<unk>, <eos>`.
        """
        # Checked before parsing, which takes many times the memory. A token may contain a comma, hence the factor.
        if text.count(",") > 2 * MAX_VOCABULARY_SIZE:
            raise RunError(f"{source} is not a vocabulary: it has more than {MAX_VOCABULARY_SIZE:,} entries")
        try:
            tokens = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{source} is not JSON; the run is damaged") from error
        if not isinstance(tokens, list) or tokens[:2] != [UNK, EOS] or not 2 < len(tokens) <= MAX_VOCABULARY_SIZE:
            raise RunError(f"{source} is not a vocabulary: expected a list that starts with {UNK}, {EOS}")
        # Tokens are shown in the terminal unchanged, so anything that the tokenizer cannot produce is refused.
        if not all(isinstance(token, str) and _is_valid_token(token, tokenizer) for token in tokens[2:]):
            raise RunError(
                f"{source} contains entries that are not words of at most {MAX_TOKEN_CHARACTERS:,} characters; "
                "the run is damaged"
            )
        if len(set(tokens)) != len(tokens):
            raise RunError(f"{source} contains the same word twice; the run is damaged")
        return cls(tuple(tokens), tokenizer)


def _is_valid_token(text: str, tokenizer: TokenizerName) -> bool:
    if len(text) > MAX_TOKEN_CHARACTERS:
        return False
    if tokenizer == "words":
        return WORD_PATTERN.fullmatch(text) is not None
    return tokenize(text, tokenizer) == [text]


def _replace_unprintable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
