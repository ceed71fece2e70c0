"""Dialogue models: they predict as their language model does, and follow who has spoken in the script."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.scripts import SCENE_END, script_text
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.generate import prefill
from engine.models import base
from engine.models.base import advance_tokens, score_sequence
from engine.models.dialogue import MAX_LINE_TOKENS, DialogueModel, SpeakerTextModel, TurnModel, TurnState
from tests.support.models import distributions
from tests.support.random_dialogues import (
    CAST,
    KNESER_NEY,
    LSTM,
    TOKENIZER,
    TURN_MODEL,
    encode_scenes,
    random_scenes,
    spoken,
)

MODEL = DialogueModel(LSTM, CAST, TURN_MODEL)
TEXTS = st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=25)
SCENE, OTHER_SCENE = random_scenes(2, seed=3)


def turns_after(script):
    return prefill(MODEL, TOKENIZER.encode(script)).model_state.turns


@pytest.mark.parametrize("inner", [LSTM, KNESER_NEY], ids=["lstm", "kneser-ney"])
@settings(max_examples=12, deadline=None)
@given(ids=TEXTS)
def test_predictions_are_the_language_models_own_in_every_way_of_reading(inner, ids):
    model, expected = DialogueModel(inner, CAST, TURN_MODEL), distributions(inner, ids)
    assert distributions(model, ids) == pytest.approx(expected)
    rows, state = model.predict_tokens(model.start(), [EOS_ID, *ids])
    assert np.exp(rows) == pytest.approx(expected, abs=1e-5)
    log_probs, same_state = advance_tokens(model, model.start(), [EOS_ID, *ids])
    assert np.exp(log_probs) == pytest.approx(expected[-1], abs=1e-5)
    assert (state.turns, state.line) == (same_state.turns, same_state.line)
    array = np.array(ids, np.int32)
    if ids:
        scores = np.log(expected[np.arange(len(ids)), ids])
        assert score_sequence(model, array) == pytest.approx(scores, abs=1e-4)
        assert base.forward_sequence(model, array).log_probs == pytest.approx(scores, abs=1e-4)


def test_the_turn_model_reads_the_lines_of_the_current_scene():
    expected = TurnState()
    for line in spoken([SCENE])[0]:
        expected = expected.after(line, CAST)
    state = prefill(MODEL, encode_scenes([OTHER_SCENE, SCENE]))
    assert state.model_state.turns == expected
    assert MODEL.next_speaker_log_probs(state.model_state, state.log_probs).tolist() == (
        TURN_MODEL.log_probs(expected).tolist()
    )


@pytest.mark.parametrize(
    ("script", "same"),
    [
        (SCENE_END, ""),
        (f"{SCENE_END}Sam: oak\n", "Sam: oak\n"),
        ("oak elm\n", script_text([SCENE])),
        ("Sam: oak", script_text([SCENE])),
        ("Elrond: oak\n", f"{script_text([SCENE])}Someone: oak\n"),
    ],
    ids=["an empty line", "a new scene", "a line of nobody", "a line that goes on", "a speaker outside the cast"],
)
def test_turns_are_read_from_the_text(script, same):
    assert turns_after(script_text([SCENE]) + script) == turns_after(same)


def test_eos_ends_a_line_and_a_scene():
    ids = [*encode_scenes([SCENE])[:-1].tolist(), EOS_ID]
    assert prefill(MODEL, ids).model_state.turns == turns_after(script_text([SCENE]))
    assert prefill(MODEL, [*ids, EOS_ID]).model_state.turns == TurnState()


def test_without_a_turn_model_a_speaker_is_as_likely_as_the_first_token_of_the_name():
    model = DialogueModel(LSTM, CAST)
    state = prefill(model, encode_scenes([SCENE]))
    firsts = [TOKENIZER.encode(name)[0] for name in ("Frodo:", "Sam:", "Gollum:", "Someone:")]
    probs = np.exp(state.log_probs[firsts].astype(np.float64))
    actual = np.exp(model.next_speaker_log_probs(state.model_state, state.log_probs))
    assert actual == pytest.approx(probs / probs.sum(), rel=1e-5)


def test_a_state_does_not_grow_with_the_line():
    assert len(prefill(MODEL, [9] * 2 * MAX_LINE_TOKENS).model_state.line) == MAX_LINE_TOKENS


def test_parts_of_another_cast_are_refused():
    with pytest.raises(InvalidInputError, match="knows no speakers"):
        DialogueModel(LSTM, ())
    with pytest.raises(InvalidInputError, match="does not fit the cast"):
        DialogueModel(LSTM, CAST, TurnModel.fit((*CAST[:-1], "NOBODY"), spoken(random_scenes(3))))
    text_model = SpeakerTextModel.fit(2, [])
    with pytest.raises(InvalidInputError, match="another cast"):
        _ = DialogueModel(LSTM, CAST, load_text_model=lambda: text_model).text_model
