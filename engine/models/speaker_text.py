"""Text model: who says a text, by naive Bayes on its words and a softmax regression on its groups of letters."""

import base64
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array, Float64Array
from engine.errors import InvalidInputError
from engine.models.turn_taking import SpokenLine

WORD_WEIGHT, LETTER_WEIGHT = 0.4, 1.3  # of the two kinds of evidence, which overlap
PRIOR_WORDS = 3000.0  # imaginary words, spread like all words, that smooth the frequencies of a speaker's words
GROUP_SIZES = range(2, 5)  # characters in a group of letters; a space is one of them, and starts and ends a word
MAX_CHARACTERS = 2000  # at the end of a text that are used
MIN_GROUP_LINES = 5  # lines of the training split that a group of letters occurs in
MAX_GROUPS = 8192
L2 = 20.0  # weight of half the sum of squared weights in the loss of the regression
MAX_REGRESSION_SPEAKERS = 100  # a larger cast is recognized by its words alone
MAX_REGRESSION_LINES = 4000  # a larger training split is thinned out evenly
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

    words: tuple[str, ...]  # words and punctuation marks of the training split, in lower case
    word_counts: tuple[tuple[tuple[int, int], ...], ...]
    """Words `[cast]` of each speaker, as positions in `words`, and in how many of the speaker's lines they occur."""
    groups: tuple[str, ...]  # groups of letters that the regression knows; none for a large cast
    group_lines: tuple[int, ...]  # number of lines of the training split that each group occurs in
    num_lines: int  # number of lines of the training split
    weights: str  # `[groups, cast]` of the regression, in half precision and base64
    powers: tuple[EvidencePowers, EvidencePowers] = (EvidencePowers(), EvidencePowers())
    """Powers for a text of an unknown scene, and for one after the lines of a scene."""

    def __post_init__(self) -> None:
        try:
            weights = np.frombuffer(base64.b64decode(self.weights, validate=True), np.float16)
        except ValueError:
            weights = np.empty(0, np.float16)
        size = len(self.groups)
        if not all(0 <= word < len(self.words) and n >= 0 for pairs in self.word_counts for word, n in pairs):
            problem = "a count is negative, or of a word that is not listed"
        elif not all(0 <= power <= MAX_POWER for each in self.powers for power in (each.prior, each.text)):
            problem = f"a power is below 0 or above {MAX_POWER}"
        elif len(self.group_lines) != size or not all(0 <= count <= self.num_lines for count in self.group_lines):
            problem = f"the {size} groups of letters need a count of lines each"
        elif len(weights) != size * self.num_speakers or not np.isfinite(weights).all():
            problem = f"the weights are not {size} times {self.num_speakers} numbers"
        else:
            return
        raise InvalidInputError(f"speaker text model: {problem}")

    @classmethod
    def fit(cls, num_speakers: int, scenes: Iterable[Sequence[SpokenLine]]) -> Self:
        """Fit the model to the lines of a training split."""
        spoken = [(line.speaker, split_words(line.text)) for scene in scenes for line in scene]
        lines = [(speaker, words) for speaker, words in spoken if words]
        vocabulary = {word: index for index, word in enumerate(sorted({word for _, words in lines for word in words}))}
        counts: list[Counter[int]] = [Counter() for _ in range(num_speakers)]
        for speaker, words in lines:
            counts[speaker].update(vocabulary[word] for word in set(words))
        groups = dict[str, int]()  # number of lines with each
        weights = np.zeros((0, num_speakers), np.float32)
        if num_speakers <= MAX_REGRESSION_SPEAKERS:
            found = Counter(group for _, words in lines for group in set(_letter_groups(words)))
            chosen = sorted((-count, group) for group, count in found.items() if count >= MIN_GROUP_LINES)[:MAX_GROUPS]
            groups = {group: -count for count, group in chosen}
        if groups:
            chosen_lines = lines[:: max(1, -(-len(lines) // MAX_REGRESSION_LINES))]
            index, rarity = {group: i for i, group in enumerate(groups)}, _rarity(list(groups.values()), len(lines))
            features = np.zeros((len(chosen_lines), len(groups)), np.float32)
            for row, (_, words) in zip(features, chosen_lines, strict=True):
                positions, values = _group_features(words, index, rarity)
                row[positions] = values
            labels = np.array([speaker for speaker, _ in chosen_lines])
            weights = fit_softmax_regression(features, labels, num_speakers, L2)
        return cls(
            words=tuple(vocabulary),
            word_counts=tuple(tuple(sorted(counter.items())) for counter in counts),
            groups=tuple(groups),
            group_lines=tuple(groups.values()),
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
        unused_word, users_by_word = self._word_ratios
        scores: Float64Array = np.zeros(self.num_speakers)
        for word in dict.fromkeys(words):
            if users := users_by_word.get(word):
                scores += unused_word
                scores[list(users)] += list(users.values())
        index, rarity, weights = self._regression
        positions, values = _group_features(words, index, rarity)
        return scores * WORD_WEIGHT + LETTER_WEIGHT * (values @ weights[positions])

    @cached_property
    def _word_ratios(self) -> tuple[Float64Array, dict[str, dict[int, float]]]:
        """Log ratio `[cast]` of the frequency of a word that the speaker never uses to its frequency in all lines, and
        what the use of each word by a speaker adds to it.
        """
        users: list[dict[int, int]] = [{} for _ in self.words]
        for speaker, pairs in enumerate(self.word_counts):
            for word, count in pairs:
                users[word][speaker] = count
        totals = np.array([sum(count for _, count in pairs) for pairs in self.word_counts])
        by_word = np.array([sum(counts.values()) + 0.5 for counts in users])
        frequencies = (by_word / by_word.sum()).tolist()
        ratios = {
            word: {speaker: math.log1p(count / (frequency * PRIOR_WORDS)) for speaker, count in counts.items()}
            for word, counts, frequency in zip(self.words, users, frequencies, strict=True)
        }
        return -np.log1p(totals / PRIOR_WORDS), ratios

    @cached_property
    def _regression(self) -> tuple[dict[str, int], Float32Array, Float32Array]:
        """Position and rarity of each group of letters, and the weights `[groups, cast]`."""
        weights = np.frombuffer(base64.b64decode(self.weights), np.float16).astype(np.float32)
        index = {group: position for position, group in enumerate(self.groups)}
        return index, _rarity(self.group_lines, self.num_lines), weights.reshape(len(self.groups), self.num_speakers)


def split_words(text: str) -> list[str]:
    """Return the words, numbers and punctuation marks of a text in lower case."""
    return _WORD.findall(text.lower())


def _letter_groups(words: Sequence[str]) -> list[str]:
    text = f" {' '.join(words)} "
    return [text[start : start + size] for size in GROUP_SIZES for start in range(len(text) - size + 1)]


def _rarity(num_lines_with: Sequence[int], num_lines: int) -> Float32Array:
    """Return the logarithm `[groups]` of the number of lines divided by the number of lines with each group."""
    return np.log((num_lines + 1) / (np.array(num_lines_with, np.float64) + 1)).astype(np.float32)


def _group_features(
    words: Sequence[str], index: Mapping[str, int], rarity: Float32Array
) -> tuple[list[int], Float32Array]:
    """Return the groups of a text and their features: log counts times rarity, divided by the root of their norm."""
    counts = Counter(position for group in _letter_groups(words) if (position := index.get(group)) is not None)
    positions = list(counts)
    values: Float32Array = np.log1p(np.array(list(counts.values()), np.float32)) * rarity[positions]
    return positions, values / max(float(np.sqrt(np.linalg.norm(values))), 1e-3)


def fit_softmax_regression(
    features: Float32Array, labels: npt.NDArray[np.int64], num_classes: int, l2: float
) -> Float32Array:
    """Return the weights `[features, classes]` that make labels likeliest, less `l2` / 2 times their squares.

    The logit of a class has its log frequency as a constant. The weights are sums of the events' features, so each step
    works on events: Newton steps with an upper bound of the Hessian (Boehning 1992), accelerated (Nesterov 1983).
    `features` are `[events, features]`, and `labels` `[events]` the class of each event.
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
