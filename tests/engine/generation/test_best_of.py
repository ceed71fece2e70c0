"""Best of several answers: log-probabilities against separate computations, order and seeds."""

from dataclasses import replace

import numpy as np
import pytest

from engine.data.scripts import Turn, encode_speaker, encode_turn, encode_turns
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.generate import Done, TokenEvent, generate, prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import MAX_ANSWERS, NUM_SCORED_TOKENS, begin_turn, read_turns, stream_answers
from engine.models.base import LanguageModel, score_sequence
from engine.models.dialogue import DialogueModel
from tests.support.random_dialogues import CAST, KNESER_NEY, LINE_END_ID, LSTM, TOKENIZER, TURN_MODEL, WORD_IDS

MODELS: list[LanguageModel] = [DialogueModel(LSTM, CAST, TURN_MODEL), DialogueModel(KNESER_NEY, CAST, TURN_MODEL)]
CONTEXT = (Turn("FRODO", "oak elm"), Turn("GOLLUM", "fir yew"))
SAM = encode_speaker(TOKENIZER, "SAM")
SETTINGS = SamplerSettings(temperature=1.0, max_tokens=3)
by_model = pytest.mark.parametrize("model", MODELS, ids=["lstm", "kneser-ney"])


def begin_answer(model, seed=3, settings=SETTINGS, history=()):
    return begin_turn(model, read_turns(model, CONTEXT), "SAM", settings, seed, history)


def answers(model, seed=3, num_answers=8, settings=SETTINGS, history=(), **options):
    *_, found = stream_answers(begin_answer(model, seed, settings, history), num_answers, **options)
    return found


def answer_ids(answer):
    return [event.id for event in answer.events] + ([LINE_END_ID] if answer.done.reason == "eos" else [])


@by_model
def test_log_probabilities_are_those_of_the_first_tokens_of_the_whole_text(model):
    longer = replace(SETTINGS, max_tokens=NUM_SCORED_TOKENS + 2)
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
def test_each_answer_can_be_generated_again_by_its_seed(model):
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
def test_the_first_answer_is_streamed_from_its_choice_on(model, max_tokens):
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
def test_answers_that_repeat_an_earlier_line_come_last(model):
    best, *_ = answers(model)
    said = encode_turn(TOKENIZER, Turn("FRODO", best.text))
    again = answers(model, history=said)
    repeated = [answer.text == best.text for answer in again]
    assert repeated == sorted(repeated)
    assert [answer.is_repetition for answer in again] == repeated
    assert not again[0].is_repetition


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


@pytest.mark.parametrize("period", [1, 3])
def test_answers_that_repeat_one_token_or_up_to_four_come_last(period):
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
def test_a_cancelled_search_returns_what_was_said(num_calls):
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


def test_invalid_requests_are_refused_in_one_line():
    for number in (0, -1, MAX_ANSWERS + 1):
        with pytest.raises(InvalidInputError, match="best of"):
            answers(MODELS[0], num_answers=number)
