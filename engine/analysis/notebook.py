"""The notebook that this project starts from: its validation, and vocabularies of words by cut-off as it makes them.

To validate, the notebook lays out a text as rows, trims the rows to whole windows plus one token, and divides the sum
of its losses by the trimmed width. With rows shorter than a window, nothing is scored, and it prints exp(0) = 1.000.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from engine.analysis.evaluation import perplexity
from engine.data.arrays import Float64Array
from engine.data.tokenizers import EOS, UNK, TokenIds, WordTokenizer, WordTokenizerName, split_words
from engine.models.base import LanguageModel, advance_batch

NUM_ROWS, ROW_LENGTH = 64, 36  # of the validation text in the notebook: its batch size, and the tokens per row
NOTEBOOK_WINDOW = 50  # tokens per window in the notebook


def _trimmed_length(row_length: int, window: int) -> int:
    return max(1, row_length) - (max(1, row_length) - 1) % window  # whole windows, and one that is only predicted


def window_starts(row_length: int, window: int) -> range:
    return range(0, _trimmed_length(row_length, window) - 1, window)


def printed_perplexity(mean_nlls: Iterable[float], row_length: int, window: int) -> float:
    """Return the perplexity that the notebook prints, given the mean negative log-probability of each window."""
    total = sum(mean_nll * window for mean_nll in mean_nlls)
    return perplexity(total / _trimmed_length(row_length, window))


class NotebookEvaluation(NamedTuple):
    window: int
    num_windows: int  # whole windows in a row
    num_scored: int  # scored tokens of all rows
    divisor: int  # number by which the notebook divides the sum of a row; one more than the scored tokens of a row
    mean_bits: float  # mean bits of the scored tokens; NaN without one
    printed: float  # perplexity that the notebook prints
    perplexity: float | None  # perplexity of the scored tokens; None without one


def evaluate_windows(log_probs: Float64Array, window: int) -> NotebookEvaluation:
    """Return the notebook's validation, given the natural-log probabilities `[rows, row length - 1]` of a text."""
    row_length = log_probs.shape[1] + 1
    starts = window_starts(row_length, window)
    scored = log_probs[:, : len(starts) * window]
    mean_nll = float(-scored.mean()) if scored.size else math.nan
    mean_nlls = (float(-log_probs[:, start : start + window].mean()) for start in starts)
    return NotebookEvaluation(
        window=window,
        num_windows=len(starts),
        num_scored=scored.size,
        divisor=_trimmed_length(row_length, window),
        mean_bits=mean_nll / math.log(2),
        printed=printed_perplexity(mean_nlls, row_length, window),
        perplexity=perplexity(mean_nll) if scored.size else None,
    )


def notebook_rows(ids: TokenIds) -> TokenIds:
    """Lay out the beginning of a text `[time]` as at most 64 rows of 36 tokens; a shorter text becomes one row."""
    length = min(ROW_LENGTH, len(ids))
    num_rows = min(NUM_ROWS, len(ids) // max(1, length))
    return ids[: num_rows * length].reshape(num_rows, length)


def score_rows(model: LanguageModel, rows: TokenIds) -> Float64Array:
    """Return the natural-log probabilities `[rows, length - 1]` of rows `[rows, length]`, each read on its own."""
    scores, states = np.empty((len(rows), rows.shape[1] - 1)), [model.start()] * len(rows)
    for time in range(rows.shape[1] - 1):
        outputs = advance_batch(model, states, rows[:, time].tolist())
        states = [state for _, state in outputs]
        predicted = rows[:, time + 1].tolist()
        scores[:, time] = [log_probs[token] for (log_probs, _), token in zip(outputs, predicted, strict=True)]
    return scores


class VocabularyCutoffs:
    """Vocabularies of a training text by cut-off: the occurrences that a word of the vocabulary has at least."""

    def __init__(self, train: Iterable[str], held_out: Iterable[str], name: WordTokenizerName = "words") -> None:
        self._name = name
        self._counts = Counter(word for line in train for word in split_words(line, name))
        held_out_counts = [self._counts[word] for line in held_out for word in split_words(line, name)]
        self._sorted_held_out_counts = np.sort(np.array(held_out_counts, np.int64))
        self._sorted_counts = np.sort(np.array(list(self._counts.values()), np.int64))
        self.num_held_out_words = len(held_out_counts)

    def vocabulary_size(self, cutoff: int) -> int:
        return len(self._sorted_counts) - int(np.searchsorted(self._sorted_counts, cutoff))

    def unknown_rate(self, cutoff: int) -> float:
        """Return the fraction of the held-out words that are unknown; 0 for an empty text."""
        return int(np.searchsorted(self._sorted_held_out_counts, cutoff)) / max(1, self.num_held_out_words)

    def tokenizer(self, cutoff: int) -> WordTokenizer:
        """Return the tokenizer of a vocabulary, with its words in order of first appearance."""
        words = (word for word, count in self._counts.items() if count >= cutoff and word not in (UNK, EOS))
        return WordTokenizer((UNK, EOS, *words), self._name)
