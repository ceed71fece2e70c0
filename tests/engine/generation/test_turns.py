"""Turns: the next speaker, and scenes that a model generates."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.scripts import Turn, encode_turns
from engine.errors import InvalidInputError
from engine.generation.generate import Done, TokenEvent, generate, prefill
from engine.generation.settings import MAX_SEED, SamplerSettings
from engine.generation.turns import (
    SpeakerProb,
    TurnStart,
    begin_turn,
    generate_scene,
    next_speaker_probs,
    read_turns,
    sample_speaker,
    scene_candidates,
)
from engine.models.dialogue import DialogueModel
from tests.support.random_dialogues import CAST, KNESER_NEY, LSTM, TOKENIZER, TURN_MODEL, WORD_IDS
from tests.support.sampling import said_text_of, script_of

MODEL = DialogueModel(LSTM, CAST, TURN_MODEL)
SETTINGS = SamplerSettings(temperature=1.0, max_tokens=6)
TURNS = (Turn("FRODO", "oak elm"), Turn("SAM", "fir"))


def scene(seed=1, num_turns=5, **arguments):
    defaults: dict[str, object] = {"cast": None, "settings": SETTINGS}
    return list(generate_scene(MODEL, num_turns=num_turns, seed=seed, **(defaults | arguments)))


def starts_of(events):
    return [event for event in events if isinstance(event, TurnStart)]


def test_an_unknown_speaker_and_an_empty_cast_are_refused():
    with pytest.raises(InvalidInputError, match="did you mean GOLLUM"):
        next_speaker_probs(MODEL, prefill(MODEL, []), ["Golum"])
    with pytest.raises(InvalidInputError, match="'SAURON' is not in the cast"):
        next_speaker_probs(MODEL, prefill(MODEL, []), ["SAM", "SAURON"])
    with pytest.raises(InvalidInputError, match="cast is empty"):
        next_speaker_probs(MODEL, prefill(MODEL, []), [])


def test_next_speakers_have_the_turn_models_probabilities_in_the_given_cast():
    state = read_turns(MODEL, TURNS)
    expected = dict(zip(CAST, np.exp(TURN_MODEL.log_probs(state.model_state.turns)), strict=True))
    assert {speaker.name: speaker.prob for speaker in next_speaker_probs(MODEL, state)} == pytest.approx(expected)
    for cast in (("GOLLUM", "sam", "GOLLUM"), CAST):
        speakers = next_speaker_probs(MODEL, state, cast)
        assert {speaker.name for speaker in speakers} == {name.upper() for name in cast}
        assert sum(speaker.prob for speaker in speakers) == pytest.approx(1)
        assert list(speakers) == sorted(speakers, key=lambda speaker: -speaker.prob)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_speakers_are_sampled_with_their_probabilities(temperature):
    probs = [SpeakerProb("FRODO", 0.6), SpeakerProb("SAM", 0.3), SpeakerProb("GOLLUM", 0.1)]
    counts = Counter(sample_speaker(probs, CAST, temperature, seed).name for seed in range(3000))
    powers = [speaker.prob ** (1 / temperature) for speaker in probs]
    for speaker, power in zip(probs, powers, strict=True):
        assert counts[speaker.name] / 3000 == pytest.approx(power / sum(powers), abs=0.035)
    assert {sample_speaker(probs[::-1], CAST, 0, seed).name for seed in range(20)} == {"FRODO"}


def test_a_scene_has_its_turns_in_the_form_of_its_events():
    events = iter(scene())
    for _ in range(5):
        assert isinstance(next(events), TurnStart)
        ids = []
        while isinstance(event := next(events), TokenEvent):
            ids.append(event.id)
        assert set(ids) <= set(WORD_IDS.values())
        assert event.tokens == len(ids) > 0
    assert not list(events)


def test_probabilities_of_a_scene_are_those_of_its_turns():
    events = scene()
    turns = script_of(events)
    for number, start in enumerate(starts_of(events)):
        state = read_turns(MODEL, turns[:number])
        others = [name for name in CAST if not number or name != turns[number - 1].speaker]
        expected = {speaker.name: speaker.prob for speaker in next_speaker_probs(MODEL, state, others)}
        assert start.prob == pytest.approx(expected[start.speaker])
        assert {speaker.name: speaker.prob for speaker in start.candidates} == pytest.approx(expected)


def test_nobody_speaks_twice_in_a_row_unless_alone():
    turns = [turn.speaker for turn in script_of(scene(num_turns=40))]
    assert all(one != other for one, other in itertools.pairwise(turns))
    history = encode_turns(TOKENIZER, TURNS)
    state, last = read_turns(MODEL, TURNS), TURNS[-1].speaker
    firsts = {script_of(scene(seed=seed, state=state, num_turns=1, history=history))[0].speaker for seed in range(30)}
    assert firsts == set(CAST) - {last}
    assert [turn.speaker for turn in script_of(scene(cast=["Sam"], num_turns=3))] == ["SAM"] * 3


def test_a_seed_gives_the_same_scene_of_any_length_and_another_seed_another():
    assert script_of(scene(num_turns=7))[:3] == script_of(scene(num_turns=3))
    starts = starts_of(scene(num_turns=20, seed=MAX_SEED))
    assert len({start.seed for start in starts}) == 20
    assert all(0 <= start.seed < 1_000_000 for start in starts), "short enough to be typed"
    assert script_of(scene(seed=4)) == script_of(scene(seed=4)) != script_of(scene(seed=5))


def test_a_turn_of_a_scene_can_be_generated_again_by_its_seed():
    events = scene()
    turns = script_of(events)
    for number, (start, turn) in enumerate(zip(starts_of(events), turns, strict=True)):
        state, history = read_turns(MODEL, turns[:number]), encode_turns(TOKENIZER, turns[:number])
        assert (
            said_text_of(generate(begin_turn(MODEL, state, start.speaker, SETTINGS, start.seed, history))).strip()
            == turn.text
        )


def test_the_noise_of_a_line_depends_on_what_was_said():
    """The model has no memory of the lines before, so only the noise can differ."""
    model = DialogueModel(KNESER_NEY, CAST)
    settings = SamplerSettings(max_tokens=8)
    lines = []
    for words in ("oak", "elm", "oak fir", "oak"):
        turns = [Turn("FRODO", f"{words} yew bay ash oak elm")]
        state, history = read_turns(model, turns), encode_turns(TOKENIZER, turns)
        lines.append(said_text_of(generate(begin_turn(model, state, "SAM", settings, 3, history))))
    assert lines[0] == lines[3]
    assert len(set(lines)) == 3


def test_only_the_given_cast_speaks_and_state_continues_a_scene():
    state = read_turns(MODEL, TURNS)
    events = scene(cast=["SAM", "Gollum"], state=state, num_turns=20)
    assert {turn.speaker for turn in script_of(events)} == {"SAM", "GOLLUM"}
    others = {speaker.name: speaker.prob for speaker in next_speaker_probs(MODEL, state, ["SAM", "GOLLUM"])}
    assert events[0].prob == others[events[0].speaker]


@given(st.integers(1, 5), st.integers(1, 20), st.data())
def test_all_of_a_named_cast_speak_whoever_is_preferred(num_names, num_turns, data):
    names, spoken = "ABCDE"[:num_names], []
    for number in range(num_turns):
        may_speak = scene_candidates(names, spoken, num_turns - number)
        assert num_names == 1 or not spoken or spoken[-1] not in may_speak
        spoken.append(data.draw(st.sampled_from(may_speak)))
    assert num_turns < num_names or set(spoken) == set(names)
    for start in range(num_turns - 3 * num_names):
        assert set(spoken[start : start + 3 * num_names]) == set(names)


def test_in_a_scene_of_three_nobody_is_left_out_where_the_likeliest_would_be_two():
    greedy = SamplerSettings(temperature=0, max_tokens=6)
    without_a_cast = {turn.speaker for turn in script_of(scene(num_turns=8, settings=greedy))}
    named = [turn.speaker for turn in script_of(scene(num_turns=8, settings=greedy, cast=CAST[:3]))]
    assert len(without_a_cast) == 2
    assert set(named[:5]) == set(CAST[:3])


@pytest.mark.parametrize("num_calls", [0, 4])
def test_a_scene_ends_at_any_token(num_calls):
    remaining = iter([False] * num_calls)
    events = scene(cancelled=lambda: next(remaining, True))
    tokens = [event.id for event in events if isinstance(event, TokenEvent)]
    assert tokens == [event.id for event in scene() if isinstance(event, TokenEvent)][: len(tokens)]
    assert len(tokens) <= num_calls
    ends = [event for event in events if isinstance(event, Done)]
    assert [len(turn.text.split()) for turn in script_of(events)] == [end.tokens for end in ends]
    assert all(end.reason != "cancelled" for end in ends[:-1])


def test_anybody_can_say_a_line_which_ends_at_its_line_end():
    state = read_turns(MODEL, TURNS)
    line = begin_turn(MODEL, state, "SAURON", SamplerSettings(temperature=1.0, max_tokens=99), 2)
    *tokens, done = generate(line)
    assert done.reason == "eos"
    assert not {token.id for token in tokens} & set(TOKENIZER.line_end_ids.tolist())
    after = read_turns(MODEL, [*TURNS, Turn("SAURON", "".join(token.piece for token in tokens))])
    ended = prefill(MODEL, TOKENIZER.encode("\n").tolist(), line.state)
    assert ended.log_probs == pytest.approx(after.log_probs, abs=1e-5)
