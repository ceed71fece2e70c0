"""Comparison columns equal texts generated alone, and the measures of their difference."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers.base import EOS, EOS_ID, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import InvalidInputError
from engine.generation import columns as comparison
from engine.generation.batch import IndexedEvent
from engine.generation.columns import GenerationColumn, generate_columns, generated_words
from engine.generation.generate import Done, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import Turn, encode_turns
from engine.models.ngram import KneserNey
from engine.runtime.worker import Cancellation
from tests.support.dialogues import dialogue_model, record_read_tokens
from tests.support.sampling import FixedModel, history_dependent_probs, make_token_event, without_times, zipf_probs

TEMPERATURES = (0.5, 0.7, 0.75, 0.8, 1.0)
CHAOTIC_MODEL = FixedModel(history_dependent_probs)
"""A model whose texts stay different once they differ, since its distribution depends on the whole history."""
PROMPT_IDS = (2, 3)


def temperature_columns(model: FixedModel, temperatures: Sequence[float], words: int = 20) -> list[GenerationColumn]:
    return [GenerationColumn(model, PROMPT_IDS, SamplerSettings(temperature=t, max_tokens=words)) for t in temperatures]


def texts(events: Sequence[IndexedEvent], columns: int) -> list[list[TokenEvent | Done]]:
    return [[event for number, event in events if number == column] for column in range(columns)]


def run(columns: Sequence[GenerationColumn], seed: int = 0) -> list[list[TokenEvent | Done]]:
    return texts(list(generate_columns(columns, seed, Cancellation())), len(columns))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=4), st.integers(0, 2**32))
def test_each_column_equals_the_text_generated_alone(temperatures: list[float], seed: int) -> None:
    columns = temperature_columns(CHAOTIC_MODEL, temperatures, words=8)
    for column, events in zip(columns, run(columns, seed), strict=True):
        assert without_times(events) == without_times(list(generate(CHAOTIC_MODEL, PROMPT_IDS, column.settings, seed)))


def test_columns_take_turns_until_each_has_ended() -> None:
    columns = [GenerationColumn(CHAOTIC_MODEL, PROMPT_IDS, SamplerSettings(max_tokens=n)) for n in (2, 5, 3)]
    events = list(generate_columns(columns, 5, Cancellation()))
    assert [number for number, _ in events] == [0, 1, 2] * 3 + [1, 2] + [1] * 2
    for events_of_one in texts(events, 3):
        assert isinstance(events_of_one[-1], Done)
        assert not any(isinstance(event, Done) for event in events_of_one[:-1])


def test_cancelling_ends_every_column() -> None:
    cancellation = Cancellation()
    events = generate_columns(temperature_columns(CHAOTIC_MODEL, TEMPERATURES, words=1000), 0, cancellation)
    seen = [next(events) for _ in range(10)]
    cancellation.set()
    rest = list(events)
    assert all(isinstance(event, TokenEvent) for _, event in seen)
    assert [(number, event.reason) for number, event in rest if isinstance(event, Done)] == [
        (number, "cancelled") for number in range(5)
    ]
    assert len(rest) == 5


def test_columns_with_equal_settings_are_identical() -> None:
    for seed in range(50):
        first, second = run(temperature_columns(CHAOTIC_MODEL, (0.8, 0.8)), seed)
        assert without_times(first) == without_times(second)
        assert comparison.first_difference(generated_words(first), generated_words(second)) is None
        assert comparison.fraction_differing(generated_words(first), generated_words(second)) == 0


@pytest.mark.parametrize(
    "model",
    [FixedModel(zipf_probs(60)), CHAOTIC_MODEL],
    ids=["constant", "history-dependent"],
)
def test_texts_differ_less_when_their_temperatures_are_closer(model: FixedModel) -> None:
    """Measure the fraction of differing tokens over many seeds; it is 0 for a tiny difference."""
    differences = (0.8, 0.4, 0.2, 0.1, 0.03, 1e-9)
    seeds = range(150)
    fractions = np.empty((len(differences), len(seeds)))
    for seed in seeds:
        texts_of_seed = [
            generated_words(events)
            for events in run(temperature_columns(model, (0.7, *(0.7 + d for d in differences))), seed)
        ]
        fractions[:, seed] = [comparison.fraction_differing(texts_of_seed[0], other) for other in texts_of_seed[1:]]
    means = fractions.mean(axis=1)
    for (wider, narrower), (more, less) in zip(pairwise(fractions), pairwise(means), strict=True):
        # The seeds are fractiond, so this is the standard error of the paired differences.
        error = np.std(wider - narrower) / math.sqrt(len(seeds))
        assert less < more + 2 * error
    assert means[0] > 0.2
    assert means[-2] < means[0] / 3
    assert (fractions[-1] == 0).all()


def test_each_column_continues_its_own_text_with_its_own_model() -> None:
    small = WordTokenizer((UNK, EOS, "the", "road", "goes"))
    large = WordTokenizer((UNK, EOS, "river", "the", "ever", "on", "road"))
    texts_read = [(2, 3, 4, 1, 2, 3, 1), (3, 6, 4, 5, 1, 3, 2, 1)]
    models = [KneserNey(np.array(ids), words) for ids, words in zip(texts_read, (small, large), strict=True)]
    columns = [
        GenerationColumn(model, ids, SamplerSettings(temperature=1))
        for model, ids in ((models[0], (2, 3, 0)), (models[1], (3, 6, 2)), (models[0], (3, 4, 1)))
    ]
    for column, events in zip(columns, run(columns, 4), strict=True):
        assert without_times(events) == without_times(list(generate(column.model, column.ids, column.settings, 4)))


def test_a_seed_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="seed -1"):
        next(generate_columns(temperature_columns(CHAOTIC_MODEL, (0.5,)), -1, Cancellation()))


def test_generated_words_end_with_eos_only_if_the_model_ended_the_text() -> None:
    event = make_token_event(piece=" on")
    assert generated_words([event, Done("eos", 0, 1, 1.0)]) == ["on", EOS]
    for reason in ("length", "cancelled", "error"):
        assert generated_words([event, Done(reason, 0, 1, 1.0)]) == ["on"]  # type: ignore[arg-type]
    assert generated_words([]) == []


def test_generated_words_are_the_words_of_the_text_and_its_line_feeds() -> None:
    pieces = ("ard", ",", " s", "aid", "", " ", "“no", "\n\n", "The", " end.")
    events = [make_token_event(index=i, piece=piece) for i, piece in enumerate(pieces)]
    assert generated_words(events) == ["ard,", "said", "“no", "\n", "\n", "The", "end."]


@pytest.mark.parametrize(
    ("words", "others", "first", "fraction"),
    [
        ("", "", None, 0),
        ("a", "", None, 0),
        ("a b c", "a b c d", None, 0),  # the fourth token is not generated yet
        ("a b c d", "a x c y", 1, 2 / 4),
        ("a b <eos>", "a b <eos>", None, 0),
        ("a b <eos>", "a b c d e", 2, 3 / 5),  # the text ended, so c, d and e are not in it
        ("<eos>", "a", 0, 1),
    ],
)
def test_differences_of_short_texts(words: str, others: str, first: int | None, fraction: float) -> None:
    for a, b in ((words, others), (others, words)):
        assert comparison.first_difference(a.split(), b.split()) == first
        assert comparison.fraction_differing(a.split(), b.split()) == pytest.approx(fraction)


@given(st.lists(st.sampled_from("ab"), max_size=8), st.lists(st.sampled_from("ab"), max_size=8))
def test_texts_are_equal_up_to_the_first_difference(words: list[str], others: list[str]) -> None:
    place = comparison.first_difference(words, others)
    if place is None:
        shortest = min(len(words), len(others))
        assert words[:shortest] == others[:shortest]
        assert comparison.fraction_differing(words, others) == 0
    else:
        assert words[:place] == others[:place]
        assert words[place] != others[place]
        assert 0 < comparison.fraction_differing(words, others) <= 1


def test_mean_surprisal_of_words_is_in_bits_of_the_models_own_probabilities() -> None:
    pieces, probs = (" a", " wiz", "ard", "\n"), (1 / 2, 1 / 8, 1 / 16, 1 / 2)
    events = [
        make_token_event(index=i, logprob=math.log(prob), piece=piece)
        for i, (piece, prob) in enumerate(zip(pieces, probs, strict=True))
    ]
    assert comparison.mean_surprisal([*events, Done("eos", 0, 3, 1.0)]) == pytest.approx((1 + 3 + 4 + 1) / 2)
    assert comparison.mean_surprisal([Done("cancelled", 0, 0, 0.0)]) is None


def test_columns_of_one_model_read_their_common_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dialogue_model()
    tokenizer = model.tokenizer
    context = encode_turns(tokenizer, [Turn("STRANGER", "where is frodo"), Turn("GANDALF", "we walked all night")])
    names = ("GOLLUM", "FRODO", "GANDALF")
    short = SamplerSettings(max_tokens=6)
    columns = [GenerationColumn(model, (*context, tokenizer.speaker_id(name)), short) for name in names]
    alone = [list(generate_columns([column], 3, Cancellation())) for column in columns]
    tokens: list[int] = []
    record_read_tokens(model, tokens, monkeypatch)
    together = list(generate_columns(columns, 3, Cancellation()))
    assert tokens[: len(context) + 1] == [EOS_ID, *context]
    speakers = {tokenizer.speaker_id(name) for name in names}
    assert {*tokens[len(context) + 1 : len(context) + 4]} == speakers
    for index, events in enumerate(alone):
        expected = [event.id for _, event in events if isinstance(event, TokenEvent)]
        found = [event.id for column, event in together if column == index and isinstance(event, TokenEvent)]
        assert found == expected
