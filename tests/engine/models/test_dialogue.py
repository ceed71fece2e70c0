"""Who speaks next, whose words a text has, and dialogue models: against hand calculations, fits and files."""

import base64
import json
import math
from dataclasses import asdict

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.scripts import SCENE_END, script_text
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.generate import prefill
from engine.models import dialogue
from engine.models.base import advance_tokens
from engine.models.dialogue import (
    COMPANY_DECAY,
    FEATURES,
    MAX_LINE_TOKENS,
    MAX_POSITION,
    PRIOR_LINES,
    PRIOR_WORDS,
    TURN_L2,
    WORD_WEIGHT,
    DialogueModel,
    SpeakerTextModel,
    SpokenLine,
    TurnCounts,
    TurnModel,
    TurnState,
    find_mentions,
    fit_conditional_logit,
    fit_softmax_regression,
)
from engine.storage.files import decode, parse_json
from tests.support.models import distributions
from tests.support.random_dialogues import (
    CAST,
    KNESER_NEY,
    LSTM,
    TOKENIZER,
    TRAIN_SCENES,
    TURN_MODEL,
    encode_scenes,
    random_scenes,
    spoken,
)

A, B, C, OTHER = range(4)


def silent(*speakers):
    return [SpokenLine(speaker, "") for speaker in speakers]


def state_after(lines):
    state = TurnState()
    for line in lines:
        state = state.after(line, CAST)
    return state


def count_turns(*scenes):
    counts = TurnCounts([0] * 4, (), (), ())
    for scene in scenes:
        counts.add(scene)
    return counts


def feature(counts, state, name):
    return counts.features(state)[:, FEATURES.index(name)].tolist()


def test_counts_of_a_small_scene_match_a_count_by_hand():
    counts = count_turns(silent(A, B, A, C))
    assert counts.lines.tolist() == [2, 1, 1, 0]

    assert counts.pairs["succession"] == {A: {B: 1, C: 1}, B: {A: 1}}
    assert counts.pairs["second_succession"] == {A: {A: 1}, B: {C: 1}}
    assert counts.pairs["company"] == {A: {B: 2, C: 2}, B: {A: 2, C: 1}, C: {A: 2, B: 1}}
    far = count_turns(silent(A, B, B, B, C), silent(A, B, B, B, B, C))
    assert far.pairs["company"][A][C] == far.pairs["company"][C][A] == 1  # company reaches four lines


def test_features_match_a_computation_by_hand():
    counts = count_turns(silent(A, B, A, C), silent(B, C, B))
    assert CAST[:3] == ("FRODO", "SAM", "GOLLUM")
    state = state_after([SpokenLine(A, ""), SpokenLine(B, "Gollum, Frodo!"), SpokenLine(A, "Sam and Frodo went")])
    frequencies = [3 / 11, 4 / 11, 3 / 11, 1 / 11]  # 2, 3, 2 and 0 lines of 7, with one more for each of the cast
    log_frequencies = [math.log(frequency) for frequency in frequencies]
    assert feature(counts, state, "frequency") == pytest.approx(log_frequencies)
    assert feature(counts, state, "frequency_seen") == pytest.approx([*log_frequencies[:2], 0, 0])
    assert feature(counts, state, "new") == pytest.approx([0, 0, math.log(4), math.log(4)])
    prior = PRIOR_LINES["succession"]
    after_a = [(n + prior * f) / (2 + prior) / f for n, f in zip([0, 1, 1, 0], frequencies, strict=True)]
    assert feature(counts, state, "succession") == pytest.approx([math.log(ratio) for ratio in after_a])
    assert feature(counts, state, "succession_of_last_but_one") == pytest.approx([0, math.log(after_a[B]), 0, 0])
    prior = PRIOR_LINES["second_succession"]
    second = [(n + prior * f) / (2 + prior) / f for n, f in zip([0, 1, 1, 0], frequencies, strict=True)]
    assert feature(counts, state, "second_succession") == pytest.approx([math.log(ratio) for ratio in second])
    assert feature(counts, state, "second_succession_of_last_but_one") == pytest.approx([0, math.log(second[B]), 0, 0])
    prior = PRIOR_LINES["company"]
    near_a = [(n + prior * f) / (4 + prior) / f for n, f in zip([0, 2, 2, 0], frequencies, strict=True)]
    near_b = [(n + prior * f) / (5 + prior) / f for n, f in zip([2, 0, 3, 0], frequencies, strict=True)]
    expected = [
        ((speaker != A) * math.log(near_a[speaker]) + (speaker != B) * COMPANY_DECAY * math.log(near_b[speaker]))
        / (1 + COMPANY_DECAY)
        for speaker in range(4)
    ]
    assert feature(counts, state, "company") == pytest.approx(expected)
    assert feature(counts, state, "third_last") == [1, 0, 0, 0]
    assert feature(counts, state, "alternation") == [0, 1, 0, 0]
    assert feature(counts, state, "named") == [0, 1, 0, 0]
    assert feature(counts, state, "addressed_before") == [0, 0, 1, 0]


def test_the_state_is_bounded_and_a_long_scene_counts_like_one_of_twenty_lines():
    state = state_after(silent(*(number % 3 for number in range(200))))
    assert state.num_lines == MAX_POSITION
    assert state.speakers == (1, 0, 2)
    assert state.last_lines == ((1, 0), (0, 1), (2, 2))
    assert state == state_after(silent(*(number % 3 for number in range(203))))


NAMED = ("FRODO", "SAM", "PIPPIN", "THEODEN", "KING OF THE DEAD", "O'NEIL", "ED", "MERRY", "MERRYDOWN", "SOMEONE")


@pytest.mark.parametrize(
    ("text", "named", "addressed"),
    [
        ("Run, Frodo, run!", "FRODO", "FRODO"), ("run frodo", "FRODO", "FRODO"),
        ("frodo and SAM went", "FRODO SAM", ""), ("Frodo has it, Sam, and Frodo knows", "FRODO SAM", "SAM"),
        ("Frodo's ring", "", ""), ("Samwise the brave", "SAM", ""), ("It is all the same, samwise", "", ""),
        ("Where is Pip?", "PIPPIN", "PIPPIN"), ("pip", "", ""), ("The time has come", "", ""),
        ("Theod is no name but Theo may be", "THEODEN", ""),
        ("Hear me, King of the Dead: rise", "KING OF THE DEAD", "KING OF THE DEAD"),
        ("the king of the living", "", ""), ("Well, O'Neil.", "O'NEIL", "O'NEIL"), ("Ed or Edward?", "ED", ""),
        ("Someone said it", "", ""), ("Frodo-like", "FRODO", ""), ("[bold]Sam[/bold]", "SAM", ""),
        ("Merry said", "MERRY", ""), ("Merryd said", "MERRY MERRYDOWN", ""), ("", "", ""),
    ],
)  # fmt: skip
def test_names_in_a_line_are_found_and_those_who_are_addressed(text, named, addressed):
    for found, expected in zip(find_mentions(text, NAMED), (named, addressed), strict=True):
        assert " ".join(NAMED[speaker] for speaker in sorted(found)) == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 5), st.floats(0.01, 20))
def test_the_gradient_is_zero(seed, num_events, num_alternatives, l2):
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 3, (num_events, num_alternatives, 3))
    chosen = rng.integers(0, num_alternatives, num_events)
    weights = fit_conditional_logit(features, chosen, l2)
    gradient = -l2 * weights
    for rows, choice in zip(features, chosen, strict=True):
        probs = np.exp(rows @ weights - (rows @ weights).max())
        gradient += rows[choice] - probs @ rows / probs.sum()
    assert gradient == pytest.approx(np.zeros(3), abs=1e-2 * (1 + num_events))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "Sam!", "w1 Frodo w2", "Gollum, Sam"])), max_size=12))
def test_probabilities_of_the_next_speaker_sum_to_one(lines):
    state = state_after([SpokenLine(*line) for line in lines])
    log_probs = TURN_MODEL.log_probs(state)
    assert log_probs.shape == (4,)
    assert np.exp(log_probs).sum() == pytest.approx(1)
    logits = count_turns(*spoken(TRAIN_SCENES)).features(state) @ [TURN_MODEL.weights[name] for name in FEATURES]
    assert log_probs - log_probs[0] == pytest.approx(logits - logits[0])


def test_the_fit_is_the_maximum_of_the_penalized_likelihood_without_the_scene_itself():
    scenes = spoken(TRAIN_SCENES)[:15]
    weights = np.array([TurnModel.fit(CAST, scenes).weights[name] for name in FEATURES])
    gradient = -TURN_L2 * weights
    for index, scene in enumerate(scenes):
        counts = count_turns(*scenes[:index], *scenes[index + 1 :])
        state = TurnState()
        for line in scene:
            features = counts.features(state)
            probs = np.exp(features @ weights)
            gradient += features[line.speaker] - probs @ features / probs.sum()
            state = state.after(line, CAST)
    assert gradient == pytest.approx(np.zeros(len(FEATURES)), abs=1e-3)


@pytest.mark.parametrize("scenes", [[], [silent(A)]], ids=["no scene", "one line"])
def test_a_text_without_successions_still_gives_a_model(scenes):
    model = TurnModel.fit(CAST, scenes)
    assert np.exp(model.log_probs(state_after(silent(A, B)))).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"frequency": 1.0}}, "does not fit"), ({"weights": dict.fromkeys(FEATURES, 1e400)}, "JSON"),
        ({"lines": [1, 2]}, "does not fit"), ({"cast": [], "lines": []}, "does not fit"),
        ({"lines": [1, 2, 3, -4]}, "lines"), ({"successions": [[0, 1]]}, "successions"),
        ({"successions": [[0, 4, 1]]}, "does not fit"), ({"company": [[4, 0, 1]]}, "does not fit"),
        ({"company": [[-1, 0, 1]]}, "company"), ({"second_successions": [[0, 1, -1]]}, "second_successions"),
        ({"company": [[0, 1]]}, "company"), ({"lines": "many"}, "lines"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_file_is_refused_in_one_line(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        DialogueModel(LSTM, CAST, decode(TurnModel, parse_json(json.dumps(asdict(TURN_MODEL) | changes))))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(2, 20))
def test_the_gradient_of_the_penalized_likelihood_of_the_letters_is_zero(seed, num_events, l2):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(0, 1, (num_events, 5)), rng.integers(0, 3, num_events)
    weights = fit_softmax_regression(features.astype(np.float32), labels, 3, l2)
    offsets = np.log((np.bincount(labels, minlength=3) + 1) / num_events)
    gradient = -l2 * weights
    for row, label in zip(features, labels, strict=True):
        probs = np.exp(row @ weights + offsets)
        gradient += np.outer(row, np.eye(3)[label] - probs / probs.sum())
    assert np.abs(gradient).max() < 0.01 * (1 + num_events) ** 0.5


TEXT_SCENES = [
    [SpokenLine(0, "My precious, we wants it!"), SpokenLine(1, "Mister Frodo, the potatoes.")],
    [SpokenLine(0, "We needs it, precious."), SpokenLine(1, "Potatoes, Mister Frodo?"), SpokenLine(2, "...")],
] * 4
TEXT_MODEL = SpeakerTextModel.fit(4, TEXT_SCENES)


def test_scores_of_words_match_a_hand_calculation(monkeypatch):
    monkeypatch.setattr(dialogue, "MAX_REGRESSION_SPEAKERS", 1)
    model = SpeakerTextModel.fit(2, [[SpokenLine(0, "a b a"), SpokenLine(0, "a"), SpokenLine(1, "b")]])
    assert model.groups == ()
    # Lines with each word: a 2 and 0, b 1 and 1; frequencies (2 + 0.5) / 5 each.
    counts = ((2, 3), (0, 1))
    expected = [math.log((count + PRIOR_WORDS * 0.5) / (total + PRIOR_WORDS) / 0.5) for count, total in counts]
    assert model.scores("A! a, what?") == pytest.approx([WORD_WEIGHT * ratio for ratio in expected], rel=1e-3)
    assert model.scores("what").tolist() == [0, 0]


@given(st.text(max_size=50))
def test_any_text_has_finite_scores(text):
    scores = TEXT_MODEL.scores(text)
    assert scores.shape == (4,)
    assert np.isfinite(scores).all()


def test_the_end_of_a_long_text_is_used():
    end = "precious " * 300
    assert TEXT_MODEL.scores("potatoes " * 100_000 + end) == pytest.approx(TEXT_MODEL.scores(end))


@pytest.mark.parametrize("scenes", [[], [[]], [[SpokenLine(0, "")]], [[SpokenLine(0, "one")]]], ids=str)
def test_a_text_with_hardly_a_line_gives_no_evidence(scenes):
    assert SpeakerTextModel.fit(2, scenes).scores("something else").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "not base64"}, "base64"),
        ({"weights": base64.b64encode(bytes(6)).decode()}, "do not fit"),
        ({"weights": base64.b64encode(bytes(3)).decode()}, "do not fit"),
        ({"weights": base64.b64encode(TEXT_MODEL.weights[:-2] + b"\0\x7e").decode()}, "do not fit"),
        ({"group_lines": [1]}, "do not fit"), ({"num_lines": -1}, "num_lines"),
        ({"words": []}, "do not fit"), ({"word_counts": [[[0, -1]]]}, "word_counts"),
        ({"word_counts": []}, "do not fit"), ({"groups": 3}, "groups"),
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_model_is_refused_in_one_line(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        decode(SpeakerTextModel, parse_json(json.dumps(json.loads(msgspec.json.encode(TEXT_MODEL)) | changes)))


MODEL = DialogueModel(LSTM, CAST, TURN_MODEL)
SCENE, OTHER_SCENE = random_scenes(2, seed=3)


def turns_after(script):
    return prefill(MODEL, TOKENIZER.encode(script)).model_state.turns


@pytest.mark.parametrize("inner", [LSTM, KNESER_NEY], ids=["lstm", "kneser-ney"])
@settings(max_examples=12, deadline=None)
@given(ids=st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=25))
def test_predictions_are_the_language_models_own_and_any_way_of_reading_leads_to_the_same_turns(inner, ids):
    model = DialogueModel(inner, CAST, TURN_MODEL)
    assert distributions(model, ids) == pytest.approx(distributions(inner, ids))
    _, state = model.predict_tokens(model.start(), [EOS_ID, *ids])
    _, same_state = advance_tokens(model, model.start(), [EOS_ID, *ids])
    assert (state.turns, state.line) == (same_state.turns, same_state.line)


def test_the_turn_model_reads_the_lines_of_the_current_scene():
    expected = TurnState()
    for line in spoken([SCENE])[0]:
        expected = expected.after(line, CAST)
    state = prefill(MODEL, encode_scenes([OTHER_SCENE, SCENE]))
    assert state.model_state.turns == expected
    actual = MODEL.next_speaker_log_probs(state.model_state, state.log_probs)
    assert actual.tolist() == TURN_MODEL.log_probs(expected).tolist()


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
