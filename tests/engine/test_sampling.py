"""The sampler chain against naive references, and the stream of token events."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PromptError, UnusableInput
from engine.lm import LogProbs
from engine.preview import preview
from engine.sampler_settings import MAX_SEED, SamplerSettings, draw_seed
from engine.sampling import (
    Done,
    TokenEvent,
    apply_chain,
    chances,
    describe,
    draw,
    encode_prompt,
    read,
    stream,
)
from engine.stages import keep_min_p, keep_top_k, keep_top_p, normalize, penalize_repetition, temper
from engine.vocabulary import EOS_ID, UNK_ID, Vocabulary

Floats = np.ndarray
OFF = SamplerSettings(temperature=1.0)


def vocabulary_of(size: int) -> Vocabulary:
    return Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(2, size))))


class Fixed:
    """A model whose distribution depends on nothing, or on the words read; it notes all it is fed."""

    def __init__(self, probs: Sequence[float] | Callable[[tuple[int, ...]], Sequence[float]]) -> None:
        if callable(probs):
            self._function, size = probs, len(probs((EOS_ID,)))
        else:
            constant = np.log(np.array(probs) / np.sum(probs)).astype(np.float32)
            self._constant, self._function, size = constant, None, len(probs)
        self.vocabulary = vocabulary_of(size)
        self.fed: list[tuple[tuple[int, ...], int]] = []

    def start(self) -> tuple[int, ...]:
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        if self._function is None:
            return self._constant, ()
        self.fed.append((state, token))
        read_so_far = (*state, token)
        probs = np.array(self._function(read_so_far), dtype=np.float64)
        return np.log(probs / probs.sum()).astype(np.float32), read_so_far


def zipf(size: int, eos: float = 1e-9, unk: float = 0.2) -> list[float]:
    """A word's usual distribution, with much `<unk>` and hardly any `<eos>`."""
    return [unk, eos, *(1 / rank for rank in range(1, size - 1))]


def mixed(read_so_far: tuple[int, ...], size: int = 30) -> Floats:
    """Another distribution after every history."""
    return np.exp(np.random.default_rng([len(read_so_far), *read_so_far]).normal(0, 2, size))


def tokens(
    model: Fixed, sampler: SamplerSettings, seed: int, ids: Sequence[int] = (2,)
) -> tuple[list[TokenEvent], Done]:
    events = list(stream(model, ids, sampler, seed))
    assert isinstance(events[-1], Done)
    words = [event for event in events if isinstance(event, TokenEvent)]
    assert len(words) == len(events) - 1
    return words, events[-1]


# --- the stages -----------------------------------------------------------------------------------------------


def scores_of(seed: int, size: int = 40) -> Floats:
    found: Floats = normalize(np.random.default_rng(seed).normal(0, 3, size))
    return found


def kept_by(scores: Floats) -> set[int]:
    return set(np.flatnonzero(scores > -np.inf).tolist())


def naive_order(scores: Floats) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def naive_top_p(scores: Floats, p: float) -> set[int]:
    total, kept = 0.0, set()
    whole = sum(math.exp(s) for s in scores)
    for i in naive_order(scores):
        kept.add(i)
        total += math.exp(scores[i]) / whole
        if total >= p:
            break
    return kept


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2, 7, 39, 40, 1000])
def test_top_k(seed: int, k: int) -> None:
    scores = scores_of(seed)
    found = keep_top_k(scores, k)
    assert kept_by(found) == set(naive_order(scores)[:k])
    assert all(found[i] == scores[i] for i in kept_by(found))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999999])
def test_top_p(seed: int, p: float) -> None:
    scores = scores_of(seed)
    found = keep_top_p(scores, p)
    assert kept_by(found) == naive_top_p(scores, p)
    assert all(found[i] == scores[i] for i in kept_by(found))


def test_top_p_keeps_the_word_that_crosses() -> None:
    scores = np.log([0.05, 0.5, 0.15, 0.3])
    assert kept_by(keep_top_p(scores, 0.49)) == {1}
    assert kept_by(keep_top_p(scores, 0.51)) == {1, 3}
    assert kept_by(keep_top_p(scores, 0.79)) == {1, 3}
    assert kept_by(keep_top_p(scores, 0.81)) == {1, 3, 2}
    assert kept_by(keep_top_p(scores, 0.99)) == {0, 1, 2, 3}


def test_top_p_counts_what_is_left_as_the_whole() -> None:
    """After an earlier filter the probabilities are those of the words that are left."""
    scores = np.array([-np.inf, math.log(0.3), math.log(0.2), math.log(0.1)])  # one half, a third, a sixth
    assert kept_by(keep_top_p(scores, 0.45)) == {1}
    assert kept_by(keep_top_p(scores, 0.55)) == {1, 2}
    assert kept_by(keep_top_p(scores, 0.9)) == {1, 2, 3}


def test_of_words_as_likely_as_each_other_top_p_keeps_those_first_in_the_vocabulary() -> None:
    """So that one seed gives one text on any processor, whatever way it sorts."""
    scores = np.where(np.arange(1000) % 3 == 0, 0.0, -0.5)
    probs = np.exp(scores) / np.exp(scores).sum()
    number = int(0.2 / probs[0]) + 1
    assert kept_by(keep_top_p(scores, 0.2)) == set(range(0, 3 * number, 3))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [1e-6, 0.05, 0.3, 1.0])
def test_min_p(seed: int, share: float) -> None:
    scores = scores_of(seed)
    highest = max(math.exp(s) for s in scores)
    found = keep_min_p(scores, share)
    assert kept_by(found) == {i for i, s in enumerate(scores) if math.exp(s) >= share * highest * (1 - 1e-12)}
    assert all(found[i] == scores[i] for i in kept_by(found))


def test_repetition_penalty() -> None:
    scores = np.array([-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5])
    found = penalize_repetition(scores, [1, 2, 2, 4, 1, 5, 6], 2.0)
    assert found.tolist() == [-1.0, 1.0, -1.0, 3.0, -np.inf, 0.0, 0.25]
    assert scores.tolist() == [-1.0, 2.0, -0.5, 3.0, -np.inf, 0.0, 0.5]
    assert penalize_repetition(scores, [], 2.0).tolist() == scores.tolist()


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 2.0])
def test_temperature_is_a_power_of_the_probabilities(temperature: float) -> None:
    scores = scores_of(3)
    powers = np.exp(scores - scores.max()) ** (1 / temperature)
    assert np.exp(normalize(temper(scores, temperature))) == pytest.approx(powers / powers.sum(), abs=1e-12)


def test_a_temperature_that_is_written_is_no_greed() -> None:
    scores = scores_of(4)
    assert np.array_equal(temper(scores, 0.001), scores / 0.001)
    assert kept_by(temper(scores, 0.0009)) == {int(np.argmax(scores))}


@pytest.mark.parametrize("temperature", [0.0, 1e-12, 1e-300])
def test_temperature_zero_is_the_likeliest_word(temperature: float) -> None:
    scores = scores_of(4)
    probs = np.exp(normalize(temper(scores, temperature)))
    assert kept_by(np.log(np.maximum(probs, 1e-300)) * (probs > 0) + np.where(probs > 0, 0, -np.inf)) == {
        int(np.argmax(scores))
    }
    assert probs.max() == pytest.approx(1)
    assert temper(scores, temperature).max() == 0  # the logarithm of one


def test_normalize() -> None:
    probs = np.exp(normalize(np.array([1000.0, 999.0, -np.inf, -5000.0])))
    assert probs == pytest.approx([1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1)), 0, 0])


def naive_chain(log_probs: Floats, sampler: SamplerSettings, history: Sequence[int], first: bool) -> list[float]:
    """All stages with plain lists, in the order that the settings have."""
    scores = [float(s) for s in log_probs]
    scores[UNK_ID] = -math.inf
    if first:
        scores[EOS_ID] = -math.inf
    for i in set(history):
        scores[i] = scores[i] / sampler.repetition_penalty if scores[i] > 0 else scores[i] * sampler.repetition_penalty
    best = max(range(len(scores)), key=lambda i: scores[i])
    if sampler.temperature == 0:
        scores = [0.0 if i == best else -math.inf for i in range(len(scores))]
    else:
        scores = [(s - scores[best]) / sampler.temperature for s in scores]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = set(order[: sampler.top_k] if sampler.top_k else order)
    scores = [s if i in kept else -math.inf for i, s in enumerate(scores)]
    if sampler.top_p < 1:
        kept = naive_top_p(np.array(scores), sampler.top_p)
        scores = [s if i in kept else -math.inf for i, s in enumerate(scores)]
    if sampler.min_p:
        scores = [s if math.exp(s) >= sampler.min_p else -math.inf for s in scores]  # the best is exp(0)
    probs = [math.exp(s) for s in scores]
    return [p / sum(probs) for p in probs]


CHAINS = [
    OFF,
    SamplerSettings(temperature=0.7),
    SamplerSettings(temperature=0),
    SamplerSettings(temperature=2, top_k=5),
    SamplerSettings(temperature=1.5, top_p=0.9),
    SamplerSettings(temperature=0.6, min_p=0.1),
    SamplerSettings(temperature=1.2, top_k=12, top_p=0.8, min_p=0.05, repetition_penalty=1.4),
    SamplerSettings(temperature=0.8, repetition_penalty=0.7),
    SamplerSettings(temperature=0.9, repetition_penalty=2),
    SamplerSettings(temperature=0, top_k=3, top_p=0.1, min_p=0.9, repetition_penalty=10),
]


def named(sampler: SamplerSettings) -> str:
    """In ASCII: pytest escapes other names of tests once more when it collects them again, as mutmut has it do."""
    return sampler.chain().replace("→", "then")


@pytest.mark.parametrize("sampler", CHAINS, ids=named)
@pytest.mark.parametrize("first", [True, False])
def test_the_chain_is_the_naive_one(sampler: SamplerSettings, first: bool) -> None:
    for seed in range(12):
        log_probs = scores_of(seed).astype(np.float32)
        history = np.random.default_rng(seed).integers(0, 40, 10).tolist()
        expected = naive_chain(log_probs, sampler, history, first)
        found = np.exp(apply_chain(log_probs, sampler, history, first=first))
        assert found == pytest.approx(expected, abs=1e-9)
        assert [p > 0 for p in found] == [p > 0 for p in expected]


def test_without_filters_the_unlikeliest_word_stays() -> None:
    """Also one that the sum of all others does not feel."""
    log_probs = np.log(np.array([0.1, 0.1, 0.5, 0.3, 1e-30])).astype(np.float32)
    assert kept_by(apply_chain(log_probs, OFF, [], first=True)) == {2, 3, 4}
    assert kept_by(apply_chain(log_probs, OFF, [], first=False)) == {1, 2, 3, 4}


def test_however_cold_it_is_the_words_share_all_of_the_probability() -> None:
    """Beside a text that is not: of 1/40 to the power of 500 a float knows nothing."""
    even = np.full((2, 40), -math.log(40), np.float32)
    found = chances(even, [SamplerSettings(temperature=0.002), OFF], [[], []], first=True)
    assert found[:, 2:] == pytest.approx(np.full((2, 38), 1 / 38))


def test_a_text_without_its_settings_history_or_word_is_a_mistake() -> None:
    log_probs = np.stack([scores_of(seed) for seed in (0, 1)]).astype(np.float32)
    probs = chances(log_probs, [OFF, OFF], [[], []], first=True)
    with pytest.raises(ValueError, match="shorter"):
        chances(log_probs, [OFF, OFF], [[]], first=True)
    with pytest.raises(ValueError, match="longer"):
        describe(0, np.array([3]), log_probs, probs, vocabulary_of(40).words)


def test_the_chain_leaves_what_it_was_given() -> None:
    log_probs = scores_of(1).astype(np.float32)
    kept = log_probs.copy()
    for sampler in CHAINS:
        apply_chain(log_probs, sampler, [1, 2], first=True)
    assert np.array_equal(log_probs, kept)


SAMPLERS = st.builds(
    SamplerSettings,
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 60),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 10),
)
WEIGHTS = st.lists(st.floats(-60, 0), min_size=3, max_size=25)
HISTORY = st.lists(st.integers(0, 2), max_size=5)


@settings(max_examples=250, deadline=None)
@given(weights=WEIGHTS, sampler=SAMPLERS, history=HISTORY, first=st.booleans())
def test_the_chain_always_leaves_a_distribution_without_unk(
    weights: list[float], sampler: SamplerSettings, history: list[int], first: bool
) -> None:
    log_probs = normalize(np.array(weights)).astype(np.float32)
    probs = np.exp(apply_chain(log_probs, sampler, history, first=first))
    assert probs.shape == (len(weights),)
    assert probs.sum() == pytest.approx(1, abs=1e-9)
    assert probs[UNK_ID] == 0
    assert probs[EOS_ID] == 0 or not first
    if sampler.top_k:
        assert np.count_nonzero(probs) <= sampler.top_k


@settings(max_examples=150, deadline=None)
@given(weights=WEIGHTS, sampler=SAMPLERS, data=st.data())
def test_the_chain_is_monotone(weights: list[float], sampler: SamplerSettings, data: st.DataObject) -> None:
    """A looser filter keeps all that a tighter one keeps, and a likelier word never gets less than another."""
    log_probs = normalize(np.array(weights)).astype(np.float32)
    probs = np.exp(apply_chain(log_probs, sampler, [], first=True))
    order = sorted(range(2, len(weights)), key=lambda i: -log_probs[i])
    assert all(probs[a] >= probs[b] - 1e-12 for a, b in pairwise(order) if log_probs[a] > log_probs[b])

    looser = data.draw(
        st.sampled_from(
            [
                replace(sampler, top_k=sampler.top_k + 1 if sampler.top_k else 0),
                replace(sampler, top_p=min(1.0, sampler.top_p * 1.5)),
                replace(sampler, min_p=sampler.min_p / 2),
            ]
        )
    )
    if looser.top_k == sampler.top_k:  # a larger top-k leaves top-p a larger whole: then only alone
        tight, loose = (kept_by(apply_chain(log_probs, s, [], first=True)) for s in (sampler, looser))
    else:
        tight, loose = (
            kept_by(apply_chain(log_probs, replace(s, top_p=1.0, min_p=0.0), [], first=True)) for s in (sampler, looser)
        )
    # Words of one and the same probability may change places; what counts is how likely they are.
    assert len(loose) >= len(tight)
    assert sorted(log_probs[list(tight)]) == sorted(sorted(log_probs[list(loose)])[-len(tight) :])


# --- settings and prompts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [math.nan, -0.1, 2.01, math.inf, -math.inf]),
        ("top_k", [-1, 10**9]),
        ("top_p", [math.nan, 0, -0.5, 1.01, math.inf]),
        ("min_p", [math.nan, -0.01, 1.5]),
        ("repetition_penalty", [math.nan, 0, -1, 11, math.inf]),
        ("max_tokens", [0, -5, 10**9]),
    ],
)
def test_settings_out_of_range_are_refused_by_name_and_value(name: str, values: list[float]) -> None:
    for value in values:
        with pytest.raises(UnusableInput) as caught:
            SamplerSettings(**{name: value})  # type: ignore[arg-type]
        assert name.replace("_", "-") in str(caught.value)
        assert str(value) in str(caught.value)


def test_the_ends_of_the_ranges_are_taken() -> None:
    SamplerSettings(temperature=0, top_k=0, top_p=1e-9, min_p=0, repetition_penalty=0.1, max_tokens=1)
    SamplerSettings(temperature=2, top_p=1, min_p=1, repetition_penalty=10)


def test_the_chain_is_told_in_the_order_it_applies() -> None:
    sampler = SamplerSettings(temperature=0.7, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.2)
    told = sampler.chain()
    places = [told.index(stage) for stage in ("repetition penalty", "temperature", "top-k", "top-p", "min-p")]
    assert places == sorted(places)
    assert "greedy" in SamplerSettings(temperature=0).chain()
    assert "top" not in SamplerSettings().chain()


def test_a_prompt_is_read_with_the_tokenizer_and_its_unknown_words_are_named() -> None:
    vocabulary = Vocabulary(("<unk>", "<eos>", "bilbo", "is", "don't"))
    prompt = encode_prompt("Bilbo, XYZZY is: don't... xyzzy plugh!", vocabulary)
    assert prompt.ids == (2, UNK_ID, 3, 4, UNK_ID, UNK_ID)
    assert prompt.unknown == ("xyzzy", "plugh")
    assert prompt.text == "Bilbo, XYZZY is: don't... xyzzy plugh!"
    assert encode_prompt("is", vocabulary).unknown == ()


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "?!…", "—"])
def test_a_prompt_without_a_word_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="no word"):
        encode_prompt(text, vocabulary_of(5))


def test_a_prompt_wholly_unknown_is_refused_with_its_words() -> None:
    with pytest.raises(PromptError) as caught:
        encode_prompt("one two three two four five six", vocabulary_of(5))
    words = "one, two, three, four, five"
    assert str(caught.value) == f"the model knows none of the prompt's words: {words}; use other words"


def test_unk_and_eos_cannot_be_typed() -> None:
    with pytest.raises(PromptError):
        encode_prompt("<unk> <eos>", vocabulary_of(5))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UnusableInput, match=str(seed)):
        list(stream(Fixed([1, 1, 1]), [2], OFF, seed))


def test_drawn_seeds_are_good_seeds() -> None:
    seeds = {draw_seed() for _ in range(50)}
    assert len(seeds) > 40
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


# --- the stream -----------------------------------------------------------------------------------------------


def test_the_whole_prompt_is_read_and_then_each_word_drawn() -> None:
    model = Fixed(mixed)
    words, done = tokens(model, SamplerSettings(temperature=0.8, max_tokens=6), 3, ids=(5, 0, 7, 7))
    text = [EOS_ID, 5, 0, 7, 7, *(word.id for word in words)]
    expected = [(tuple(text[:i]), token) for i, token in enumerate(text)]
    assert model.fed[: len(text) - 1] == expected[: len(text) - 1]
    assert model.fed == expected[: len(model.fed)]
    assert done.tokens == len(words)


def test_read_gives_the_distribution_after_the_prompt() -> None:
    model = Fixed(mixed)
    log_probs, state = read(model, (4, 9))
    assert state == (EOS_ID, 4, 9)
    assert np.array_equal(log_probs, Fixed(mixed).advance((EOS_ID, 4), 9)[0])
    assert np.array_equal(read(model, ())[0], Fixed(mixed).advance((), EOS_ID)[0])


def test_one_seed_one_text_and_another_seed_another() -> None:
    sampler = SamplerSettings(temperature=1.0, max_tokens=40)

    def text(seed: int) -> list[int]:
        return [word.id for word in tokens(Fixed(zipf(200)), sampler, seed)[0]]

    assert text(5) == text(5)
    assert len({tuple(text(seed)) for seed in range(20)}) == 20


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_temperature_zero_always_takes_the_likeliest_word(seed: int) -> None:
    model = Fixed(mixed)
    words, _ = tokens(model, SamplerSettings(temperature=0, max_tokens=30), seed)
    text: tuple[int, ...] = (EOS_ID, 2)
    for word in words:
        probs = mixed(text)
        probs[UNK_ID] = 0
        if word.index == 0:
            probs[EOS_ID] = 0
        assert word.id == int(np.argmax(probs))
        assert word.prob == pytest.approx(1)
        assert word.kept == 1
        text = (*text, word.id)


def test_greedy_never_strays_where_the_noise_is_coarse() -> None:
    """Noise in float32 is exactly zero once in some 10 million draws: such a word must not win, least of all <unk>.

    The seed is one whose float32 exponentials have a zero in the 143rd word.
    """
    size = 4000
    probs = [0.3, 1e-9, 0.4, *([0.3 / size] * (size - 3))]
    words, done = tokens(Fixed(probs), SamplerSettings(temperature=0, max_tokens=400), 2)
    assert Counter(word.id for word in words) == {2: 400}
    assert done.reason == "length"


def test_it_ends_at_eos_which_is_no_word() -> None:
    def eos_after_three(read_so_far: tuple[int, ...]) -> list[float]:
        return [1e-9, 1, 1e-9, 1e-9] if len(read_so_far) == 5 else [1e-9, 1e-9, 1, 1]

    words, done = tokens(Fixed(eos_after_three), SamplerSettings(temperature=1, max_tokens=50), 1)
    assert len(words) == 3
    assert done.reason == "eos"
    assert done.tokens == 3
    assert EOS_ID not in [word.id for word in words]


def test_eos_is_never_the_first_word_and_unk_never_any() -> None:
    probs = [0.5, 0.4, 0.05, 0.05]
    for seed in range(300):
        words, done = tokens(Fixed(probs), SamplerSettings(temperature=1.0, max_tokens=5), seed)
        assert 1 <= len(words) <= 5
        assert {word.id for word in words} <= {2, 3}
        assert done.reason == ("length" if len(words) == 5 else "eos")
    # Greedily as well: first the likeliest word that may be drawn, then the end.
    words, done = tokens(Fixed(probs), SamplerSettings(temperature=0), 0)
    assert len(words) == 1
    assert done.reason == "eos"


@pytest.mark.parametrize("length", [1, 2, 17])
def test_length(length: int) -> None:
    words, done = tokens(Fixed(zipf(20)), SamplerSettings(max_tokens=length), 12)
    assert [word.index for word in words] == list(range(length))
    assert done.reason == "length"
    assert (done.tokens, done.seed) == (length, 12)
    assert done.tokens_per_second > 0


def test_cancelled_at_the_next_token() -> None:
    events: list[TokenEvent | Done] = []
    events.extend(stream(Fixed(zipf(20)), [2], SamplerSettings(max_tokens=1000), 0, lambda: len(events) == 4))
    assert len(events) == 5
    assert isinstance(events[-1], Done)
    assert events[-1].reason == "cancelled"
    assert events[-1].tokens == 4


def test_cancelled_before_the_first() -> None:
    (done,) = stream(Fixed(zipf(20)), [2], OFF, 0, lambda: True)
    assert isinstance(done, Done)
    assert (done.reason, done.tokens) == ("cancelled", 0)


def test_an_empty_beginning_is_continued_from_the_start_of_a_line() -> None:
    words, _ = tokens(Fixed(mixed), SamplerSettings(temperature=0, max_tokens=1), 0, ids=())
    probs = mixed((EOS_ID,))
    probs[:2] = 0
    assert words[0].id == int(np.argmax(probs))


@pytest.mark.parametrize(
    "sampler", [OFF, SamplerSettings(temperature=0.6), SamplerSettings(temperature=1.5, top_p=0.8)]
)
def test_draws_follow_the_distribution(sampler: SamplerSettings) -> None:
    """8,000 words of one stream, seed fixed: chi-square and total variation against the naive chain."""
    weights = [0.2, 1e-9, 0.3, 0.2, 0.12, 0.08, 0.05, 0.03, 0.015, 0.005]
    number = 8_000
    words, _ = tokens(Fixed(weights), replace(sampler, max_tokens=number), 7)
    expected = naive_chain(np.log(np.array(weights) / sum(weights)), sampler, [], False)
    counts = Counter(word.id for word in words)
    assert all(expected[i] > 0 for i in counts)
    assert sum(abs(counts[i] / number - p) for i, p in enumerate(expected)) / 2 < 0.02
    cells = [(counts[i], p * number) for i, p in enumerate(expected) if p * number > 5]
    assert sum((found - mean) ** 2 / mean for found, mean in cells) < 40  # 9 degrees at most: one in 100,000


def test_first_words_over_many_seeds_follow_the_distribution() -> None:
    weights = [0.3, 0.2, 0.25, 0.15, 0.1]
    counts = Counter(tokens(Fixed(weights), replace(OFF, max_tokens=1), seed)[0][0].id for seed in range(4000))
    expected = {2: 0.5, 3: 0.3, 4: 0.2}
    assert set(counts) == set(expected)
    assert all(counts[i] / 4000 == pytest.approx(p, abs=0.035) for i, p in expected.items())


def agreement(first: tuple[float, int], second: tuple[float, int], number: int = 600) -> float:
    texts = [
        [word.id for word in tokens(Fixed(zipf(300)), SamplerSettings(temperature=t, max_tokens=number), seed)[0]]
        for t, seed in (first, second)
    ]
    assert all(len(text) == number for text in texts)
    return float(np.mean([a == b for a, b in zip(*texts, strict=True)]))


def test_one_seed_is_one_noise_whatever_the_temperature() -> None:
    shared = agreement((0.7, 3), (1.0, 3))
    independent = max(agreement((0.7, 3), (1.0, other)) for other in (4, 5, 6))
    assert shared > 0.5
    assert shared > 2.5 * independent


def test_one_seed_is_one_noise_whatever_the_filter() -> None:
    """Filtered words are masked, not left out: a word that both may take is the same one."""
    both = [
        [w.id for w in tokens(Fixed(zipf(300)), SamplerSettings(temperature=1, top_p=p, max_tokens=400), 3)[0]]
        for p in (1.0, 0.9)
    ]
    kept = set(both[1])
    pairs = [(a, b) for a, b in zip(*both, strict=True) if a in kept]
    assert len(pairs) > 200
    assert all(a == b for a, b in pairs)


@pytest.mark.parametrize("sampler", CHAINS, ids=named)
def test_token_events_tell_what_they_say(sampler: SamplerSettings) -> None:
    model = Fixed(mixed)
    words, _ = tokens(model, replace(sampler, max_tokens=12), 21, ids=(3, 4))
    text = [EOS_ID, 3, 4]
    for index, word in enumerate(words):
        probs = mixed(tuple(text))
        probs = np.log(probs / probs.sum()).astype(np.float32).astype(np.float64)
        own = np.exp(probs)
        chain = naive_chain(probs, sampler, text[1:], first=index == 0)
        assert word.index == index
        assert word.text == model.vocabulary.words[word.id]
        assert word.logprob == pytest.approx(probs[word.id], abs=1e-5)
        assert word.rank == 1 + sum(p > own[word.id] for p in own)
        assert word.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
        assert word.prob == pytest.approx(chain[word.id], abs=1e-6)
        assert word.kept == sum(p > 0 for p in chain)
        best = sorted(range(len(own)), key=lambda i: -own[i])[: len(word.top)]
        assert [name for name, _ in word.top] == [model.vocabulary.words[i] for i in best]
        assert [p for _, p in word.top] == pytest.approx([own[i] for i in best], rel=1e-5)
        assert len(word.top) == 8
        assert word.seconds >= 0
        text.append(word.id)


def test_of_several_texts_each_is_drawn_and_told_as_alone() -> None:
    number, words = len(CHAINS), vocabulary_of(40).words
    log_probs = np.stack([scores_of(seed) for seed in range(number)]).astype(np.float32)
    histories = [[seed, seed + 1, 2 * seed] for seed in range(number)]
    probs = chances(log_probs, CHAINS, histories, first=False)
    noise = np.random.default_rng(0).standard_exponential(probs.shape)
    drawn = draw(probs, noise.copy())
    told = describe(4, drawn, log_probs, probs, words)
    for i in range(number):
        own = log_probs[i : i + 1]
        alone = chances(own, CHAINS[i : i + 1], histories[i : i + 1], first=False)
        assert np.array_equal(alone[0], probs[i])
        assert draw(alone, noise[i : i + 1].copy()).tolist() == [drawn[i]]
        assert drawn[i] == max(range(40), key=lambda word: alone[0, word] / noise[i, word])
        assert describe(4, drawn[i : i + 1], own, alone, words) == [told[i]]
        assert told[i][:3] == (4, drawn[i], words[drawn[i]])


def test_a_vocabulary_smaller_than_the_alternatives() -> None:
    words, _ = tokens(Fixed([0.1, 1e-9, 0.6, 0.3]), SamplerSettings(max_tokens=3), 0)
    assert [name for name, _ in words[0].top] == ["w2", "w3", "<unk>", "<eos>"]


def test_repetition_penalty_looks_at_the_prompt_and_at_what_was_drawn() -> None:
    probs = [1e-9, 1e-9, 0.4, 0.35, 0.25]
    sampler = SamplerSettings(temperature=0, repetition_penalty=3, max_tokens=3)
    words, _ = tokens(Fixed(probs), sampler, 0, ids=(2,))
    # .4 was in the prompt: .4**3 is less than .35; then .35**3 less than .25; then .4**3 is the most again.
    assert [word.id for word in words] == [3, 4, 2]


# --- the preview ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", CHAINS, ids=named)
def test_the_preview_is_the_chain(sampler: SamplerSettings) -> None:
    log_probs = scores_of(5, 30).astype(np.float32)
    vocabulary, history = vocabulary_of(30), [4, 9]
    found = preview(log_probs, sampler, history, vocabulary, 12)
    after = naive_chain(log_probs, sampler, history, first=False)
    own = np.exp(log_probs.astype(np.float64))
    assert found.vocabulary == 30
    assert found.kept == sum(p > 0 for p in after)
    assert found.entropy == pytest.approx(-sum(p * math.log2(p) for p in own), rel=1e-4)
    order = sorted(range(30), key=lambda i: (-after[i], -own[i]))[:12]
    assert [candidate.text for candidate in found.candidates] == [vocabulary.words[i] for i in order]
    assert [candidate.after for candidate in found.candidates] == pytest.approx([after[i] for i in order], abs=1e-9)
    assert [candidate.before for candidate in found.candidates] == pytest.approx([own[i] for i in order], rel=1e-5)


def test_the_preview_of_more_words_than_there_are() -> None:
    found = preview(scores_of(5, 6).astype(np.float32), OFF, [], vocabulary_of(6), 50)
    assert len(found.candidates) == 6
    assert found.candidates[-1].text == "<unk>"
    assert sum(candidate.after for candidate in found.candidates) == pytest.approx(1)
