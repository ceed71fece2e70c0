"""The text model: its scores against hand calculations, what it learns, and its file."""

import base64
import json
import math
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInputError
from engine.models.speaker_text import LETTER_WEIGHT, PRIOR_WORDS, WORD_WEIGHT, SpeakerTextModel, letter_groups
from engine.models.turn_features import SpokenLine
from engine.storage.schema import decode_json
from engine.training import speaker_text
from engine.training.speaker_text import fit_speaker_text

SCENES = [
    [SpokenLine(0, "My precious, we wants it!"), SpokenLine(1, "Mister Frodo, the potatoes.")],
    [SpokenLine(0, "We needs it, precious."), SpokenLine(1, "Potatoes, Mister Frodo?"), SpokenLine(2, "...")],
] * 4
MODEL = fit_speaker_text(4, SCENES)


def test_scores_of_words_match_a_hand_calculation(monkeypatch):
    monkeypatch.setattr(speaker_text, "MAX_REGRESSION_SPEAKERS", 1)
    model = fit_speaker_text(2, [[SpokenLine(0, "a b a"), SpokenLine(0, "a"), SpokenLine(1, "b")]])
    assert model.groups == ()
    # Lines with each word: a 2 and 0, b 1 and 1; frequencies (2 + 0.5) / 5 each.
    expected = [
        math.log((count + PRIOR_WORDS * 0.5) / (total + PRIOR_WORDS) / 0.5) for count, total in ((2, 3), (0, 1))
    ]
    assert model.scores("A! a, what?") == pytest.approx([WORD_WEIGHT * ratio for ratio in expected], rel=1e-3)
    assert model.scores("what").tolist() == [0, 0]


def test_scores_of_groups_are_the_products_of_features_and_weights():
    text, words_only = "the precious potatoes", np.zeros(4)
    counts = np.zeros((len(MODEL.words), 4))
    for speaker, pairs in enumerate(MODEL.word_counts):
        for word, count in pairs:
            counts[word, speaker] = count
    frequencies = (counts.sum(axis=1) + 0.5) / (counts.sum(axis=1) + 0.5).sum()
    for word in text.split():
        row = MODEL.words.index(word)
        words_only += np.log(
            (counts[row] + PRIOR_WORDS * frequencies[row]) / (counts.sum(axis=0) + PRIOR_WORDS) / frequencies[row]
        )
    weights = np.frombuffer(base64.b64decode(MODEL.weights), np.float16).reshape(-1, 4).astype(np.float64)
    features = {
        group: math.log1p(count) * math.log((MODEL.num_lines + 1) / (MODEL.group_lines[MODEL.groups.index(group)] + 1))
        for group, count in Counter(letter_groups(text.split())).items()
        if group in MODEL.groups
    }
    norm = math.sqrt(math.sqrt(sum(value**2 for value in features.values())))
    by_groups = sum(value / norm * weights[MODEL.groups.index(group)] for group, value in features.items())
    assert MODEL.scores(text) == pytest.approx(WORD_WEIGHT * words_only + LETTER_WEIGHT * by_groups, abs=1e-3)


def test_each_speaker_is_recognized_by_new_texts_with_the_own_words():
    assert MODEL.scores("Precious wants!").argmax() == 0
    assert MODEL.scores("Mister, potatoes").argmax() == 1
    assert MODEL.scores("preciousss").argmax() == 0  # no known word, but known letters


@given(st.text(max_size=50))
def test_any_text_has_finite_scores(text):
    scores = MODEL.scores(text)
    assert scores.shape == (4,)
    assert np.isfinite(scores).all()


def test_the_end_of_a_long_text_is_used():
    assert MODEL.scores("potatoes " * 100_000 + "precious " * 300) == pytest.approx(MODEL.scores("precious " * 300))


@pytest.mark.parametrize("scenes", [[], [[]], [[SpokenLine(0, "")]], [[SpokenLine(0, "one")]]], ids=str)
def test_a_text_with_hardly_a_line_gives_no_evidence(scenes):
    assert fit_speaker_text(2, scenes).scores("something else").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "not base64"}, "the weights are not"),
        ({"weights": base64.b64encode(bytes(6)).decode()}, "the weights are not"),
        ({"weights": base64.b64encode(bytes(3)).decode()}, "the weights are not"),
        ({"weights": MODEL.weights[:-8] + base64.b64encode(b"\0\0\0\x7c\0\x7e").decode()}, "the weights are not"),
        ({"group_lines": [1]}, "a count of lines each"),
        ({"num_lines": 0}, "a count of lines each"),
        ({"words": []}, "not listed"),
        ({"word_counts": [[[0, -1]]]}, "negative"),
        ({"word_counts": []}, "the weights are not"),
        ({"groups": 3}, "groups"),
    ],
    ids=str,
)
def test_a_damaged_model_is_refused_in_one_line(changes, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        decode_json(SpeakerTextModel, json.dumps(asdict(MODEL) | changes))
    assert str(caught.value).isprintable()
