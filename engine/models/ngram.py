"""Count-based models: unigram, and interpolated modified Kneser-Ney. They are the baselines of the LSTM."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Float64Array, Int32Array, Int64Array, chunked_bincount, iter_slices
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.errors import CorpusError
from engine.models.base import LogProbs, SequenceOutput

MAX_KNESER_NEY_TOKENS = 3_000_000  # in the training text: a token takes about 200 bytes of memory


class Unigram:
    """Relative frequencies in the training text, smoothed with one extra token spread evenly over the vocabulary."""

    def __init__(self, ids: TokenIds, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        counts = chunked_bincount(ids, len(tokenizer)) + 1.0 / len(tokenizer)
        self._log_probs: LogProbs = np.log(counts / counts.sum()).astype(np.float32)

    def start(self) -> None:
        return None

    def advance(self, state: None, token: int) -> tuple[LogProbs, None]:
        return self._log_probs, None

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        yield SequenceOutput(self._log_probs[ids].astype(np.float64), np.empty((len(ids), 0), np.float32))


@dataclass(frozen=True)
class BackoffLevel:
    """Part of one context length in the probability of a token."""

    context: tuple[int, ...]  # ids of the tokens before
    context_count: int  # sum of the counts of all tokens after this context; 0 for an unseen context
    count: int  # of the token after this context
    counts_tokens_before: bool  # True if an n-gram counts the different tokens seen before it; False: as it occurs
    discounted_prob: float  # (count - discount) / context_count; 0 for an unseen token or context
    backoff_weight: float  # of the next shorter context's probability; 1 for an unseen context


@dataclass(frozen=True)
class Backoff:
    """Probability of a token as the sum of the parts of its contexts, the longest context first."""

    levels: tuple[BackoffLevel, ...]
    uniform_prob: float  # at the end of the chain, the same for every token of the vocabulary

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
        return sum(self.parts)


class _Level(NamedTuple):
    # All n-grams of one length n, a level of a trie; arrays are `[ngrams]`. The key of an n-gram is `context *
    # vocabulary_size + last_token`, where `context` is the position of its first n - 1 tokens on the level above. Keys
    # are sorted, so the continuations of a context are adjacent.
    keys: Int64Array
    last_tokens: Int64Array
    counts: Int32Array  # occurrences on the highest level, and different tokens before the n-gram on the others
    discounted_probs: Float64Array  # (count - discount) / total count of the context: needs no backoff
    backoff_weights: Float64Array  # weight `[contexts]` of the next shorter context's distribution


class KneserNey:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3); a state is the last `order - 1` tokens."""

    def __init__(self, ids: TokenIds, tokenizer: Tokenizer, order: int = 5) -> None:
        if len(ids) > MAX_KNESER_NEY_TOKENS:
            raise CorpusError(
                f"the training text has {len(ids):,} tokens; Kneser-Ney counts at most {MAX_KNESER_NEY_TOKENS:,}, "
                "so leave it out"
            )
        self.tokenizer, self.order, self._size = tokenizer, order, len(tokenizer)
        self._levels = _count_ngrams(np.concatenate([[EOS_ID], ids]).astype(np.int64), self._size, order)

    def start(self) -> tuple[int, ...]:
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        tokens = (*state, token)
        state = tokens[max(0, len(tokens) - self.order + 1) :]
        probs = np.full(self._size, 1.0 / self._size)
        for length in range(len(state) + 1):  # of the context, shortest first
            found = self._find(state[len(state) - length :])
            if found is None:
                break  # longer contexts end in this one, so they are unseen too
            level, (context, first, last) = self._levels[length], found
            probs *= level.backoff_weights[context]
            probs[level.last_tokens[first:last]] += level.discounted_probs[first:last]
        return np.log(probs).astype(np.float32), state

    def explain_backoff(self, state: tuple[int, ...], token: int) -> Backoff:
        """Return the parts of the probability that `advance` gives to `token` together with the new state `state`."""
        levels = []
        for start in range(len(state) + 1):
            context, level = state[start:], self._levels[len(state) - start]
            counts_tokens_before, found = len(context) + 1 < self.order, self._find(context)
            if found is None:
                levels.append(BackoffLevel(context, 0, 0, counts_tokens_before, 0.0, 1.0))
                continue
            node, first, last = found
            position = first + int(np.searchsorted(level.last_tokens[first:last], token))
            is_seen = position < last and level.last_tokens[position] == token
            count, prob = (level.counts[position], level.discounted_probs[position]) if is_seen else (0, 0)
            total, weight = int(level.counts[first:last].sum()), float(level.backoff_weights[node])
            levels.append(BackoffLevel(context, total, int(count), counts_tokens_before, float(prob), weight))
        return Backoff(tuple(levels), 1.0 / self._size)

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        text = np.concatenate([[EOS_ID], ids]).astype(np.int64)
        for chunk in iter_slices(len(ids)):
            start = max(0, chunk.start - self.order)  # before the context of the chunk's first token
            probs = self._token_probs(text[start : chunk.stop + 1])[chunk.start - start :]
            log_probs = np.log(probs).astype(np.float32).astype(np.float64)
            yield SequenceOutput(log_probs, np.empty((len(probs), 0), np.float32))

    def _token_probs(self, ids: Int64Array) -> Float64Array:
        # Of each token in `ids` `[time]` after the first, as `advance` does.
        previous, targets = ids[:-1], ids[1:]
        probs = np.full(len(targets), 1.0 / self._size)
        contexts = np.zeros(len(targets), np.int64)  # index of the context before each target; at first the empty one

        def look_up(level: _Level, contexts: Int64Array, last_tokens: Int64Array) -> Int64Array:
            wanted = contexts * self._size + last_tokens  # less than every key if the context is unseen (-1)
            positions = np.minimum(np.searchsorted(level.keys, wanted), len(level.keys) - 1)
            return np.where(level.keys[positions] == wanted, positions, -1)

        for length, level in enumerate(self._levels):
            if not len(level.keys):
                break  # the training text is shorter than the n-grams of this level
            if length:
                shorter_contexts = np.append(-1 if length > 1 else 0, contexts[:-1])
                contexts = look_up(self._levels[length - 1], shorter_contexts, previous)
            seen = contexts >= 0
            probs[seen] *= level.backoff_weights[contexts[seen]]
            ngrams = look_up(level, contexts, targets)
            seen = ngrams >= 0
            probs[seen] += level.discounted_probs[ngrams[seen]]
        return probs

    def _find(self, context: tuple[int, ...]) -> tuple[int, int, int] | None:
        # The index of a context, and the first and the end of its continuations on the next level, if any.
        node = 0
        for level, token in zip(self._levels, context, strict=False):
            key = node * self._size + token
            node = int(np.searchsorted(level.keys, key))
            if node == len(level.keys) or level.keys[node] != key:
                return None
        first_key = node * self._size
        first, end = np.searchsorted(self._levels[len(context)].keys, (first_key, first_key + self._size)).tolist()
        return None if first == end else (node, first, end)


def _count_ngrams(ids: Int64Array, vocabulary_size: int, order: int) -> list[_Level]:
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
        contexts = keys // vocabulary_size
        discounts = _estimate_discounts(counts)[np.minimum(counts, 3)]
        totals = np.bincount(contexts, weights=counts, minlength=num_contexts)
        discounted_mass = np.bincount(contexts, weights=discounts, minlength=num_contexts)
        divisors = np.maximum(totals, 1)
        # If all continuations of a context have count zero, the shorter context gets the whole probability.
        backoff_weights = np.where(totals > 0, discounted_mass / divisors, 1.0)
        discounted_probs = (counts - discounts) / divisors[contexts]
        levels.append(_Level(keys, keys % vocabulary_size, counts.astype(np.int32), discounted_probs, backoff_weights))
        num_contexts = len(keys)
    return levels


def _estimate_discounts(counts: Int64Array) -> Float64Array:
    # Of counts 0, 1, 2, and 3 or more (Chen and Goodman 1999, equation 26).
    n1, n2, n3, n4 = (int(np.sum(counts == k)) for k in (1, 2, 3, 4))
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        estimates = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (estimates[1:] > 0).all():  # a discount of zero would make unseen tokens impossible
            return estimates
    return np.array([0.0, 0.5, 1.0, 1.5])  # the text is too short or too irregular to estimate discounts
