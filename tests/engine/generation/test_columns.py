"""Texts in step: each is the one it would be alone; and where two of them part."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.vocabulary import EOS, UNK, Vocabulary
from engine.errors import PromptError, UnusableInput
from engine.generation.batch import Event
from engine.generation.columns import (
    Column,
    first_difference,
    in_step,
    mean_surprise,
    share_differing,
    words_of,
)
from engine.generation.generate import Done, TokenEvent, stream
from engine.generation.settings import SamplerSettings
from engine.models.ngram import KneserNey
from engine.runtime.worker import Cancellation
from tests.support.sampling import Fixed, mixed, zipf

NOTEBOOK = (0.5, 0.7, 0.75, 0.8, 1.0)
CHAOS = Fixed(mixed)
"""Another distribution after every history: once two texts part they hardly meet again."""
PROMPT = "w2 w3"


def ladder(model: Fixed, temperatures: Sequence[float], words: int = 20) -> list[Column]:
    return [Column(f"{t}", model, SamplerSettings(temperature=t, max_tokens=words)) for t in temperatures]


def texts(events: Sequence[Event], columns: int) -> list[list[TokenEvent | Done]]:
    return [[event for number, event in events if number == column] for column in range(columns)]


def run(columns: Sequence[Column], seed: int = 0, prompt: str = PROMPT) -> list[list[TokenEvent | Done]]:
    return texts(list(in_step(columns, prompt, seed, Cancellation())), len(columns))


def essence(events: Sequence[TokenEvent | Done]) -> list[tuple[object, ...]]:
    """Everything but the time it took."""
    return [
        (e.id, e.text, e.logprob, e.prob, e.rank) if isinstance(e, TokenEvent) else (e.reason, e.seed, e.tokens)
        for e in events
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=4), st.integers(0, 2**32))
def test_each_column_is_the_text_its_settings_would_give_alone(temperatures: list[float], seed: int) -> None:
    columns = ladder(CHAOS, temperatures, words=8)
    for column, events in zip(columns, run(columns, seed), strict=True):
        assert essence(events) == essence(list(stream(CHAOS, (2, 3), column.settings, seed)))


def test_columns_grow_evenly_until_each_has_ended() -> None:
    columns = [Column(f"{n}", CHAOS, SamplerSettings(max_tokens=n)) for n in (2, 5, 3)]
    events = list(in_step(columns, PROMPT, 5, Cancellation()))
    assert [number for number, _ in events] == [0, 1, 2] * 3 + [1, 2] + [1] * 2
    for events_of_one in texts(events, 3):
        assert isinstance(events_of_one[-1], Done)
        assert not any(isinstance(event, Done) for event in events_of_one[:-1])


def test_cancelling_ends_every_column() -> None:
    cancellation = Cancellation()
    events = in_step(ladder(CHAOS, NOTEBOOK, words=1000), PROMPT, 0, cancellation)
    seen = [next(events) for _ in range(10)]
    cancellation.set()
    rest = list(events)
    assert all(isinstance(event, TokenEvent) for _, event in seen)
    assert [(number, event.reason) for number, event in rest if isinstance(event, Done)] == [
        (number, "cancelled") for number in range(5)
    ]
    assert len(rest) == 5


def test_at_equal_temperature_columns_are_identical() -> None:
    for seed in range(50):
        first, second = run(ladder(CHAOS, (0.8, 0.8)), seed)
        assert essence(first) == essence(second)
        assert first_difference(words_of(first), words_of(second)) is None
        assert share_differing(words_of(first), words_of(second)) == 0


@pytest.mark.parametrize("model", [Fixed(zipf(60)), CHAOS], ids=["history does not matter", "history is all"])
def test_as_the_temperatures_approach_so_do_the_texts(model: Fixed) -> None:
    """Over many seeds, share of differing words and place of the first; at a tiny difference nothing differs."""
    differences = (0.8, 0.4, 0.2, 0.1, 0.03, 1e-9)
    seeds = range(150)
    shares = np.empty((len(differences), len(seeds)))
    for seed in seeds:
        of_seed = [words_of(events) for events in run(ladder(model, (0.7, *(0.7 + d for d in differences))), seed)]
        shares[:, seed] = [share_differing(of_seed[0], other) for other in of_seed[1:]]
    means = shares.mean(axis=1)
    for (wider, narrower), (more, less) in zip(pairwise(shares), pairwise(means), strict=True):
        # The seeds are common, so the standard error is that of the difference, seed by seed.
        error = np.std(wider - narrower) / math.sqrt(len(seeds))
        assert less < more + 2 * error
    assert means[0] > 0.2
    assert means[-2] < means[0] / 3
    assert (shares[-1] == 0).all()


def test_models_of_different_vocabularies_read_the_prompt_each_in_its_own() -> None:
    small = Vocabulary((UNK, EOS, "the", "road", "goes"))
    large = Vocabulary((UNK, EOS, "river", "the", "ever", "on", "road"))
    texts_read = [(2, 3, 4, 1, 2, 3, 1), (3, 6, 4, 5, 1, 3, 2, 1)]
    models = [KneserNey(np.array(ids), words) for ids, words in zip(texts_read, (small, large), strict=True)]
    columns = [Column("kn", model, SamplerSettings(temperature=1)) for model in models]
    for model, ids, events in zip(models, ((2, 3, 0), (3, 6, 2)), run(columns, 4, "the road river"), strict=True):
        assert essence(events) == essence(list(stream(model, ids, SamplerSettings(temperature=1), 4)))


def test_who_cannot_read_the_prompt_is_named() -> None:
    strange = KneserNey(np.array([2, 1]), Vocabulary((UNK, EOS, "elsewhere")))
    columns = [*ladder(CHAOS, (0.5,)), Column("other run", strange, SamplerSettings())]
    with pytest.raises(PromptError, match=r"^other run: the model knows none"):
        next(in_step(columns, PROMPT, 0, Cancellation()))
    with pytest.raises(PromptError, match="no word"):
        next(in_step(columns, "  ", 0, Cancellation()))


def test_an_impossible_seed_is_refused() -> None:
    with pytest.raises(UnusableInput, match="seed -1"):
        next(in_step(ladder(CHAOS, (0.5,)), PROMPT, -1, Cancellation()))


def test_words_go_to_the_end_that_the_model_chose_and_no_other() -> None:
    word = TokenEvent(0, 5, "on", -1.0, 0.3, 1, 2.0, 9, (), 0.0)
    assert words_of([word, Done("eos", 0, 1, 1.0)]) == ["on", EOS]
    for reason in ("length", "cancelled", "error"):
        assert words_of([word, Done(reason, 0, 1, 1.0)]) == ["on"]  # type: ignore[arg-type]
    assert words_of([]) == []


@pytest.mark.parametrize(
    ("words", "others", "first", "share"),
    [
        ("", "", None, 0),
        ("a", "", None, 0),
        ("a b c", "a b c d", None, 0),  # the fourth has not come yet
        ("a b c d", "a x c y", 1, 2 / 4),
        ("a b <eos>", "a b <eos>", None, 0),
        ("a b <eos>", "a b c d e", 2, 3 / 5),  # it has ended: c, d and e are not in it
        ("<eos>", "a", 0, 1),
    ],
)
def test_differences_worked_by_hand(words: str, others: str, first: int | None, share: float) -> None:
    for a, b in ((words, others), (others, words)):
        assert first_difference(a.split(), b.split()) == first
        assert share_differing(a.split(), b.split()) == pytest.approx(share)


@given(st.lists(st.sampled_from("ab"), max_size=8), st.lists(st.sampled_from("ab"), max_size=8))
def test_up_to_the_first_difference_all_is_the_same(words: list[str], others: list[str]) -> None:
    place = first_difference(words, others)
    if place is None:
        shortest = min(len(words), len(others))
        assert words[:shortest] == others[:shortest]
        assert share_differing(words, others) == 0
    else:
        assert words[:place] == others[:place]
        assert words[place] != others[place]
        assert 0 < share_differing(words, others) <= 1


def test_mean_surprise_is_in_bits_of_the_models_own_probabilities() -> None:
    events = [
        TokenEvent(i, 5, "on", math.log(p), 1.0, 1, 2.0, 9, (), 0.0) for i, p in enumerate((1 / 2, 1 / 8, 1 / 16))
    ]
    assert mean_surprise([*events, Done("eos", 0, 3, 1.0)]) == pytest.approx((1 + 3 + 4) / 3)
    assert mean_surprise([Done("cancelled", 0, 0, 0.0)]) is None
