"""Models that count: unigram and Kneser-Ney, the baselines of the LSTM, and models of what known words do not say."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.data.arrays import CHUNK_SIZE, Float64Array, Int32Array, Int64Array, chunked_bincount
from engine.data.tokenizers import EOS_ID, TokenIds, Tokenizer, WordTokenizer, WordTokenizerName, word_spans
from engine.errors import CorpusError
from engine.models.base import LogProbs, SequenceOutput, score_sequence

MAX_KNESER_NEY_TOKENS = 3_000_000  # in the training text: a token takes about 200 bytes of memory
MAX_SPELLING_BYTES = 2_000_000  # of the words that a spelling model learns from; later words change little
NUM_BYTE_SYMBOLS = 257  # the values of a byte, and the end of a string
END_BYTE = 0xFF  # a byte that no UTF-8 text contains, in the place of the end of a word


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
    count: int  # of the token after this context: as it occurs, or before the longest context tokens before the n-gram
    discounted_prob: float  # (count - discount) / context_count; 0 for an unseen token or context
    backoff_weight: float  # of the next shorter context's probability; 1 for an unseen context
    part: float  # `discounted_prob` times the backoff weights of all longer contexts


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
        text = np.concatenate([[EOS_ID], ids]).astype(np.int64)
        # node[i] is the index, on its level, of the n-gram that ends at position i. The empty n-gram is the root, 0.
        node = np.zeros(len(text), dtype=np.int64)
        counted: list[tuple[Int64Array, Int64Array, Int64Array, Int64Array]] = []
        for n in range(1, order + 1):
            ends = np.arange(n - 1, len(text))
            keys, first, inverse, counts = np.unique(
                node[ends - 1] * self._size + text[ends], return_index=True, return_inverse=True, return_counts=True
            )
            node = np.empty_like(node)  # the first n - 1 elements stay undefined and are never read
            node[ends] = inverse
            counted.append((keys, counts, ends[first], node))
        self._levels: list[_Level] = []
        num_contexts = 1
        for n, (keys, counts, _, node) in enumerate(counted, start=1):
            if n < order:
                # The number of different tokens before the n-gram: one per (n+1)-gram that ends in it.
                counts = np.bincount(node[counted[n][2]], minlength=len(keys))
            contexts = keys // self._size
            # Of counts 0, 1, 2, and 3 or more; the text may be too short or too irregular to estimate discounts.
            by_count = np.array([0.0, 0.5, 1.0, 1.5])
            n1, n2, n3, n4 = (int(np.sum(counts == k)) for k in (1, 2, 3, 4))
            if n1 and n2 and n3 and n4:  # Chen and Goodman 1999, equation 26
                y = n1 / (n1 + 2 * n2)
                estimates = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
                if (estimates[1:] > 0).all():  # a discount of zero would make unseen tokens impossible
                    by_count = estimates
            discounts = by_count[np.minimum(counts, 3)]
            totals = np.bincount(contexts, weights=counts, minlength=num_contexts)
            discounted_mass = np.bincount(contexts, weights=discounts, minlength=num_contexts)
            divisors = np.maximum(totals, 1)
            # If all continuations of a context have count zero, the shorter context gets the whole probability.
            backoff_weights = np.where(totals > 0, discounted_mass / divisors, 1.0)
            discounted_probs = (counts - discounts) / divisors[contexts]
            last_tokens, small_counts = keys % self._size, counts.astype(np.int32)
            self._levels.append(_Level(keys, last_tokens, small_counts, discounted_probs, backoff_weights))
            num_contexts = len(keys)

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

    def explain_backoff(self, state: tuple[int, ...], token: int) -> list[BackoffLevel]:
        """Return the parts of a probability: of each context, the longest first, and last of no text at all."""
        levels, weight = list[BackoffLevel](), 1.0
        for start in range(len(state) + 1):
            context, level = state[start:], self._levels[len(state) - start]
            total, count, prob, rest = 0, 0, 0.0, 1.0
            if found := self._find(context):
                node, first, last = found
                position = first + int(np.searchsorted(level.last_tokens[first:last], token))
                if position < last and level.last_tokens[position] == token:
                    count, prob = int(level.counts[position]), float(level.discounted_probs[position])
                total, rest = int(level.counts[first:last].sum()), float(level.backoff_weights[node])
            levels.append(BackoffLevel(context, total, count, prob, rest, weight * prob))
            weight *= rest
        uniform_prob = 1.0 / self._size
        return [*levels, BackoffLevel((), 0, 0, uniform_prob, 0.0, weight * uniform_prob)]

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        text = np.concatenate([[EOS_ID], ids]).astype(np.int64)
        for first in range(0, len(ids), CHUNK_SIZE):
            start = max(0, first - self.order)  # before the context of the chunk's first token
            tokens = text[start : first + CHUNK_SIZE + 1]
            probs = np.full(len(tokens), 1.0 / self._size)
            contexts = np.zeros(len(tokens), np.int64)  # index of the context before each token; first the empty one
            for level in self._levels:
                if not len(level.keys):
                    break  # the training text is shorter than the n-grams of this level
                seen = contexts >= 0
                probs[seen] *= level.backoff_weights[contexts[seen]]
                wanted = contexts * self._size + tokens  # less than every key if the context is unseen (-1)
                positions = np.minimum(np.searchsorted(level.keys, wanted), len(level.keys) - 1)
                ngrams = np.where(level.keys[positions] == wanted, positions, -1)
                seen = ngrams >= 0
                probs[seen] += level.discounted_probs[ngrams[seen]]
                contexts = np.append(-1, ngrams[:-1])  # an n-gram is the context of the next token
            log_probs = np.log(probs[first - start + 1 :]).astype(np.float32).astype(np.float64)
            yield SequenceOutput(log_probs, np.empty((len(log_probs), 0), np.float32))

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


class SpellingModel:
    """Probability of every possible word: Kneser-Ney on the bytes of known ones (Mielke and Eisner 2019)."""

    def __init__(self, words: Sequence[str], order: int = 5) -> None:
        self._order = order
        sizes = np.cumsum([len(word.encode(errors="surrogatepass")) + order - 1 for word in words])
        known = words[: int(np.searchsorted(sizes, MAX_SPELLING_BYTES))]
        # Kneser-Ney reads one end before the text by itself.
        symbols = WordTokenizer([str(symbol) for symbol in range(NUM_BYTE_SYMBOLS)])
        self._model = KneserNey(self._join(known)[1:], symbols, order)
        self.unknown_log_prob = float(np.log1p(-np.exp(self.log_probs(known)).sum()))  # of all words but the known ones

    def log_probs(self, words: Sequence[str]) -> Float64Array:
        """Return the natural-log probability `[words]` that a word, known or not, is spelled like each of `words`."""
        ids = self._join(words)
        cumulative = np.cumsum(score_sequence(self._model, ids))
        ends = np.flatnonzero(ids == EOS_ID).reshape(-1, self._order - 1)
        return cumulative[ends[1:, 0]] - cumulative[ends[:-1, -1]]

    def _join(self, words: Sequence[str]) -> TokenIds:
        # As ids, with enough ends in between that no word is the context of another.
        padding = bytes([END_BYTE] * (self._order - 1))
        joined = padding.join([b"", *(word.encode(errors="surrogatepass") for word in words), b""])
        ids = np.frombuffer(joined, np.uint8).astype(np.int32)
        return np.where(ids == END_BYTE, EOS_ID, ids + (ids >= EOS_ID)).astype(np.int32)


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

    def prob(self, value: str, contexts: Iterable[Hashable]) -> float:
        # Each context comes after more general ones.
        prob = math.exp(-math.log(NUM_BYTE_SYMBOLS) * min(100, len(value.encode(errors="surrogatepass")) + 1))
        for context in contexts:
            if counts := self._counts.get(context):
                prob = (counts[value] + len(counts) * prob) / (self._totals[context] + len(counts))
        return prob

    def _choices(self, line: str) -> Iterator[tuple[str, Sequence[Hashable]]]:
        # Characters between words, and the form of each word, with their contexts.
        previous, position = None, 0
        for start, end, word in [*word_spans(line, self._tokenizer_name), (len(line), len(line), None)]:
            separator, written, is_last = line[position:start], line[start:end], word is None
            kind, place = ("separator",), ("separator", previous is None, is_last)
            between = ("between", previous, word)
            yield separator, (kind, place, ("before", word), ("after", previous, is_last), between)
            if word is not None:
                starts_sentence = previous is None or any(mark in separator for mark in ".!?…")
                forms = {word.capitalize(): "Capital", word.upper(): "UPPER", word: "lower"}
                contexts = (("form",), ("form", starts_sentence), ("form", starts_sentence, word))
                yield forms.get(written, written), contexts
            previous, position = word, end
