"""Turns: the next speaker, and scenes that a model generates."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.scripts import Turn, encode_speaker, encode_turn, encode_turns
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.generate import Done, TokenEvent, generate, prefill
from engine.generation.settings import MAX_SEED, SamplerSettings
from engine.generation.turns import (
    MAX_ANSWERS,
    NUM_SCORED_TOKENS,
    SpeakerProb,
    TurnStart,
    answerer_probs,
    begin_turn,
    generate_scene,
    next_speaker_probs,
    read_turns,
    sample_speaker,
    scene_candidates,
    stream_answers,
)
from engine.models.base import LanguageModel, score_sequence
from engine.models.dialogue import DialogueModel
from tests.support.random_dialogues import CAST, KNESER_NEY, LINE_END_ID, LSTM, TOKENIZER, TURN_MODEL, WORD_IDS
from tests.support.sampling import said_text_of, script_of

MODEL = DialogueModel(LSTM, CAST, TURN_MODEL)
SETTINGS = SamplerSettings(temperature=1.0, max_tokens=6)
ANYONE = [name for name in CAST if name not in ("STRANGER", "SOMEONE")]
TURNS = (Turn("FRODO", "oak elm"), Turn("SAM", "fir"))


def scene(seed=1, num_turns=5, **arguments):
    defaults: dict[str, object] = {"cast": None, "settings": SETTINGS}
    return list(generate_scene(MODEL, num_turns=num_turns, seed=seed, **(defaults | arguments)))


def starts_of(events):
    return [event for event in events if isinstance(event, TurnStart)]


class TestAnswerers:
    def test_who_was_in_the_talk_answers_before_the_best_known_and_these_before_others(self):
        state = read_turns(MODEL, [Turn("STRANGER", "oak"), Turn("GOLLUM", "fir"), Turn("STRANGER", "elm")])
        raw = {each.name: each.prob for each in next_speaker_probs(MODEL, state, CAST)}
        factors = dict.fromkeys(("GANDALF", "FRODO", "SAM"), 4.0) | {"GOLLUM": 8.0}
        weighted = {name: (prob * factors.get(name, 1.0)) ** (1 / 0.3) for name, prob in raw.items() if name in ANYONE}
        expected = {name: weight / sum(weighted.values()) for name, weight in weighted.items()}
        answerers = answerer_probs(MODEL, state, ANYONE)
        assert {each.name: each.prob for each in answerers} == pytest.approx(expected)
        assert answerers == sorted(answerers, key=lambda each: -each.prob)
        assert answerer_probs(MODEL, state, ANYONE, None) == next_speaker_probs(MODEL, state, ANYONE)

    def test_they_are_drawn_from_the_probabilities_that_are_shown(self):
        probs = [SpeakerProb("SAM", 0.6), SpeakerProb("FRODO", 0.3), SpeakerProb("GOLLUM", 0.1)]
        drawn = Counter(sample_speaker(probs, CAST, 1.0, seed).name for seed in range(1500))
        assert {name: number / 1500 for name, number in drawn.items()} == pytest.approx(
            {each.name: each.prob for each in probs}, abs=0.04
        )


class TestScenes:
    def test_an_unknown_speaker_and_an_empty_cast_are_refused(self):
        with pytest.raises(InvalidInputError, match=r"'Golum' is not in the cast .*did you mean GOLLUM"):
            next_speaker_probs(MODEL, prefill(MODEL, []), ["SAM", "Golum"])
        with pytest.raises(InvalidInputError, match="cast is empty"):
            next_speaker_probs(MODEL, prefill(MODEL, []), [])

    def test_next_speakers_have_the_turn_models_probabilities_in_the_given_cast(self):
        state = read_turns(MODEL, TURNS)
        expected = dict(zip(CAST, np.exp(TURN_MODEL.log_probs(state.model_state.turns)), strict=True))
        assert {speaker.name: speaker.prob for speaker in next_speaker_probs(MODEL, state)} == pytest.approx(expected)
        for cast in (("GOLLUM", "sam", "GOLLUM"), CAST):
            speakers = next_speaker_probs(MODEL, state, cast)
            assert {speaker.name for speaker in speakers} == {name.upper() for name in cast}
            assert sum(speaker.prob for speaker in speakers) == pytest.approx(1)
            assert list(speakers) == sorted(speakers, key=lambda speaker: -speaker.prob)

    @pytest.mark.parametrize("temperature", [0.5, 1.0])
    def test_speakers_are_sampled_with_their_probabilities(self, temperature):
        probs = [SpeakerProb("FRODO", 0.6), SpeakerProb("SAM", 0.3), SpeakerProb("GOLLUM", 0.1)]
        counts = Counter(sample_speaker(probs, CAST, temperature, seed).name for seed in range(3000))
        powers = [speaker.prob ** (1 / temperature) for speaker in probs]
        for speaker, power in zip(probs, powers, strict=True):
            assert counts[speaker.name] / 3000 == pytest.approx(power / sum(powers), abs=0.035)
        assert {sample_speaker(probs[::-1], CAST, 0, seed).name for seed in range(20)} == {"FRODO"}

    def test_a_scene_has_its_turns_in_the_form_of_its_events(self):
        events = iter(scene())
        for _ in range(5):
            assert isinstance(next(events), TurnStart)
            ids = []
            while isinstance(event := next(events), TokenEvent):
                ids.append(event.id)
            assert set(ids) <= set(WORD_IDS.values())
            assert event.tokens == len(ids) > 0
        assert not list(events)

    def test_probabilities_of_a_scene_are_those_of_its_turns(self):
        events = scene()
        turns = script_of(events)
        for number, start in enumerate(starts_of(events)):
            state = read_turns(MODEL, turns[:number])
            others = [name for name in CAST if not number or name != turns[number - 1].speaker]
            expected = {speaker.name: speaker.prob for speaker in next_speaker_probs(MODEL, state, others)}
            assert start.prob == pytest.approx(expected[start.speaker])
            assert {speaker.name: speaker.prob for speaker in start.candidates} == pytest.approx(expected)

    def test_nobody_speaks_twice_in_a_row_unless_alone(self):
        turns = [turn.speaker for turn in script_of(scene(num_turns=40))]
        assert all(one != other for one, other in itertools.pairwise(turns))
        history = encode_turns(TOKENIZER, TURNS)
        state, last = read_turns(MODEL, TURNS), TURNS[-1].speaker
        scenes = [script_of(scene(seed=seed, state=state, num_turns=1, history=history)) for seed in range(30)]
        assert {turn.speaker for (turn,) in scenes} == set(CAST) - {last}
        assert [turn.speaker for turn in script_of(scene(cast=["Sam"], num_turns=3))] == ["SAM"] * 3

    def test_a_seed_gives_the_same_scene_of_any_length_and_another_seed_another(self):
        assert script_of(scene(num_turns=7))[:3] == script_of(scene(num_turns=3))
        starts = starts_of(scene(num_turns=20, seed=MAX_SEED))
        assert len({start.seed for start in starts}) == 20
        assert all(0 <= start.seed < 1_000_000 for start in starts), "short enough to be typed"
        assert script_of(scene(seed=4)) == script_of(scene(seed=4)) != script_of(scene(seed=5))

    def test_a_turn_of_a_scene_can_be_generated_again_by_its_seed(self):
        events = scene()
        turns = script_of(events)
        for number, (start, turn) in enumerate(zip(starts_of(events), turns, strict=True)):
            state, history = read_turns(MODEL, turns[:number]), encode_turns(TOKENIZER, turns[:number])
            assert (
                said_text_of(generate(begin_turn(MODEL, state, start.speaker, SETTINGS, start.seed, history))).strip()
                == turn.text
            )

    def test_the_noise_of_a_line_depends_on_what_was_said(self):
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

    def test_only_the_given_cast_speaks_and_state_continues_a_scene(self):
        state = read_turns(MODEL, TURNS)
        events = scene(cast=["SAM", "Gollum"], state=state, num_turns=20)
        assert {turn.speaker for turn in script_of(events)} == {"SAM", "GOLLUM"}
        others = {speaker.name: speaker.prob for speaker in next_speaker_probs(MODEL, state, ["SAM", "GOLLUM"])}
        assert events[0].prob == others[events[0].speaker]

    @given(st.integers(1, 5), st.integers(1, 20), st.data())
    def test_all_of_a_named_cast_speak_whoever_is_preferred(self, num_names, num_turns, data):
        names, spoken = "ABCDE"[:num_names], []
        for number in range(num_turns):
            may_speak = scene_candidates(names, spoken, num_turns - number)
            assert num_names == 1 or not spoken or spoken[-1] not in may_speak
            spoken.append(data.draw(st.sampled_from(may_speak)))
        assert num_turns < num_names or set(spoken) == set(names)
        for start in range(num_turns - 3 * num_names):
            assert set(spoken[start : start + 3 * num_names]) == set(names)

    def test_in_a_scene_of_three_nobody_is_left_out_where_the_likeliest_would_be_two(self):
        greedy = SamplerSettings(temperature=0, max_tokens=6)
        without_a_cast = {turn.speaker for turn in script_of(scene(num_turns=8, settings=greedy))}
        named = [turn.speaker for turn in script_of(scene(num_turns=8, settings=greedy, cast=CAST[:3]))]
        assert len(without_a_cast) == 2
        assert set(named[:5]) == set(CAST[:3])

    @pytest.mark.parametrize("num_calls", [0, 4])
    def test_a_scene_ends_at_any_token(self, num_calls):
        remaining = iter([False] * num_calls)
        events = scene(cancelled=lambda: next(remaining, True))
        tokens = [event.id for event in events if isinstance(event, TokenEvent)]
        assert tokens == [event.id for event in scene() if isinstance(event, TokenEvent)][: len(tokens)]
        assert len(tokens) <= num_calls
        ends = [event for event in events if isinstance(event, Done)]
        assert [len(turn.text.split()) for turn in script_of(events)] == [end.tokens for end in ends]
        assert all(end.reason != "cancelled" for end in ends[:-1])

    def test_anybody_can_say_a_line_which_ends_at_its_line_end(self):
        state = read_turns(MODEL, TURNS)
        line = begin_turn(MODEL, state, "SAURON", SamplerSettings(temperature=1.0, max_tokens=99), 2)
        *tokens, done = generate(line)
        assert done.reason == "eos"
        assert not {token.id for token in tokens} & set(TOKENIZER.line_end_ids.tolist())
        after = read_turns(MODEL, [*TURNS, Turn("SAURON", "".join(token.piece for token in tokens))])
        ended = prefill(MODEL, TOKENIZER.encode("\n").tolist(), line.state)
        assert ended.log_probs == pytest.approx(after.log_probs, abs=1e-5)


MODELS: list[LanguageModel] = [DialogueModel(LSTM, CAST, TURN_MODEL), DialogueModel(KNESER_NEY, CAST, TURN_MODEL)]
CONTEXT = (Turn("FRODO", "oak elm"), Turn("GOLLUM", "fir yew"))
SAM = encode_speaker(TOKENIZER, "SAM")
SHORT = SamplerSettings(temperature=1.0, max_tokens=3)
by_model = pytest.mark.parametrize("model", MODELS, ids=["lstm", "kneser-ney"])


def begin_answer(model, seed=3, settings=SHORT, history=()):
    return begin_turn(model, read_turns(model, CONTEXT), "SAM", settings, seed, history)


def answers(model, seed=3, num_answers=8, settings=SHORT, history=(), **options):
    *_, found = stream_answers(begin_answer(model, seed, settings, history), num_answers, **options)
    return found


def answer_ids(answer):
    return [event.id for event in answer.events] + ([LINE_END_ID] if answer.done.reason == "eos" else [])


class Stammerer:
    """A model that likes to say again what it said `period` tokens ago."""

    tokenizer = TOKENIZER

    def __init__(self, period):
        self.period = period

    def start(self):
        return (EOS_ID,) * self.period

    def advance(self, state, token):
        state = (*state[1:], token)
        logits = np.full(len(TOKENIZER), -100.0, np.float32)
        logits[[*WORD_IDS.values(), LINE_END_ID]] = 0.0
        logits[state[0]] += 1.0 + self.period
        return logits - np.log(np.exp(logits).sum()), state


class TestAnswers:
    @by_model
    def test_log_probabilities_are_those_of_the_first_tokens_of_the_whole_text(self, model):
        longer = replace(SHORT, max_tokens=NUM_SCORED_TOKENS + 2)
        found = [*answers(model), *answers(model, settings=longer, num_answers=MAX_ANSWERS)]
        assert {answer.done.reason for answer in found} == {"eos", "length"}
        assert model is MODELS[1] or max(len(answer_ids(answer)) for answer in found) > NUM_SCORED_TOKENS
        for answer in found:
            ids = answer_ids(answer)[:NUM_SCORED_TOKENS]
            context = encode_turns(TOKENIZER, CONTEXT)
            scores = score_sequence(model, np.array([*context, *SAM, *ids], np.int32))[len(context) + len(SAM) :].sum()
            alone = score_sequence(model, np.array([*SAM, *ids], np.int32))[len(SAM) :].sum()
            assert answer.num_tokens == len(ids)
            assert answer.log_prob == pytest.approx(scores, abs=2e-3)  # any end counts, also the improbable <eos>
            assert answer.log_prob_alone == pytest.approx(alone, abs=2e-3)
        order = [each.log_prob - each.log_prob_alone + 0.3 * min(10, len(answer_ids(each))) for each in found[:8]]
        assert order == sorted(order, reverse=True)
        assert order[0] > order[-1]

    @by_model
    def test_each_answer_can_be_generated_again_by_its_seed(self, model):
        found = answers(model, seed=10)
        assert sorted(answer.done.seed for answer in found) == list(range(10, 18))
        for answer in found:
            *again, done = generate(begin_answer(model, answer.done.seed))
            assert [event.id for event in again if not isinstance(event, Done)] == [event.id for event in answer.events]
            assert isinstance(done, Done)
            assert done.reason == answer.done.reason
            assert answer.text == TOKENIZER.decode([event.id for event in answer.events]).strip()

    @pytest.mark.parametrize("max_tokens", [1, NUM_SCORED_TOKENS + 2])
    @by_model
    def test_the_first_answer_is_streamed_from_its_choice_on(self, model, max_tokens):
        settings = SamplerSettings(temperature=1.0, max_tokens=max_tokens)
        chosen, *streamed, found = stream_answers(begin_answer(model, settings=settings))
        assert chosen.seed == found[0].done.seed
        assert streamed == list(found[0].events)
        ids = [*encode_turns(TOKENIZER, CONTEXT), *SAM]
        for event in streamed:
            assert isinstance(event, TokenEvent)
            ids.append(event.id)
            assert event.state.log_probs == pytest.approx(prefill(model, ids).log_probs, abs=1e-4)
        again = answers(model, settings=settings)
        assert [answer.done.seed for answer in found] == [answer.done.seed for answer in again]

    @by_model
    def test_answers_that_repeat_an_earlier_line_come_last(self, model):
        best, *_ = answers(model)
        said = encode_turn(TOKENIZER, Turn("FRODO", best.text))
        again = answers(model, history=said)
        repeated = [answer.text == best.text for answer in again]
        assert repeated == sorted(repeated)
        assert [answer.is_repetition for answer in again] == repeated
        assert not again[0].is_repetition

    @pytest.mark.parametrize("period", [1, 3])
    def test_answers_that_repeat_one_token_or_up_to_four_come_last(self, period):
        model = Stammerer(period)
        settings = SamplerSettings(temperature=1.0, max_tokens=12)
        found = answers(model, 0, 32, settings)
        loops = []
        for answer in found:
            ids = [event.id for event in answer.events[:10]]
            spans = [(ids[start : start + 4], 4, 1) for start in range(7)]
            spans += [(ids[start : start + 8], 8, period) for start in range(3) for period in (2, 3, 4)]
            loops.append(any(len(span) == size and span == (span[:period] * 8)[:size] for span, size, period in spans))
        assert 4 < sum(loops) < 28
        assert loops == sorted(loops)
        assert [answer.is_repetition for answer in found] == loops

    @pytest.mark.parametrize("num_calls", [0, 1, 2])
    def test_a_cancelled_search_returns_what_was_said(self, num_calls):
        remaining = iter([False] * num_calls)
        model = MODELS[0]
        found = answers(model, num_answers=5, cancelled=lambda: next(remaining, True))
        assert len(found) == 5
        full = {answer.done.seed: answer for answer in answers(model, num_answers=5)}
        for answer in found:
            expected = [event.id for event in full[answer.done.seed].events][:num_calls]
            assert [event.id for event in answer.events] == expected
            assert answer.done.reason == "cancelled" or len(full[answer.done.seed].events) < num_calls
            assert answer.num_tokens == len(answer.events) + (answer.done.reason == "eos")

    def test_invalid_requests_are_refused_in_one_line(self):
        for number in (0, -1, MAX_ANSWERS + 1):
            with pytest.raises(InvalidInputError, match="best of"):
                answers(MODELS[0], num_answers=number)
