"""Comparison columns equal texts generated alone, and the measures of their difference."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers import EOS, EOS_ID
from engine.generation.generate import Done, TextInProgress, generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import MAX_HISTORY_TOKENS
from engine.runtime.process import Cancellation
from lotr_tui.session import comparison
from lotr_tui.session.comparison import GenerationColumn, generate_columns, generated_words
from tests.support.dialogues import dialogue_model
from tests.support.sampling import FixedModel, history_dependent_probs, make_token_event, without_times

CHAOTIC_MODEL = FixedModel(history_dependent_probs)  # whose texts stay different once they differ
PROMPT_IDS = (2, 3)


def run(columns, seed=0):
    events = list(generate_columns(columns, seed, Cancellation()))
    return [[event for number, event in events if number == column] for column in range(len(columns))]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=4), st.integers(0, 2**32))
def test_each_column_equals_the_text_generated_alone(temperatures, seed):
    chains = [SamplerSettings(temperature=each, max_tokens=8) for each in temperatures]
    columns = [GenerationColumn(CHAOTIC_MODEL, PROMPT_IDS, chain) for chain in chains]
    for column, events in zip(columns, run(columns, seed), strict=True):
        alone = generate(TextInProgress(CHAOTIC_MODEL, PROMPT_IDS, column.settings, seed))
        assert without_times(events) == without_times(alone)


def test_continued_text_of_a_dialogue_model_ends_with_its_line():
    model = dialogue_model(end_bias=6)
    ids = model.tokenizer.encode("GANDALF: Where is").tolist()
    *tokens, done = run([GenerationColumn(model, tuple(ids), SamplerSettings(max_tokens=100))])[0]
    assert done.reason == "eos"
    assert not any("\n" in token.piece for token in tokens)


def test_generated_words_are_the_words_of_the_text_its_line_feeds_and_its_end():
    pieces = ("ard", ",", " s", "aid", "", " ", "“no", "\n\n", "The", " end.")
    events = [make_token_event(index=i, piece=piece) for i, piece in enumerate(pieces)]
    words = ["ard,", "said", "“no", "\n", "\n", "The", "end."]
    assert generated_words(events) == words
    assert generated_words([*events, Done("eos", 0, 10, 1.0)]) == [*words, EOS]
    assert generated_words([*events, Done("length", 0, 10, 1.0)]) == words
    assert generated_words([]) == []


@pytest.mark.parametrize(
    ("words", "others", "first", "fraction"),
    [
        ("a", "", None, 0),
        ("a b c d", "a x c y e", 1, 2 / 4),  # the fifth token is not generated yet
        ("a b <eos>", "a b c d e", 2, 3 / 5),  # the text ended, so c, d and e are not in it
        ("<eos>", "a", 0, 1),
    ],
)
def test_differences_of_short_texts(words, others, first, fraction):
    for a, b in ((words, others), (others, words)):
        assert comparison.first_difference(a.split(), b.split()) == first
        assert comparison.fraction_differing(a.split(), b.split()) == pytest.approx(fraction)


def test_mean_surprisal_of_words_is_in_bits_of_the_models_own_probabilities():
    pieces, probs = (" a", " wiz", "ard", "\n"), (1 / 2, 1 / 8, 1 / 16, 1 / 2)
    events = [make_token_event(logprob=math.log(p), piece=text) for p, text in zip(probs, pieces, strict=True)]
    assert comparison.mean_surprisal([*events, Done("eos", 0, 3, 1.0)]) == pytest.approx((1 + 3 + 4 + 1) / 2)
    assert comparison.mean_surprisal([Done("cancelled", 0, 0, 0.0)]) is None


def test_the_repetition_penalty_of_a_column_counts_as_many_tokens_as_in_a_reply():
    before, head = tuple(range(200)), (7, 8)
    line = GenerationColumn(CHAOTIC_MODEL, (*before, *head), SamplerSettings(), lines_before=before)
    assert line.penalized_ids == (*before[-MAX_HISTORY_TOKENS:], *head)
    assert replace(line, lines_before=None, is_chat=True).penalized_ids == (*before, *head)[-MAX_HISTORY_TOKENS:]
    assert replace(line, lines_before=None).penalized_ids == line.ids  # of a text that is continued, all


def test_columns_of_one_model_read_their_common_text_once():
    model = FixedModel(history_dependent_probs)
    context, lasts = (2, 3, 4, 5), (6, 7, 8)
    settings = SamplerSettings(max_tokens=6)
    columns = [GenerationColumn(model, (*context, last), settings, lines_before=context) for last in lasts]
    alone = [run([column], 3)[0] for column in columns]
    model.calls.clear()
    assert list(map(without_times, run(columns, 3))) == list(map(without_times, alone))
    assert [token for _, token in model.calls[:5]] == [EOS_ID, *context]
    assert sorted(token for state, token in model.calls if state == (EOS_ID, *context)) == sorted(lasts)
    assert len({*model.calls}) == len(model.calls)
