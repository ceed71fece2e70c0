"""A model of how the words of a closed vocabulary are spelled, which gives unknown words a probability."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.models.ngram import KneserNey

MAX_TRAINING_BYTES = 2_000_000
"""Maximum size of the words that a model learns from; later words of a vocabulary are rarer and change little."""
_END_BYTE = 0xFF
"""A byte that no UTF-8 text contains, in the place of the end of a word."""


class SpellingModel:
    """A probability for every possible word, from the spelling of known words (Mielke and Eisner 2019).

    A word is a sequence of UTF-8 bytes and an end, predicted by a Kneser-Ney model that has read each known word once.
    """

    def __init__(self, words: Iterable[str], order: int = 5) -> None:
        """Learn the spelling of different `words` with n-grams of up to `order` bytes."""
        self._order = order
        known = list(words)
        sizes = np.cumsum([len(word.encode(errors="surrogatepass")) + order - 1 for word in known])
        known = known[: np.searchsorted(sizes, MAX_TRAINING_BYTES)]
        # Kneser-Ney reads one end before the text by itself.
        self._model = KneserNey(self._join(known)[1:], CharacterTokenizer([]), order)
        known_prob = np.exp(self.log_probs(known)).sum()
        self._unknown_log_prob = float(np.log1p(-known_prob))

    def log_probs(self, words: Sequence[str]) -> Float64Array:
        """Return the natural-log probability `[words]` that any word is spelled like each of `words`."""
        ids = self._join(words)
        cumulative = np.cumsum(self._model.forward_sequence(ids).log_probs)
        ends = np.flatnonzero(ids == EOS_ID).reshape(-1, self._order - 1)
        return cumulative[ends[1:, 0]] - cumulative[ends[:-1, -1]]

    def unknown_log_probs(self, words: Sequence[str]) -> Float64Array:
        """Return the natural-log probability `[words]` that an unknown word is spelled like each of `words`."""
        return self.log_probs(words) - self._unknown_log_prob

    def _join(self, words: Sequence[str]) -> TokenIds:
        """Return the bytes of all words as ids, with enough ends in between that no word is the context of another."""
        padding = bytes([_END_BYTE] * (self._order - 1))
        joined = padding.join([b"", *(word.encode(errors="surrogatepass") for word in words), b""])
        ids = np.frombuffer(joined, np.uint8).astype(np.int32)
        return np.where(ids == _END_BYTE, EOS_ID, ids + (ids >= EOS_ID)).astype(np.int32)


@lru_cache(maxsize=4)
def spelling_model(tokenizer: Tokenizer) -> SpellingModel:
    """Return the spelling model of the words of a closed vocabulary. It is kept for the next call."""
    return SpellingModel(tokenizer.tokens[EOS_ID + 1 :])
