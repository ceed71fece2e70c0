"""Dialogue models: the form of a scene, and distributions against a computation by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.models.base import EXCLUDED_LOG_PROB
from engine.models.cache import CacheSettings, NeuralCache
from engine.models.dialogue import MAX_LINE_TOKENS, DialogueModel
from engine.models.mixture import Mixture
from engine.models.ngram import Unigram
from engine.models.speaker_words import SpeakerWords
from engine.models.turn_taking import TurnModel
from tests.support.models import distributions, make_tokenizer
from tests.support.random_dialogues import (
    CAST,
    KNESER_NEY,
    LSTM,
    NUM_TEXT_TOKENS,
    SPEAKER_IDS,
    SPEAKER_WORDS,
    TOKENIZER,
    TURN_MODEL,
    encode_scenes,
    random_scenes,
)

MODELS = {
    "lstm": LSTM,
    "kneser-ney": KNESER_NEY,
    "unigram": Unigram(encode_scenes(random_scenes(5)), TOKENIZER),
    "mixture": Mixture([LSTM, KNESER_NEY], [0.4, 0.6]),
    "cache": NeuralCache(LSTM, CacheSettings(window=10)),
}
TEXTS = st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=25)


def read(model, ids):
    state = model.start()
    for token in (EOS_ID, *ids):
        _, state = model.advance(state, token)
    return state


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12, deadline=None)
@given(ids=TEXTS)
def test_speakers_follow_a_line_and_text_a_speaker_in_the_proportions_of_the_model(name, ids):
    rows, inner_rows = distributions(DialogueModel(MODELS[name]), ids), distributions(MODELS[name], ids)
    with_turns = distributions(DialogueModel(MODELS[name], TURN_MODEL), ids)
    for row, inner, turns, previous in zip(rows, inner_rows, with_turns, [EOS_ID, *ids], strict=True):
        possible = [EOS_ID, *SPEAKER_IDS] if previous == EOS_ID else list(range(NUM_TEXT_TOKENS))
        assert row[possible] == pytest.approx(inner[possible] / inner[possible].sum(), rel=1e-4)
        assert turns.sum() == pytest.approx(1, abs=1e-5)
        assert np.flatnonzero(row).tolist() == np.flatnonzero(turns).tolist() == sorted(possible)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_speakers_are_a_weighted_mean_and_the_end_of_the_scene_is_the_models_own(weight):
    scene = random_scenes(1, seed=5)[0]
    ids = encode_scenes([scene]).tolist()
    row = distributions(DialogueModel(LSTM, TURN_MODEL, weight), ids)[-1]
    inner = distributions(LSTM, ids)[-1]
    speakers, end = inner[SPEAKER_IDS], inner[EOS_ID]
    turns = TURN_MODEL.start()
    for line in scene:
        turns = TURN_MODEL.read_turn(turns, line)
    expected = (1 - weight) * speakers / speakers.sum() + weight * np.exp(TURN_MODEL.log_probs(turns))
    assert row[EOS_ID] == pytest.approx(end / (end + speakers.sum()), rel=1e-5)
    assert row[SPEAKER_IDS] == pytest.approx(expected * (1 - row[EOS_ID]), rel=1e-4)


def test_words_of_the_speaker_become_more_likely_by_a_power_of_the_ratio_of_frequencies():
    model, plain = (DialogueModel(LSTM, TURN_MODEL, speaker_words=words) for words in (SPEAKER_WORDS, None))
    sam = SPEAKER_IDS[1]
    ids = [*encode_scenes(random_scenes(2, seed=4)).tolist(), sam, 3, 5]
    probs, plain_probs = distributions(model, ids)[-1], distributions(plain, ids)[-1]
    counts = np.zeros((len(CAST), NUM_TEXT_TOKENS))
    for speaker, pairs in enumerate(SPEAKER_WORDS.counts):
        for token, count in pairs:
            counts[speaker, token] = count
    frequencies = (counts.sum(axis=0) + 0.5) / (counts.sum(axis=0) + 0.5).sum()
    prior = SPEAKER_WORDS.prior_tokens
    by_sam = (counts[1] + prior * frequencies) / (counts[1].sum() + prior)
    expected = plain_probs[:NUM_TEXT_TOKENS] * (by_sam / frequencies) ** SPEAKER_WORDS.weight
    assert probs[:NUM_TEXT_TOKENS] == pytest.approx(expected / expected.sum(), rel=1e-4)
    assert distributions(model, ids[:-3])[-1] == pytest.approx(distributions(plain, ids[:-3])[-1])


SCENE = encode_scenes(random_scenes(1, seed=3)).tolist()
FRODO, SAM = SPEAKER_IDS[:2]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ([*SCENE, EOS_ID], []),
        ([*SCENE, EOS_ID, *SCENE], SCENE),
        ([*SCENE, 3, 4, EOS_ID], SCENE),
        ([FRODO, 3, SAM, 4, EOS_ID], [FRODO, 3, EOS_ID, SAM, 4, EOS_ID]),
        ([FRODO, SAM, EOS_ID], [FRODO, EOS_ID, SAM, EOS_ID]),
    ],
    ids=[
        "an empty line ends a scene",
        "a scene after another",
        "a line of nobody is no turn and no end",
        "a speaker ends a line",
        "a speaker ends an empty line",
    ],
)
def test_turns_are_read_from_the_tokens(text, same):
    model = DialogueModel(LSTM, TURN_MODEL)
    assert read(model, text).turns == read(model, same).turns
    assert read(model, SCENE).turns != model.start().turns


def test_long_texts_are_scored_in_chunks_as_token_by_token():
    model = DialogueModel(LSTM, TURN_MODEL, 0.5, SPEAKER_WORDS)
    ids = encode_scenes(random_scenes(40, seed=2))
    rows = distributions(model, ids)[:-1]
    assert len(ids) > 300  # several chunks
    assert model.score_sequence(ids) == pytest.approx(np.log(rows[np.arange(len(ids)), ids]), abs=2e-5)
    assert np.exp(np.stack(list(model.iter_log_probs(ids)))) == pytest.approx(rows, abs=2e-5)


def test_a_text_that_breaks_the_form_has_finite_scores():
    scores = DialogueModel(LSTM, TURN_MODEL).score_sequence(np.array([3, SPEAKER_IDS[0], EOS_ID, 2], np.int32))
    assert scores[[0, 1, 3]].tolist() == [EXCLUDED_LOG_PROB] * 3
    assert scores[2] > -100


def test_a_state_does_not_grow_with_the_line():
    assert len(read(DialogueModel(LSTM, TURN_MODEL), [3] * 2 * MAX_LINE_TOKENS).line) == MAX_LINE_TOKENS


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("knows no speakers", {"model": Unigram(np.array([2, 3], np.int32), make_tokenizer(5))}),
        ("another cast", {"turn_model": TurnModel.fit((*CAST[:-1], "NOBODY"), random_scenes(3))}),
        ("another cast", {"speaker_words": SpeakerWords(0.3, 100, ((), ()))}),
        ("outside a vocabulary", {"speaker_words": SpeakerWords(0.3, 100, ((), (), (), ((NUM_TEXT_TOKENS, 1),)))}),
        *(("turn weight", {"turn_weight": weight}) for weight in (-0.1, 1.5, math.nan)),
    ],
)
def test_models_without_a_cast_or_with_another_one_are_refused(message, values):
    with pytest.raises(InvalidInputError, match=message):
        DialogueModel(**{"model": LSTM, "turn_model": TURN_MODEL} | values)


# --- words of the speakers ---


def test_each_speaker_counts_the_tokens_and_ends_of_the_own_lines():
    ids = [5, EOS_ID, FRODO, 3, 3, EOS_ID, SAM, EOS_ID, EOS_ID, FRODO, 4, EOS_ID, 6]
    words = SpeakerWords.fit(np.array(ids, np.int32), TOKENIZER)
    assert words.counts == (((EOS_ID, 2), (3, 2), (4, 1)), ((EOS_ID, 1),), (), ())
    assert SpeakerWords.fit(np.empty(0, np.int32), TOKENIZER).counts == ((), (), (), ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-0.1, 10.0, ()), "weight -0.1"),
        ((11.0, 10.0, ()), "weight 11"),
        ((math.nan, 10.0, ()), "weight nan"),
        ((0.3, 0.0, ()), "0 prior tokens"),
        ((0.3, 10.0, (((-1, 2),),)), "token -1"),
        ((0.3, 10.0, (((1, -2),),)), "count -2"),
    ],
    ids=str,
)
def test_invalid_values_are_refused_in_one_line(values, message):
    with pytest.raises(InvalidInputError, match=message):
        SpeakerWords(*values)
