"""The continuous cache against Grave, Joulin and Usunier (2017), equations 2 to 4, in plain loops."""

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import UnusableInput
from engine.models.base import LanguageModel, Trace, hidden_of, trace
from engine.models.cache import CHUNK, SHARES, THETAS, Cache, CacheSettings, cache_probs, choose_cache
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey, Unigram
from engine.models.numpy_lstm import Decoder, weight_shapes

SIZE = 8
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))
CONFIG = ModelConfig(embedding_size=5, hidden_size=5)

texts = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=15)
cache_settings = st.builds(CacheSettings, st.integers(1, 6), st.floats(0, 3), st.floats(0, 0.9))


def text(length: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(0, SIZE, length).astype(np.int32)


def decoder(seed: int = 0) -> Decoder:
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(CONFIG, SIZE)
    weights = {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Decoder(CONFIG, VOCABULARY, weights)


LSTM = decoder()
COUNTS = KneserNey(text(300, seed=5), VOCABULARY, order=3)
UNIGRAM = Unigram(text(300, seed=5), VOCABULARY)
MODELS = {
    "lstm": LSTM,
    "Kneser-Ney": COUNTS,
    "unigram": UNIGRAM,
    "mixture": Mixture([LSTM, COUNTS], [0.6, 0.4]),
}


def distributions(model: LanguageModel, ids: Sequence[int]) -> np.ndarray:
    """What `model` says after `<eos>` and after each word, as float64 probabilities."""
    state, found = model.start(), []
    for token in (EOS_ID, *ids):
        log_probs, state = model.advance(state, int(token))
        found.append(np.exp(log_probs.astype(np.float64)))
    return np.stack(found)


def pointed(remembered: Sequence[tuple[list[float], int]], vector: list[float], theta: float) -> list[float]:
    """Equation 3: each remembered word gets exp(theta h_t . h_i), whatever is left out divided away."""
    probs = [0.0] * SIZE
    for key, word in remembered:
        probs[word] += math.exp(theta * sum(a * b for a, b in zip(key, vector, strict=True)))
    return [prob / sum(probs) for prob in probs]


def reference(model: LanguageModel, ids: Sequence[int], chosen: CacheSettings) -> list[list[float]]:
    """The distributions after `<eos>` and after each word, with a queue for the window."""
    remembered: deque[tuple[list[float], int]] = deque(maxlen=chosen.window)
    log_probs, state = model.advance(model.start(), EOS_ID)
    found = [[math.exp(value) for value in log_probs.tolist()]]
    for token in ids:
        remembered.append((hidden_of(model, state).tolist(), int(token)))
        log_probs, state = model.advance(state, int(token))
        cached = pointed(remembered, hidden_of(model, state).tolist(), chosen.theta)
        own = [math.exp(value) for value in log_probs.tolist()]
        found.append([(1 - chosen.share) * p + chosen.share * c for p, c in zip(own, cached, strict=True)])
    return found


# --- word by word ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
@settings(max_examples=20, deadline=None)
@given(ids=texts, chosen=cache_settings)
def test_word_by_word_it_is_the_equations(name: str, ids: list[int], chosen: CacheSettings) -> None:
    found = distributions(Cache(MODELS[name], chosen), ids)
    for position, expected in enumerate(reference(MODELS[name], ids, chosen)):
        assert found[position] == pytest.approx(expected, rel=1e-4)
        assert found[position].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
def test_before_any_word_it_is_the_model_and_from_the_first_on_it_is_not(name: str) -> None:
    model = MODELS[name]
    cached, alone = (distributions(one, [4]) for one in (Cache(model, CacheSettings(share=0.25)), model))
    assert np.array_equal(cached[0], alone[0])
    expected = 0.75 * alone[1]
    expected[4] += 0.25  # one word is remembered, and it gets all of the cache's share
    assert cached[1] == pytest.approx(expected, rel=1e-5)


def test_the_eos_that_starts_a_text_is_not_remembered() -> None:
    cache = Cache(UNIGRAM, CacheSettings(theta=0, share=0.5))
    alone = distributions(UNIGRAM, [])[0]
    assert distributions(cache, [3])[1][EOS_ID] == pytest.approx(0.5 * alone[EOS_ID], rel=1e-5)
    assert distributions(cache, [EOS_ID])[1][EOS_ID] == pytest.approx(0.5 * alone[EOS_ID] + 0.5, rel=1e-5)


def test_a_cache_of_theta_zero_counts_words_alike() -> None:
    ids = [2, 3, 2, 2, 5, 3, 7, 7]
    own, found = (distributions(model, ids)[-1] for model in (LSTM, Cache(LSTM, CacheSettings(5, 0, 0.3))))
    last_five = Counter(ids[-5:])
    assert found == pytest.approx([0.7 * own[word] + 0.3 * last_five[word] / 5 for word in range(SIZE)], rel=1e-5)


def test_a_cache_without_share_is_the_model() -> None:
    ids = text(20)
    cache = Cache(LSTM, CacheSettings(share=0))
    assert distributions(cache, ids) == pytest.approx(distributions(LSTM, ids), rel=1e-5)
    assert cache.trace(ids).scores == pytest.approx(LSTM.trace(ids).scores, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(texts, st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.integers(1, 4))
def test_a_state_that_was_kept_is_a_place_to_branch_from(ids: list[int], one: int, other: int, window: int) -> None:
    cache = Cache(LSTM, CacheSettings(window, 1.0, 0.3))
    state = cache.start()
    for token in (EOS_ID, *ids):
        _, state = cache.advance(state, token)
    remembered = state.words.copy(), state.keys.copy()
    first, after = cache.advance(state, one)
    beyond, _ = cache.advance(after, other)
    kept = first.copy()
    cache.advance(state, other)
    again, after_again = cache.advance(state, one)
    assert np.array_equal(first, kept)
    assert np.array_equal(first, again)
    assert np.array_equal(beyond, cache.advance(after_again, other)[0])
    assert np.array_equal(state.words, remembered[0])
    assert np.array_equal(state.keys, remembered[1])
    assert state.words.tolist() == ids[-window:]


def test_what_the_model_says_is_not_changed_by_the_cache() -> None:
    before = UNIGRAM.advance(None, 3)[0].copy()
    distributions(Cache(UNIGRAM, CacheSettings()), text(10))
    assert np.array_equal(UNIGRAM.advance(None, 3)[0], before)


class Pointing:
    """Finds all words alike; its vector is a long one that depends on the last word."""

    vocabulary = VOCABULARY
    vectors = np.random.default_rng(0).normal(0, 5, (SIZE, 4)).astype(np.float32)

    def start(self) -> int:
        return EOS_ID

    def advance(self, state: int, token: int):
        return np.full(SIZE, -math.log(SIZE), np.float32), token

    def hidden(self, state: int) -> np.ndarray:
        return self.vectors[state]


@pytest.mark.parametrize("last", range(2, SIZE))
def test_a_huge_theta_points_at_what_followed_the_most_alike_context(last: int) -> None:
    ids = [2, 3, 4, 5, 6, 7, last]
    products = [float(Pointing.vectors[before] @ Pointing.vectors[last]) for before in [EOS_ID, *ids[:-1]]]
    expected = np.full(SIZE, 0.5 / SIZE)
    expected[ids[products.index(max(products))]] += 0.5
    cache = Cache(Pointing(), CacheSettings(theta=1000, share=0.5))
    assert distributions(cache, ids)[-1] == pytest.approx(expected, rel=1e-4)
    for following in (0, 4):
        read = cache.trace(np.array([*ids, following], np.int32))
        assert read.scores[-1] == pytest.approx(math.log(expected[following]), rel=1e-4)


def test_a_word_the_model_finds_almost_impossible_keeps_a_finite_score() -> None:
    weights = {name: value.copy() for name, value in LSTM.weights.items()}
    weights["output.bias"][6] = -200
    cache = Cache(Decoder(CONFIG, VOCABULARY, weights), CacheSettings())
    _, state = cache.advance(cache.start(), EOS_ID)
    log_probs, _ = cache.advance(state, 3)
    assert cache.trace(np.array([3, 6], np.int32)).scores[1] == pytest.approx(log_probs[6], rel=1e-4)


# --- a whole text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
@settings(max_examples=20, deadline=None)
@given(ids=texts, chosen=cache_settings)
def test_reading_a_whole_text_is_reading_it_word_by_word(name: str, ids: list[int], chosen: CacheSettings) -> None:
    cache = Cache(MODELS[name], chosen)
    read = cache.trace(np.array(ids, np.int32))
    log_probs, state = cache.advance(cache.start(), EOS_ID)
    for position, token in enumerate(ids):
        assert read.scores[position] == pytest.approx(log_probs[token], abs=1e-5)
        assert read.hidden[position] == pytest.approx(cache.hidden(state), abs=1e-6)
        log_probs, state = cache.advance(state, token)
    assert read.scores.shape == (len(ids),)


@pytest.mark.parametrize("window", [100, CHUNK])
def test_long_texts_are_the_same_over_the_borders_of_chunks(window: int) -> None:
    ids = text(2 * CHUNK + 20)
    cache = Cache(LSTM, CacheSettings(window, 0.8, 0.2))
    word_by_word = np.log(distributions(cache, ids)[np.arange(len(ids)), ids])
    assert cache.trace(ids).scores == pytest.approx(word_by_word, abs=1e-5)


@pytest.mark.parametrize("window", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 1000])
def test_probabilities_of_a_long_text_are_plain_sums(window: int) -> None:
    chance = np.random.default_rng(window)
    ids, hidden = text(2 * CHUNK + 5), chance.normal(size=(2 * CHUNK + 5, 3)).astype(np.float32)
    theta = 0.7
    likeness = np.exp(theta * (hidden.astype(np.float64) @ hidden.astype(np.float64).T)).tolist()
    found = cache_probs(hidden, ids, window, [theta])[0]
    words = ids.tolist()
    assert found[0] == 0
    for now in (1, 2, 8, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 100, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 4):
        seen = range(max(0, now - window), now)
        total = sum(likeness[now][then] for then in seen)
        same = sum(likeness[now][then] for then in seen if words[then] == words[now])
        assert found[now] == pytest.approx(same / total, rel=1e-4, abs=1e-9), now


def test_hand_worked_probabilities() -> None:
    hidden = np.array([[0], [math.log(2)], [1], [1]], np.float32)
    ids = np.array([2, 3, 3, 2], np.int32)
    # Contexts that count 1 (for word 2), 2 (for 3) and e (for 3) as much, seen from a vector of 1.
    assert cache_probs(hidden, ids, 10, [1.0])[0] == pytest.approx([0, 0, 2 / 3, 1 / (3 + math.e)], rel=1e-6)
    assert cache_probs(hidden, ids, 2, [1.0])[0] == pytest.approx([0, 0, 2 / 3, 0], rel=1e-6)
    assert cache_probs(hidden, ids, 10, [0.0])[0] == pytest.approx([0, 0, 1 / 2, 1 / 3], rel=1e-6)


def test_several_thetas_at_once_are_each_alone() -> None:
    ids = text(CHUNK + 30)
    hidden = np.random.default_rng(2).normal(size=(len(ids), 4)).astype(np.float32)
    thetas = [1.0, 0.0, 0.3]
    together = cache_probs(hidden, ids, 50, thetas)
    assert together.shape == (3, len(ids))
    for row, theta in zip(together, thetas, strict=True):
        assert np.array_equal(row, cache_probs(hidden, ids, 50, [theta])[0])
    assert not np.allclose(together[0], together[1])


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"window": 0}, "window 0"),
        ({"window": -3}, "window -3"),
        ({"theta": -0.1}, "theta -0.1"),
        ({"theta": math.nan}, "theta nan"),
        ({"theta": math.inf}, "theta inf"),
        ({"share": 1.0}, "share 1 "),
        ({"share": 1.5}, "share 1.5"),
        ({"share": -0.1}, "share -0.1"),
        ({"share": math.nan}, "share nan"),
    ],
    ids=str,
)
def test_unusable_settings_are_named_in_one_line(values: dict[str, float], named: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        CacheSettings(**values)
    assert named in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["likeness helps", "frequency helps", "nothing helps"])
@pytest.mark.parametrize("window", [4, 500])
def test_chosen_settings_are_the_best_of_the_grid(kind: str, window: int) -> None:
    chance = np.random.default_rng(4)
    time = 50
    if kind == "nothing helps":
        ids = np.arange(time).astype(np.int32) % SIZE
        hidden = -np.eye(SIZE, dtype=np.float32)[ids]
        window = min(window, SIZE - 1)  # so that a word is never among those remembered
    else:
        ids = (text(time) % (4 if kind == "likeness helps" else 2)).astype(np.int32)
        noise = 0.3 if kind == "likeness helps" else 2.0
        hidden = (np.eye(SIZE)[ids] + chance.normal(0, noise, (time, SIZE))).astype(np.float32)
    read = Trace(np.log(chance.uniform(0.05, 0.4, time)), hidden)
    best, best_sum = None, -math.inf
    for theta in THETAS:
        own = np.exp(read.scores).tolist()
        cached = [0.0] * time
        for now in range(1, time):
            remembered = [(hidden[then].tolist(), int(ids[then])) for then in range(max(0, now - window), now)]
            cached[now] = pointed(remembered, hidden[now].tolist(), theta)[ids[now]]
        for share in SHARES:
            total = math.log(own[0])
            total += sum(math.log((1 - share) * p + share * c) for p, c in zip(own[1:], cached[1:], strict=True))
            if total > best_sum + 1e-9:
                best, best_sum = (theta, share), total
    chosen = choose_cache(read, ids, window)
    assert chosen.window == window
    assert (chosen.theta, chosen.share) == best
    if kind == "nothing helps":
        assert chosen.share == min(SHARES)


def test_a_model_without_vectors_is_given_the_best_share() -> None:
    ids = np.array([2, 2, 2, 3] * 10, np.int32)
    chosen = choose_cache(trace(UNIGRAM, ids), ids)
    sums = {share: Cache(UNIGRAM, CacheSettings(500, 0.0, share)).trace(ids).scores.sum() for share in SHARES}
    assert chosen.share == max(sums, key=sums.__getitem__)
    assert sums[chosen.share] > trace(UNIGRAM, ids).scores.sum()
