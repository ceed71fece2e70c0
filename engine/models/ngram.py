"""Count-based models: unigram, and interpolated modified Kneser-Ney. They are the baselines of the LSTM."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float64Array, Int32Array, Int64Array, chunked_bincount, iter_slices
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.errors import CorpusError
from engine.models.base import LogProbs, SequenceOutput

MAX_KNESER_NEY_TOKENS = 3_000_000
"""Maximum tokens in the training text of Kneser-Ney, which takes about 200 bytes of memory per token."""


class Unigram:
    """Relative frequencies in the training text, smoothed with one extra token spread evenly over the vocabulary."""

    def __init__(self, ids: TokenIds, tokenizer: Tokenizer) -> None:
        """Count the training text `ids` `[time]`."""
        self.tokenizer = tokenizer
        counts = chunked_bincount(ids, len(tokenizer)) + 1.0 / len(tokenizer)
        self._log_probs: LogProbs = np.log(counts / counts.sum()).astype(np.float32)

    def start(self) -> None:
        """Return None: the model has no state."""

    def advance(self, state: None, token: int) -> tuple[LogProbs, None]:
        """Return the same distribution after every token."""
        return self._log_probs, None

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Score a whole text at once; the hidden vectors are empty."""
        yield SequenceOutput(self._log_probs[ids].astype(np.float64), np.empty((len(ids), 0), np.float32))


@dataclass(frozen=True)
class BackoffLevel:
    """Part of one context length in the probability of a token."""

    context: tuple[int, ...]
    """Ids of the tokens before; () for the level without context."""
    context_count: int
    """Sum of the counts of all tokens after this context; 0 for an unseen context."""
    count: int
    """Count of the token after this context."""
    counts_tokens_before: bool
    """False if an n-gram counts as often as it occurs; True if it counts the different tokens seen before it."""
    discounted_prob: float
    """(count - discount) / context_count; 0 for an unseen token or context."""
    backoff_weight: float
    """Weight of the next shorter context's probability; 1 for an unseen context."""


@dataclass(frozen=True)
class Backoff:
    """Probability of a token as the sum of the parts of its contexts."""

    levels: tuple[BackoffLevel, ...]
    """One level per context length, the longest context first."""
    uniform_prob: float
    """Probability at the end of the chain, the same for every token of the vocabulary."""

    @property
    def parts(self) -> tuple[float, ...]:
        """Part of each level in the probability, and last the part of the uniform distribution."""
        parts, weight = [], 1.0
        for level in self.levels:
            parts.append(weight * level.discounted_prob)
            weight *= level.backoff_weight
        return (*parts, weight * self.uniform_prob)

    @property
    def prob(self) -> float:
        """Probability of the token."""
        return sum(self.parts)


@dataclass(frozen=True)
class _NgramLevel:
    """All n-grams of one length n, as one level of a trie; arrays are `[ngrams]` unless stated otherwise.

    The key of an n-gram is `context * vocabulary_size + last_token`, where `context` is the position of its first n - 1
    tokens among the keys of the level above. Keys are sorted, so the continuations of a context are adjacent.
    """

    keys: Int64Array
    last_tokens: Int64Array
    counts: Int32Array
    """Occurrences on the highest level, and numbers of different tokens before the n-gram on the others."""
    discounted_probs: Float64Array
    """(count - discount) / total count of the context `[ngrams]`: the probability that needs no backoff."""
    backoff_weights: Float64Array
    """Weight of the next shorter context's distribution `[contexts]`."""


class KneserNey:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3).

    The highest order uses discounted counts. Each lower order counts the different contexts an n-gram was seen in.
    The discounted probability mass goes to the next lower order, and from the lowest order evenly to all tokens.
    A state consists of the last `order - 1` token ids.
    """

    def __init__(self, ids: TokenIds, tokenizer: Tokenizer, order: int = 5) -> None:
        """Count the training text `ids` `[time]`; more than `MAX_KNESER_NEY_TOKENS` raise a CorpusError."""
        if len(ids) > MAX_KNESER_NEY_TOKENS:
            raise CorpusError(
                f"the training text has {len(ids):,} tokens; Kneser-Ney counts at most {MAX_KNESER_NEY_TOKENS:,}, "
                "so leave it out"
            )
        self.tokenizer = tokenizer
        self.order = order
        self._vocabulary_size = len(tokenizer)
        text = np.concatenate([[EOS_ID], ids]).astype(np.int64)
        self._levels = _count_ngrams(text, self._vocabulary_size, order)

    def start(self) -> tuple[int, ...]:
        """Return the state before any token."""
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        """Read `token`; return the distribution after the last `order - 1` tokens and the new state."""
        tokens = (*state, token)
        state = tokens[max(0, len(tokens) - self.order + 1) :]
        probs = np.full(self._vocabulary_size, 1.0 / self._vocabulary_size)
        for length in range(len(state) + 1):  # of the context, shortest first
            context = self._lookup(state[len(state) - length :])
            if context is None:
                break  # longer contexts end in this one, so they are unseen too
            level = self._levels[length]
            first_key = context * self._vocabulary_size
            first, last = np.searchsorted(level.keys, (first_key, first_key + self._vocabulary_size))
            if first == last:
                break
            probs *= level.backoff_weights[context]
            probs[level.last_tokens[first:last]] += level.discounted_probs[first:last]
        return np.log(probs).astype(np.float32), state

    def explain_backoff(self, state: tuple[int, ...], token: int) -> Backoff:
        """Return the parts of the probability that `advance` gives to `token` together with `state`.

        Args:
            state: The new state that `advance` returned, which is the longest context.
            token: The token to predict.
        """
        contexts = [state[start:] for start in range(len(state) + 1)]
        levels = tuple(self._explain_level(context, token) for context in contexts)
        return Backoff(levels, 1.0 / self._vocabulary_size)

    def _explain_level(self, context: tuple[int, ...], token: int) -> BackoffLevel:
        level, node = self._levels[len(context)], self._lookup(context)
        counts_tokens_before = len(context) + 1 < self.order
        first = last = position = 0
        if node is not None:
            first_key = node * self._vocabulary_size
            wanted = (first_key, first_key + self._vocabulary_size, first_key + token)
            first, last, position = np.searchsorted(level.keys, wanted).tolist()
        if node is None or first == last:
            return BackoffLevel(context, 0, 0, counts_tokens_before, 0.0, 1.0)
        is_seen = position < last and level.last_tokens[position] == token
        return BackoffLevel(
            context,
            context_count=int(level.counts[first:last].sum()),
            count=int(level.counts[position]) if is_seen else 0,
            counts_tokens_before=counts_tokens_before,
            discounted_prob=float(level.discounted_probs[position]) if is_seen else 0.0,
            backoff_weight=float(level.backoff_weights[node]),
        )

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Score a whole text with the same sums as `advance`; the hidden vectors are empty."""
        text = np.concatenate([[EOS_ID], ids]).astype(np.int64)
        for chunk in iter_slices(len(ids)):
            start = max(0, chunk.start - self.order)  # before the context of the chunk's first token
            probs = self._token_probs(text[start : chunk.stop + 1])[chunk.start - start :]
            log_probs = np.log(probs).astype(np.float32).astype(np.float64)
            yield SequenceOutput(log_probs, np.empty((len(probs), 0), np.float32))

    def _token_probs(self, ids: Int64Array) -> Float64Array:
        """Return the probability `[time - 1]` of each token in `ids` `[time]` after the first."""
        previous, targets = ids[:-1], ids[1:]
        probs = np.full(len(targets), 1.0 / self._vocabulary_size)
        contexts = np.zeros(len(targets), np.int64)  # index of the context before each target; at first the empty one
        for length, level in enumerate(self._levels):
            if not len(level.keys):
                break  # the training text is shorter than the n-grams of this level
            if length:
                shorter_contexts = np.append(-1 if length > 1 else 0, contexts[:-1])
                contexts = self._lookup_batch(length - 1, shorter_contexts, previous)
            seen = contexts >= 0
            probs[seen] *= level.backoff_weights[contexts[seen]]
            ngrams = self._lookup_batch(length, contexts, targets)
            seen = ngrams >= 0
            probs[seen] += level.discounted_probs[ngrams[seen]]
        return probs

    def _lookup_batch(self, level: int, contexts: Int64Array, last_tokens: Int64Array) -> Int64Array:
        """Return the indices of n-grams on a level, given their contexts and last tokens; -1 for unseen n-grams."""
        keys = self._levels[level].keys
        wanted = contexts * self._vocabulary_size + last_tokens  # less than every key if the context is unseen (-1)
        positions = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[positions] == wanted, positions, -1)

    def _lookup(self, ngram: tuple[int, ...]) -> int | None:
        """Return the index of an n-gram on its level of the trie; None if the n-gram is unseen."""
        node = 0
        for level, token in zip(self._levels, ngram, strict=False):
            key = node * self._vocabulary_size + token
            position = int(np.searchsorted(level.keys, key))
            if position == len(level.keys) or level.keys[position] != key:
                return None
            node = position
        return node


def _count_ngrams(ids: Int64Array, vocabulary_size: int, order: int) -> list[_NgramLevel]:
    """Count the n-grams of all lengths up to `order`."""
    # node[i] is the index, on its level, of the n-gram that ends at position i. The empty n-gram is the root, 0.
    node = np.zeros(len(ids), dtype=np.int64)
    counted: list[tuple[Int64Array, Int64Array, Int64Array, Int64Array]] = []
    for n in range(1, order + 1):
        ends = np.arange(n - 1, len(ids))
        keys, first, inverse, counts = np.unique(
            node[ends - 1] * vocabulary_size + ids[ends], return_index=True, return_inverse=True, return_counts=True
        )
        node = np.empty_like(node)  # the first n - 1 elements stay undefined and are never read
        node[ends] = inverse
        counted.append((keys, counts, ends[first], node))

    levels, num_contexts = [], 1
    for n, (keys, counts, _, node) in enumerate(counted, start=1):
        if n < order:
            # Replace the count by the number of different tokens before the n-gram: one per (n+1)-gram that ends in it.
            longer_ends = counted[n][2]
            counts = np.bincount(node[longer_ends], minlength=len(keys))
        levels.append(_build_level(keys, counts, num_contexts, vocabulary_size))
        num_contexts = len(keys)
    return levels


def _build_level(keys: Int64Array, counts: Int64Array, num_contexts: int, vocabulary_size: int) -> _NgramLevel:
    contexts = keys // vocabulary_size
    discounts = _estimate_discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(contexts, weights=counts, minlength=num_contexts)
    discounted_mass = np.bincount(contexts, weights=discounts, minlength=num_contexts)
    # If all continuations of a context have count zero, the shorter context gets the whole probability.
    divisors = np.maximum(totals, 1)
    return _NgramLevel(
        keys=keys,
        last_tokens=keys % vocabulary_size,
        counts=counts.astype(np.int32),
        discounted_probs=(counts - discounts) / divisors[contexts],
        backoff_weights=np.where(totals > 0, discounted_mass / divisors, 1.0),
    )


def _estimate_discounts(counts: Int64Array) -> Float64Array:
    """Return the discounts of counts 0, 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = (int(np.sum(counts == k)) for k in (1, 2, 3, 4))
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        estimates = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (estimates[1:] > 0).all():  # a discount of zero would make unseen tokens impossible
            return estimates
    return np.array([0.0, 0.5, 1.0, 1.5])  # the text is too short or too irregular to estimate discounts
