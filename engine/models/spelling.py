"""Models of what known words do not say: the letters of other words, capitals, punctuation and spaces."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.data.tokenizers.bytes import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizerName, word_spans
from engine.models.base import score_sequence
from engine.models.ngram import KneserNey

MAX_TRAINING_BYTES = 2_000_000  # of the words that a model learns from; later words are rarer and change little
NUM_BYTE_SYMBOLS = 257  # the values of a byte, and the end of a string
END_BYTE = 0xFF  # a byte that no UTF-8 text contains, in the place of the end of a word

# Characters between words or the form of one, and its contexts from the most general one on.
Choice = tuple[str, tuple[Hashable, ...]]


class SpellingModel:
    """Probability of every possible word: Kneser-Ney on the bytes of known ones (Mielke and Eisner 2019)."""

    def __init__(self, words: Iterable[str], order: int = 5) -> None:
        self._order = order
        known = list(words)
        sizes = np.cumsum([len(word.encode(errors="surrogatepass")) + order - 1 for word in known])
        known = known[: np.searchsorted(sizes, MAX_TRAINING_BYTES)]
        # Kneser-Ney reads one end before the text by itself.
        self._model = KneserNey(self._join(known)[1:], CharacterTokenizer([]), order)
        self._unknown_log_prob = float(np.log1p(-np.exp(self.log_probs(known)).sum()))

    def log_probs(self, words: Sequence[str]) -> Float64Array:
        """Return the natural-log probability `[words]` that a word, known or not, is spelled like each of `words`."""
        ids = self._join(words)
        cumulative = np.cumsum(score_sequence(self._model, ids))
        ends = np.flatnonzero(ids == EOS_ID).reshape(-1, self._order - 1)
        return cumulative[ends[1:, 0]] - cumulative[ends[:-1, -1]]

    def unknown_log_probs(self, words: Sequence[str]) -> Float64Array:
        """Return the natural-log probability `[words]` that an unknown word is spelled like each of `words`."""
        return self.log_probs(words) - self._unknown_log_prob

    def _join(self, words: Sequence[str]) -> TokenIds:
        # As ids, with enough ends in between that no word is the context of another.
        padding = bytes([END_BYTE] * (self._order - 1))
        joined = padding.join([b"", *(word.encode(errors="surrogatepass") for word in words), b""])
        ids = np.frombuffer(joined, np.uint8).astype(np.int32)
        return np.where(ids == END_BYTE, EOS_ID, ids + (ids >= EOS_ID)).astype(np.int32)


@lru_cache(maxsize=4)
def spelling_model(tokenizer: Tokenizer) -> SpellingModel:
    """Return the spelling model of the words of a closed vocabulary. It is kept for the next call."""
    return SpellingModel(tokenizer.tokens[EOS_ID + 1 :])


class OrthographyModel:
    """Probability of a line as it is written, given its words as a tokenizer of words reads them.

    Counts of the training text are interpolated from the general to the specific context (Witten and Bell 1991); a
    string that is new has 257 equally likely symbols per byte.
    """

    def __init__(self, lines: Iterable[str], tokenizer_name: WordTokenizerName) -> None:
        self._tokenizer_name = tokenizer_name
        self._counts: dict[Hashable, Counter[str]] = {}
        for line in lines:
            for value, contexts in self._choices(line):
                for context in contexts:
                    self._counts.setdefault(context, Counter())[value] += 1
        self._totals = {context: counts.total() for context, counts in self._counts.items()}

    def bits(self, line: str) -> float:
        """Return the bits that a line needs, given its words."""
        return -sum(math.log2(self.prob(*choice)) for choice in self._choices(line))

    def prob(self, value: str, contexts: Sequence[Hashable]) -> float:
        # Each context comes after more general ones.
        prob = math.exp(-math.log(NUM_BYTE_SYMBOLS) * min(100, len(value.encode(errors="surrogatepass")) + 1))
        for context in contexts:
            if counts := self._counts.get(context):
                prob = (counts[value] + len(counts) * prob) / (self._totals[context] + len(counts))
        return prob

    def _choices(self, line: str) -> Iterator[Choice]:
        previous, position = None, 0
        for start, end, word in word_spans(line, self._tokenizer_name):
            separator, written = line[position:start], line[start:end]
            yield separator, _separator_contexts(previous, word)
            starts_sentence = previous is None or any(mark in separator for mark in ".!?…")
            forms = {word.capitalize(): "Capital", word.upper(): "UPPER", word: "lower"}
            contexts = (("form",), ("form", starts_sentence), ("form", starts_sentence, word))
            yield forms.get(written, written), contexts
            previous, position = word, end
        yield line[position:], _separator_contexts(previous, None)


def _separator_contexts(previous: str | None, following: str | None) -> tuple[Hashable, ...]:
    return (
        ("separator",),
        ("separator", previous is None, following is None),
        ("before", following),
        ("after", previous, following is None),
        ("between", previous, following),
    )
