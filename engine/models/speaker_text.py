"""Text model: who says a text, by naive Bayes on its words and a softmax regression on its groups of letters."""

import base64
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array, Float64Array
from engine.errors import InvalidInputError
from engine.models.turn_taking import SpokenLine

WORD_WEIGHT, LETTER_WEIGHT = 0.4, 1.3
"""Weights of the two kinds of evidence, which overlap."""
PRIOR_WORDS = 3000.0
"""Number of imaginary words, spread like all words, that smooth the frequencies of a speaker's words."""
GROUP_SIZES = range(2, 5)
"""Numbers of characters in a group of letters; a space is one of them, and starts and ends a word."""
MAX_CHARACTERS = 2000
"""Number of characters at the end of a text that are used."""
MIN_GROUP_LINES = 5
"""Minimum number of lines of the training split that a group of letters occurs in."""
MAX_GROUPS = 8192
L2 = 20.0
"""Weight of half the sum of squared weights in the loss of the regression."""
MAX_REGRESSION_SPEAKERS = 100
"""Maximum size of a cast for the regression; a larger cast is recognized by its words alone."""
MAX_REGRESSION_LINES = 4000
"""Maximum number of lines for the regression; a larger training split is thinned out evenly."""
MAX_ITERATIONS = 200
MAX_POWER = 10
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[.!?,;:'\"-]+")


@dataclass(frozen=True)
class EvidencePowers:
    """Powers of the evidence on who says a text, with which the probabilities come true on validation lines."""

    prior: float = 1.0
    text: float = 1.0


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
    powers: tuple[EvidencePowers, EvidencePowers] = (EvidencePowers(), EvidencePowers())
    """Powers for a text of an unknown scene, and for one after the lines of a scene."""

    def __post_init__(self) -> None:
        num_speakers, problem = len(self.word_counts), ""
        pairs = [pair for pairs in self.word_counts for pair in pairs]
        if not all(0 <= word < len(self.words) and count >= 0 for word, count in pairs):
            problem = "a count is negative, or of a word that is not listed"
        elif not all(0 <= power <= MAX_POWER for each in self.powers for power in (each.prior, each.text)):
            problem = f"a power is below 0 or above {MAX_POWER}"
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

    @classmethod
    def fit(cls, num_speakers: int, scenes: Iterable[Sequence[SpokenLine]]) -> Self:
        """Fit the model to the lines of a training split, by `num_speakers` speakers."""
        lines = [(line.speaker, split_words(line.text)) for scene in scenes for line in scene]
        lines = [(speaker, words) for speaker, words in lines if words]
        vocabulary = {word: index for index, word in enumerate(sorted({word for _, words in lines for word in words}))}
        counts: list[Counter[int]] = [Counter() for _ in range(num_speakers)]
        for speaker, words in lines:
            counts[speaker].update(vocabulary[word] for word in set(words))
        groups, group_lines = [], []
        weights = np.zeros((0, num_speakers), np.float32)
        if num_speakers <= MAX_REGRESSION_SPEAKERS:
            found = Counter(group for _, words in lines for group in set(letter_groups(words)))
            chosen = sorted((-count, group) for group, count in found.items() if count >= MIN_GROUP_LINES)[:MAX_GROUPS]
            groups, group_lines = [group for _, group in chosen], [-count for count, _ in chosen]
            weights = _fit_letters(num_speakers, lines, groups, group_rarity(group_lines, len(lines)))
        return cls(
            words=tuple(vocabulary),
            word_counts=tuple(tuple(sorted(counter.items())) for counter in counts),
            groups=tuple(groups),
            group_lines=tuple(group_lines),
            num_lines=len(lines),
            weights=base64.b64encode(weights.astype(np.float16).tobytes()).decode(),
        )

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


def _fit_letters(
    num_speakers: int, lines: Sequence[tuple[int, Sequence[str]]], groups: Sequence[str], rarity: Float32Array
) -> Float32Array:
    """Return the weights `[groups, cast]` of a softmax regression on the groups of letters of lines."""
    chosen = lines[:: max(1, -(-len(lines) // MAX_REGRESSION_LINES))]
    if not chosen or not groups:
        return np.zeros((len(groups), num_speakers), np.float32)
    index = {group: position for position, group in enumerate(groups)}
    features = np.zeros((len(chosen), len(groups)), np.float32)
    for row, (_, words) in zip(features, chosen, strict=True):
        positions, values = group_features(words, index, rarity)
        row[positions] = values
    return fit_softmax_regression(features, np.array([speaker for speaker, _ in chosen]), num_speakers, L2)


def fit_softmax_regression(
    features: Float32Array, labels: npt.NDArray[np.int64], num_classes: int, l2: float
) -> Float32Array:
    """Return the weights `[features, classes]` with the highest likelihood of the labels, less a quadratic penalty.

    The logit of a class has its log frequency as a constant. The weights are sums of the events' features, so each step
    works on events: Newton steps with an upper bound of the Hessian (Boehning 1992), accelerated (Nesterov 1983).

    Args:
        features: Features `[events, features]`.
        labels: Class `[events]` of each event.
        num_classes: Number of classes.
        l2: Weight of half the sum of squared weights.
    """
    is_label = np.eye(num_classes, dtype=np.float32)[labels]
    constants = np.log((is_label.sum(axis=0) + 1) / len(labels))
    products = features @ features.T
    inverse = np.linalg.inv(products / 2 + l2 * np.eye(len(labels), dtype=np.float32))
    sums = ahead = np.zeros_like(is_label)
    for step in range(MAX_ITERATIONS):
        logits = constants + products @ ahead
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        before, change = sums, inverse @ (probs - is_label + l2 * ahead)
        sums = ahead - change
        ahead = sums + step / (step + 3) * (sums - before)
        if np.abs(change).max() <= 1e-4 * np.abs(sums).max():
            break
    weights: Float32Array = features.T @ sums
    return weights
