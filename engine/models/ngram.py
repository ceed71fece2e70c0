"""Models that count: unigram, and interpolated modified Kneser-Ney. The lines an LSTM has to beat."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.arrays import count, pieces
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import CorpusError
from engine.models.base import LogProbs, Trace

MOST_TOKENS = 3_000_000
"""Of a training text that Kneser-Ney is counted on; that takes some 200 bytes a token."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Unigram:
    """Relative frequencies of the training text; one more token is shared out evenly, so that none is impossible."""

    def __init__(self, ids: Ids, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        counts = count(ids, len(vocabulary)) + 1.0 / len(vocabulary)
        self._log_probs: LogProbs = np.log(counts / counts.sum()).astype(np.float32)

    def start(self) -> None:
        """There is nothing to remember."""

    def advance(self, state: None, token: int) -> tuple[LogProbs, None]:
        """The same distribution whatever was read."""
        return self._log_probs, None

    def trace(self, ids: Ids) -> Trace:
        """A whole text at once."""
        return Trace(self._log_probs[ids].astype(np.float64), np.empty((len(ids), 0), np.float32))


@dataclass(frozen=True)
class _Order:
    """All n-grams of one length n, as a level of a trie.

    An n-gram's key is `context * vocabulary + word`, its context being the number of its first n-1 words
    on the level above; keys are sorted, so the continuations of a context stand together.
    """

    keys: Integers
    words: Integers
    discounted: Floats
    """Count less discount, over the context's total: the n-gram's own part of its probability."""
    backoff: Floats
    """For each context, the weight of the next shorter context's distribution."""


class KneserNey:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3).

    The highest order is discounted counts; each lower order counts in how many different contexts an
    n-gram was seen; what the discounts set free goes to the next lower order, and at last evenly to all words.
    The state is the last `order - 1` ids.
    """

    def __init__(self, ids: Ids, vocabulary: Vocabulary, order: int = 5) -> None:
        """Count the training text `ids` `[time]`.

        Raises:
            CorpusError: it is longer than `MOST_TOKENS`: its n-grams would take more memory than all else.
        """
        if len(ids) > MOST_TOKENS:
            raise CorpusError(
                f"Kneser-Ney is counted on {MOST_TOKENS:,} tokens of training text at most, "
                f"and these are {len(ids):,}; do without it"
            )
        self.vocabulary = vocabulary
        self.order = order
        self._size = len(vocabulary)
        text = np.concatenate([[EOS_ID], ids]).astype(np.int64)
        self._orders = _count(text, self._size, order)

    def start(self) -> tuple[int, ...]:
        """No word read yet."""
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        """The distribution after the last `order - 1` words, `token` included."""
        words = (*state, token)
        state = words[max(0, len(words) - self.order + 1) :]
        probs = np.full(self._size, 1.0 / self._size)
        for length in range(len(state) + 1):  # of the context, shortest first
            context = self._find(state[len(state) - length :])
            if context is None:
                break  # a longer context that ends in an unseen one is unseen too
            level = self._orders[length]
            first, last = np.searchsorted(level.keys, (context * self._size, (context + 1) * self._size))
            if first == last:
                break
            probs *= level.backoff[context]
            probs[level.words[first:last]] += level.discounted[first:last]
        return np.log(probs).astype(np.float32), state

    def trace(self, ids: Ids) -> Trace:
        """A whole text: of each distribution its token's probability alone, in the same sums as in `advance`."""
        text = np.concatenate([[EOS_ID], ids]).astype(np.int64)
        scores = np.empty(len(ids), np.float64)
        for piece in pieces(len(ids)):
            begin = max(0, piece.start - self.order)  # before its first token's context
            probs = self._probs(text[begin : piece.stop + 1])[piece.start - begin :]
            scores[piece] = np.log(probs).astype(np.float32)
        return Trace(scores, np.empty((len(ids), 0), np.float32))

    def _probs(self, text: Integers) -> Floats:
        """Probability `[time - 1]` of each token of `text` but the first."""
        before, targets = text[:-1], text[1:]
        probs = np.full(len(targets), 1.0 / self._size)
        contexts = np.zeros(len(targets), np.int64)  # numbers of those before each target, at first of no word
        for length, level in enumerate(self._orders):
            if not len(level.keys):
                break  # the training text is shorter than such an n-gram
            if length:
                all_but_the_last = np.append(-1 if length > 1 else 0, contexts[:-1])
                contexts = self._numbers(length - 1, all_but_the_last, before)
            seen = contexts >= 0
            probs[seen] *= level.backoff[contexts[seen]]
            numbers = self._numbers(length, contexts, targets)
            added = numbers >= 0
            probs[added] += level.discounted[numbers[added]]
        return probs

    def _numbers(self, level: int, contexts: Integers, words: Integers) -> Integers:
        """The numbers of many n-grams on a level, given those of all but their last words; -1 where never seen."""
        keys = self._orders[level].keys
        wanted = contexts * self._size + words  # less than any key where the context was never seen
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[places] == wanted, places, -1)

    def _find(self, words: tuple[int, ...]) -> int | None:
        """The number of an n-gram on its level of the trie, or None where it was never seen."""
        node = 0
        for level, word in zip(self._orders, words, strict=False):
            key = node * self._size + word
            place = int(np.searchsorted(level.keys, key))
            if place == len(level.keys) or level.keys[place] != key:
                return None
            node = place
        return node


def _count(text: Integers, size: int, order: int) -> list[_Order]:
    """Count the n-grams of all lengths up to `order`."""
    # node[i] is the number of the n-gram that ends at position i, on its level; before level 1 all share the root.
    node = np.zeros(len(text), dtype=np.int64)
    levels: list[tuple[Integers, Integers, Integers, Integers]] = []
    for n in range(1, order + 1):
        ends = np.arange(n - 1, len(text))
        keys, first, inverse, counts = np.unique(
            node[ends - 1] * size + text[ends], return_index=True, return_inverse=True, return_counts=True
        )
        node = np.empty_like(node)  # where none ends, at the first n-1 places, it is never looked at
        node[ends] = inverse
        levels.append((keys, counts, ends[first], node))

    orders, number_of_contexts = [], 1
    for n, (keys, counts, _, node) in enumerate(levels, start=1):
        if n < order:
            # How many different words stand before this n-gram: one for each (n+1)-gram that ends in it.
            longer_ends = levels[n][2]
            counts = np.bincount(node[longer_ends], minlength=len(keys))
        orders.append(_discount(keys, counts, number_of_contexts, size))
        number_of_contexts = len(keys)
    return orders


def _discount(keys: Integers, counts: Integers, number: int, size: int) -> _Order:
    contexts = keys // size
    removed = _discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(contexts, weights=counts, minlength=number)
    freed = np.bincount(contexts, weights=removed, minlength=number)
    # A context whose continuations all have count zero keeps nothing: all goes to the shorter context.
    divisors = np.maximum(totals, 1)
    backoff = np.where(totals > 0, freed / divisors, 1.0)
    discounted = (counts - removed) / divisors[contexts]
    return _Order(keys, keys % size, discounted, backoff)


def _discounts(counts: Integers) -> Floats:
    """What is taken from counts of 0, 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = (int(np.sum(counts == k)) for k in (1, 2, 3, 4))
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        estimates = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (estimates[1:] > 0).all():  # a discount of nothing would make words impossible
            return estimates
    return np.array([0.0, 0.5, 1.0, 1.5])  # too little or too odd a text to estimate them
