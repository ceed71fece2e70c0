"""Speaker identification by words and letters: naive Bayes on words, and softmax regression on groups of letters."""

import base64
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.data.arrays import Float32Array, Float64Array
from engine.errors import InvalidInputError

WORD_WEIGHT, LETTER_WEIGHT = 0.4, 1.3
"""Weights of the two kinds of evidence, which overlap."""
PRIOR_WORDS = 3000.0
"""Number of imaginary words, spread like all words, that smooth the frequencies of a speaker's words."""
GROUP_SIZES = range(2, 5)
"""Numbers of characters in a group of letters; a space is one of them, and starts and ends a word."""
MAX_CHARACTERS = 2000
"""Number of characters at the end of a text that are used."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[.!?,;:'\"-]+")


@dataclass(frozen=True)
class SpeakerTextModel:
    """Evidence that the words and letters of a text give on its speaker, without a language model."""

    words: tuple[str, ...]
    """Words and punctuation marks of the training split, in lower case."""
    word_counts: tuple[tuple[tuple[int, int], ...], ...]
    """Words `[cast]` of each speaker, as positions in `words`, and in how many of the speaker's lines they occur."""
    groups: tuple[str, ...]
    """Groups of letters that the regression knows; none for a large cast."""
    group_lines: tuple[int, ...]
    """Number of lines of the training split that each group occurs in."""
    num_lines: int
    """Number of lines of the training split."""
    weights: str
    """Weights `[groups, cast]` of the regression, in half precision and base64."""

    def __post_init__(self) -> None:
        num_speakers, problem = len(self.word_counts), ""
        pairs = [pair for pairs in self.word_counts for pair in pairs]
        if not all(0 <= word < len(self.words) and count >= 0 for word, count in pairs):
            problem = "a count is negative, or of a word that is not listed"
        elif len(self.group_lines) != len(self.groups) or not all(
            0 <= count <= self.num_lines for count in self.group_lines
        ):
            problem = f"the {len(self.groups)} groups of letters need a count of lines each"
        else:
            try:
                weights = np.frombuffer(base64.b64decode(self.weights, validate=True), np.float16)
            except ValueError:
                weights = np.empty(0, np.float16)
            if len(weights) != len(self.groups) * num_speakers or not np.isfinite(weights).all():
                problem = f"the weights are not {len(self.groups)} times {num_speakers} numbers"
        if problem:
            raise InvalidInputError(f"speaker text model: {problem}")

    @property
    def num_speakers(self) -> int:
        """Size of the cast."""
        return len(self.word_counts)

    def scores(self, text: str) -> Float64Array:
        """Return the log-likelihood ratio `[cast]` of a text for each speaker, relative to all speakers.

        Of a longer text, the last `MAX_CHARACTERS` are used.
        """
        words = split_words(text[-MAX_CHARACTERS:])
        scores: Float64Array = np.zeros(self.num_speakers)
        for word in {index for word in words if (index := self._word_index.get(word)) is not None}:
            speakers, ratios = self._word_ratios[word]
            scores += self._unused_word_ratios
            scores[speakers] += ratios
        scores *= WORD_WEIGHT
        positions, values = group_features(words, self._group_index, self._group_rarity)
        return scores + LETTER_WEIGHT * (values @ self._weights[positions])

    @cached_property
    def _word_index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    @cached_property
    def _unused_word_ratios(self) -> Float64Array:
        """Log ratio `[cast]` of the frequency of a word that the speaker never uses to the frequency in all lines."""
        totals = [sum(count for _, count in pairs) for pairs in self.word_counts]
        ratios: Float64Array = -np.log1p(np.array(totals) / PRIOR_WORDS)
        return ratios

    @cached_property
    def _word_ratios(self) -> list[tuple[list[int], list[float]]]:
        """Speakers that use each word, and the logarithm of how much likelier its use makes the word."""
        users: list[list[tuple[int, int]]] = [[] for _ in self.words]
        for speaker, pairs in enumerate(self.word_counts):
            for word, count in pairs:
                users[word].append((speaker, count))
        totals = np.array([sum(count for _, count in pairs) + 0.5 for pairs in users])
        frequencies = (totals / totals.sum()).tolist() if users else []
        return [
            (
                [speaker for speaker, _ in pairs],
                [math.log1p(count / (frequency * PRIOR_WORDS)) for _, count in pairs],
            )
            for pairs, frequency in zip(users, frequencies, strict=True)
        ]

    @cached_property
    def _group_index(self) -> dict[str, int]:
        return {group: index for index, group in enumerate(self.groups)}

    @cached_property
    def _group_rarity(self) -> Float32Array:
        return group_rarity(self.group_lines, self.num_lines)

    @cached_property
    def _weights(self) -> Float32Array:
        values = np.frombuffer(base64.b64decode(self.weights), np.float16)
        return values.reshape(len(self.groups), self.num_speakers).astype(np.float32)


def split_words(text: str) -> list[str]:
    """Return the words, numbers and punctuation marks of a text in lower case."""
    return _WORD.findall(text.lower())


def letter_groups(words: Sequence[str]) -> list[str]:
    """Return all groups of neighbouring characters of a text, with a space before, between and after its words."""
    text = f" {' '.join(words)} "
    return [text[start : start + size] for size in GROUP_SIZES for start in range(len(text) - size + 1)]


def group_rarity(num_lines_with: Sequence[int], num_lines: int) -> Float32Array:
    """Return the logarithm `[groups]` of the number of lines divided by the number of lines with each group."""
    return np.log((num_lines + 1) / (np.array(num_lines_with, np.float64) + 1)).astype(np.float32)


def group_features(words: Sequence[str], index: dict[str, int], rarity: Float32Array) -> tuple[list[int], Float32Array]:
    """Return the groups of a text and their features: log counts times rarity, divided by the root of their norm."""
    counts = Counter(position for group in letter_groups(words) if (position := index.get(group)) is not None)
    positions = list(counts)
    values: Float32Array = np.log1p(np.array(list(counts.values()), np.float32)) * rarity[positions]
    return positions, values / max(float(np.sqrt(np.linalg.norm(values))), 1e-3)
