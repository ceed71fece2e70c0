"""Fit of the model that recognizes speakers by their words and letters."""

import base64
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from engine.data.arrays import Float32Array
from engine.models.speaker_text import SpeakerTextModel, group_features, group_rarity, letter_groups, split_words
from engine.models.turn_features import SpokenLine
from engine.training.softmax_regression import fit_softmax_regression

MIN_GROUP_LINES = 5
"""Minimum number of lines of the training split that a group of letters occurs in."""
MAX_GROUPS = 8192
L2 = 20.0
"""Weight of half the sum of squared weights in the loss of the regression."""
MAX_REGRESSION_SPEAKERS = 100
"""Maximum size of a cast for the regression; a larger cast is recognized by its words alone."""
MAX_REGRESSION_ELEMENTS = 32_000_000
"""Maximum elements of the feature matrix; a larger training split is thinned out evenly."""


def fit_speaker_text(num_speakers: int, scenes: Iterable[Sequence[SpokenLine]]) -> SpeakerTextModel:
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
        weights = _fit_regression(num_speakers, lines, groups, group_rarity(group_lines, len(lines)))
    return SpeakerTextModel(
        words=tuple(vocabulary),
        word_counts=tuple(tuple(sorted(counter.items())) for counter in counts),
        groups=tuple(groups),
        group_lines=tuple(group_lines),
        num_lines=len(lines),
        weights=base64.b64encode(weights.astype(np.float16).tobytes()).decode(),
    )


def _fit_regression(
    num_speakers: int, lines: Sequence[tuple[int, Sequence[str]]], groups: Sequence[str], rarity: Float32Array
) -> Float32Array:
    """Return the weights `[groups, cast]` of a softmax regression on the lines' features."""
    step = max(1, -(-len(lines) * len(groups) // MAX_REGRESSION_ELEMENTS))
    chosen = lines[::step]
    if not chosen or not groups:
        return np.zeros((len(groups), num_speakers), np.float32)
    index = {group: position for position, group in enumerate(groups)}
    features = np.zeros((len(chosen), len(groups)), np.float32)
    for row, (_, words) in zip(features, chosen, strict=True):
        positions, values = group_features(words, index, rarity)
        row[positions] = values
    speakers = np.array([speaker for speaker, _ in chosen], np.int64)
    frequencies = np.log(np.bincount(speakers, minlength=num_speakers) + 1.0) - np.log(len(chosen))
    return fit_softmax_regression(features, speakers, frequencies, L2)
