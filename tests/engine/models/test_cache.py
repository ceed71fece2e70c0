"""The neural cache against equations 2 to 4 of Grave, Joulin and Usunier (2017) in plain loops."""

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError
from engine.models import cache as neural_cache
from engine.models.base import LanguageModel, SequenceOutput, forward_sequence
from engine.models.cache import (
    CHUNK_ROWS,
    SCORING_CHUNK,
    CachedKeys,
    CacheSettings,
    NeuralCache,
    cache_probs,
    tune_cache,
)
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey, Unigram
from engine.models.numpy_lstm import NumpyLSTM
from tests.support import models
from tests.support.models import distributions, hidden_vector, make_tokenizer, random_ids, random_lstm

SIZE = 8
VOCABULARY = make_tokenizer(SIZE)
CONFIG = ModelConfig(embedding_size=5, hidden_size=5)

TEXTS = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=15)
CACHE_SETTINGS = st.builds(CacheSettings, st.integers(1, 6), st.floats(0, 3), st.floats(0, 0.9))


def make_ids(length: int, seed: int = 0) -> TokenIds:
    return random_ids(length, SIZE, seed)


LSTM = random_lstm(CONFIG, VOCABULARY)
KNESER_NEY = KneserNey(make_ids(300, seed=5), VOCABULARY, order=3)
UNIGRAM = Unigram(make_ids(300, seed=5), VOCABULARY)
MODELS = {
    "LSTM": LSTM,
    "Kneser-Ney": KNESER_NEY,
    "unigram": UNIGRAM,
    "mixture": Mixture([LSTM, KNESER_NEY], [0.6, 0.4]),
}


def reference_cache_probs(cached: Sequence[tuple[list[float], int]], vector: list[float], theta: float) -> list[float]:
    """Equation 3: each cached token gets exp(theta h_t . h_i), normalized over the cache."""
    probs = [0.0] * SIZE
    for key, token in cached:
        probs[token] += math.exp(theta * sum(a * b for a, b in zip(key, vector, strict=True)))
    return [prob / sum(probs) for prob in probs]


def reference_distributions(
    model: LanguageModel, ids: Sequence[int], cache_settings: CacheSettings
) -> list[list[float]]:
    """Return the distributions after `<eos>` and after each token, with a queue as the cache."""
    cached: deque[tuple[list[float], int]] = deque(maxlen=cache_settings.window)
    log_probs, state = model.advance(model.start(), EOS_ID)
    rows = [[math.exp(value) for value in log_probs.tolist()]]
    weight = cache_settings.weight
    for token in ids:
        cached.append((hidden_vector(model, state).tolist(), int(token)))
        log_probs, state = model.advance(state, int(token))
        cache_probs = reference_cache_probs(cached, hidden_vector(model, state).tolist(), cache_settings.theta)
        model_probs = [math.exp(value) for value in log_probs.tolist()]
        rows.append([(1 - weight) * p + weight * c for p, c in zip(model_probs, cache_probs, strict=True)])
    return rows


# --- token by token ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
@settings(max_examples=20, deadline=None)
@given(ids=TEXTS, cache_settings=CACHE_SETTINGS)
def test_distributions_match_the_equations(name: str, ids: list[int], cache_settings: CacheSettings) -> None:
    rows = distributions(NeuralCache(MODELS[name], cache_settings), ids)
    for row, expected in zip(rows, reference_distributions(MODELS[name], ids, cache_settings), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
        assert row.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_cache_takes_part_after_the_first_token(name: str) -> None:
    model = MODELS[name]
    with_cache = distributions(NeuralCache(model, CacheSettings(weight=0.25)), [4])
    without_cache = distributions(model, [4])
    assert np.array_equal(with_cache[0], without_cache[0])
    expected = 0.75 * without_cache[1]
    expected[4] += 0.25  # the only token in the cache
    assert with_cache[1] == pytest.approx(expected, rel=1e-5)


def test_the_eos_that_starts_a_text_is_not_cached() -> None:
    cache = NeuralCache(UNIGRAM, CacheSettings(theta=0, weight=0.5))
    without_cache = distributions(UNIGRAM, [])[0]
    assert distributions(cache, [3])[1][EOS_ID] == pytest.approx(0.5 * without_cache[EOS_ID], rel=1e-5)
    assert distributions(cache, [EOS_ID])[1][EOS_ID] == pytest.approx(0.5 * without_cache[EOS_ID] + 0.5, rel=1e-5)


def test_with_theta_zero_the_cache_counts_tokens() -> None:
    ids = [2, 3, 2, 2, 5, 3, 7, 7]
    model_probs = distributions(LSTM, ids)[-1]
    probs = distributions(NeuralCache(LSTM, CacheSettings(window=5, theta=0, weight=0.3)), ids)[-1]
    last_five = Counter(ids[-5:])
    expected = [0.7 * model_probs[token] + 0.3 * last_five[token] / 5 for token in range(SIZE)]
    assert probs == pytest.approx(expected, rel=1e-5)


def test_with_weight_zero_the_cache_changes_nothing() -> None:
    ids = make_ids(20)
    cache = NeuralCache(LSTM, CacheSettings(weight=0))
    assert distributions(cache, ids) == pytest.approx(distributions(LSTM, ids), rel=1e-5)
    assert cache.forward_sequence(ids).log_probs == pytest.approx(LSTM.forward_sequence(ids).log_probs, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(TEXTS, st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.integers(1, 4))
def test_a_kept_state_is_a_branch_point(ids: list[int], token: int, other_token: int, window: int) -> None:
    cache = NeuralCache(LSTM, CacheSettings(window, theta=1.0, weight=0.3))
    state = cache.start()
    for previous in (EOS_ID, *ids):
        _, state = cache.advance(state, previous)
    token_ids, probe = state.token_ids.copy(), cache.hidden_vector(state)
    products = state.keys.products(probe) if ids else None
    models.assert_branches_are_independent(cache, state, token, other_token)
    assert np.array_equal(state.token_ids, token_ids)
    assert products is None or np.array_equal(state.keys.products(probe), products)
    assert state.token_ids.tolist() == ids[-window:]


@pytest.mark.parametrize("window", [5, CHUNK_ROWS, 3 * CHUNK_ROWS + 7])
def test_keys_of_branching_texts_are_those_of_plain_lists(window: int) -> None:
    """Texts that share a beginning write into the same chunks, or copy them where another text has written."""
    rng = np.random.default_rng(0)
    texts: list[tuple[CachedKeys, list[np.ndarray]]] = [(CachedKeys(), [])]
    for _ in range(6 * CHUNK_ROWS):
        keys, vectors = texts[rng.integers(len(texts))]
        vector = rng.standard_normal(3).astype(np.float32)
        texts.append((keys.append(vector, window), [*vectors, vector][-window:]))
        texts = texts[-20:]
    probe = rng.standard_normal(3).astype(np.float32)
    for keys, vectors in texts:
        assert len(keys) == len(vectors)
        if vectors:
            assert keys.products(probe) == pytest.approx(np.stack(vectors) @ probe, abs=1e-5)


def test_a_state_of_a_long_text_shares_its_keys() -> None:
    keys = CachedKeys()
    for number in range(10 * CHUNK_ROWS):
        keys = keys.append(np.full(3, number, np.float32), window=2 * CHUNK_ROWS)
    assert len(keys.chunks) <= 3
    longer = keys.append(np.ones(3, np.float32), 2 * CHUNK_ROWS)
    assert longer.chunks[:-1] == keys.chunks[-len(longer.chunks) + 1 :]


def test_the_cache_does_not_change_the_distribution_of_the_model() -> None:
    before = UNIGRAM.advance(None, 3)[0].copy()
    distributions(NeuralCache(UNIGRAM, CacheSettings()), make_ids(10))
    assert np.array_equal(UNIGRAM.advance(None, 3)[0], before)


class UniformModel:
    """A uniform distribution, with a large hidden vector that depends on the last token."""

    tokenizer = VOCABULARY
    hidden_vectors = np.random.default_rng(0).normal(0, 5, (SIZE, 4)).astype(np.float32)

    def start(self) -> int:
        return EOS_ID

    def advance(self, state: int, token: int):
        return np.full(SIZE, -math.log(SIZE), np.float32), token

    def hidden_vector(self, state: int) -> np.ndarray:
        return self.hidden_vectors[state]


@pytest.mark.parametrize("last", range(2, SIZE))
def test_a_huge_theta_predicts_the_token_after_the_most_similar_context(last: int) -> None:
    ids = [2, 3, 4, 5, 6, 7, last]
    vectors = UniformModel.hidden_vectors
    products = [float(vectors[previous] @ vectors[last]) for previous in [EOS_ID, *ids[:-1]]]
    expected = np.full(SIZE, 0.5 / SIZE)
    expected[ids[products.index(max(products))]] += 0.5
    cache = NeuralCache(UniformModel(), CacheSettings(theta=1000, weight=0.5))
    assert distributions(cache, ids)[-1] == pytest.approx(expected, rel=1e-4)
    for token in (0, 4):
        output = cache.forward_sequence(np.array([*ids, token], np.int32))
        assert output.log_probs[-1] == pytest.approx(math.log(expected[token]), rel=1e-4)


def test_an_almost_impossible_token_has_a_finite_score() -> None:
    weights = {name: value.copy() for name, value in LSTM.weights.items()}
    weights["output.bias"][6] = -200
    cache = NeuralCache(NumpyLSTM(CONFIG, VOCABULARY, weights), CacheSettings())
    _, state = cache.advance(cache.start(), EOS_ID)
    log_probs, _ = cache.advance(state, 3)
    assert cache.forward_sequence(np.array([3, 6], np.int32)).log_probs[1] == pytest.approx(log_probs[6], rel=1e-4)


# --- a whole text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
@settings(max_examples=20, deadline=None)
@given(ids=TEXTS, cache_settings=CACHE_SETTINGS)
def test_scores_of_a_text_match_token_by_token(name: str, ids: list[int], cache_settings: CacheSettings) -> None:
    cache = NeuralCache(MODELS[name], cache_settings)
    output = cache.forward_sequence(np.array(ids, np.int32))
    log_probs, state = cache.advance(cache.start(), EOS_ID)
    for position, token in enumerate(ids):
        assert output.log_probs[position] == pytest.approx(log_probs[token], abs=1e-5)
        assert output.hidden_states[position] == pytest.approx(cache.hidden_vector(state), abs=1e-6)
        log_probs, state = cache.advance(state, token)
    assert output.log_probs.shape == (len(ids),)


@pytest.mark.parametrize("window", [100, SCORING_CHUNK])
def test_scores_of_long_texts_do_not_depend_on_chunks(window: int) -> None:
    ids = make_ids(2 * SCORING_CHUNK + 20)
    cache = NeuralCache(LSTM, CacheSettings(window, theta=0.8, weight=0.2))
    expected = np.log(distributions(cache, ids)[np.arange(len(ids)), ids])
    assert cache.forward_sequence(ids).log_probs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", [1, 7, SCORING_CHUNK - 1, SCORING_CHUNK, SCORING_CHUNK + 1, 1000])
def test_cache_probs_of_a_long_text_match_plain_sums(window: int) -> None:
    length = 2 * SCORING_CHUNK + 5
    ids, hidden = make_ids(length), np.random.default_rng(window).normal(size=(length, 3)).astype(np.float32)
    theta = 0.7
    similarity = np.exp(theta * (hidden.astype(np.float64) @ hidden.astype(np.float64).T)).tolist()
    probs = cache_probs(hidden, ids, window, [theta])[0]
    tokens = ids.tolist()
    assert probs[0] == 0
    around_first_chunk = [SCORING_CHUNK + offset for offset in (-1, 0, 1, 100)]
    around_second_chunk = [2 * SCORING_CHUNK + offset for offset in (-1, 0, 4)]
    for position in (1, 2, 8, *around_first_chunk, *around_second_chunk):
        cached = range(max(0, position - window), position)
        total = sum(similarity[position][other] for other in cached)
        same = sum(similarity[position][other] for other in cached if tokens[other] == tokens[position])
        assert probs[position] == pytest.approx(same / total, rel=1e-4, abs=1e-9), position


def test_cache_probs_match_a_hand_calculation() -> None:
    hidden = np.array([[0], [math.log(2)], [1], [1]], np.float32)
    ids = np.array([2, 3, 3, 2], np.int32)
    # With a query of 1, the contexts weigh 1 (for token 2), 2 (for token 3) and e (for token 3).
    assert cache_probs(hidden, ids, 10, [1.0])[0] == pytest.approx([0, 0, 2 / 3, 1 / (3 + math.e)], rel=1e-6)
    assert cache_probs(hidden, ids, 2, [1.0])[0] == pytest.approx([0, 0, 2 / 3, 0], rel=1e-6)
    assert cache_probs(hidden, ids, 10, [0.0])[0] == pytest.approx([0, 0, 1 / 2, 1 / 3], rel=1e-6)


def test_several_thetas_give_the_same_as_one_at_a_time() -> None:
    ids = make_ids(SCORING_CHUNK + 30)
    hidden = np.random.default_rng(2).normal(size=(len(ids), 4)).astype(np.float32)
    thetas = [1.0, 0.0, 0.3]
    probs = cache_probs(hidden, ids, 50, thetas)
    assert probs.shape == (3, len(ids))
    for row, theta in zip(probs, thetas, strict=True):
        assert np.array_equal(row, cache_probs(hidden, ids, 50, [theta])[0])
    assert not np.allclose(probs[0], probs[1])


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 0}, "window 0"),
        ({"window": -3}, "window -3"),
        ({"theta": -0.1}, "theta -0.1"),
        ({"theta": math.nan}, "theta nan"),
        ({"theta": math.inf}, "theta inf"),
        ({"weight": 1.0}, "weight 1 "),
        ({"weight": 1.5}, "weight 1.5"),
        ({"weight": -0.1}, "weight -0.1"),
        ({"weight": math.nan}, "weight nan"),
    ],
    ids=str,
)
def test_invalid_settings_are_named_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        CacheSettings(**values)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text_kind", ["similarity helps", "frequency helps", "nothing helps"])
@pytest.mark.parametrize("window", [4, 500])
def test_tuned_settings_are_the_best_of_the_grid(text_kind: str, window: int) -> None:
    rng = np.random.default_rng(4)
    time = 50
    if text_kind == "nothing helps":
        ids = np.arange(time).astype(np.int32) % SIZE
        hidden = -np.eye(SIZE, dtype=np.float32)[ids]
        window = min(window, SIZE - 1)  # so that a token is never in the cache
    else:
        ids = (make_ids(time) % (4 if text_kind == "similarity helps" else 2)).astype(np.int32)
        noise = 0.3 if text_kind == "similarity helps" else 2.0
        hidden = (np.eye(SIZE)[ids] + rng.normal(0, noise, (time, SIZE))).astype(np.float32)
    output = SequenceOutput(np.log(rng.uniform(0.05, 0.4, time)), hidden)
    best, best_total = None, -math.inf
    for theta in neural_cache.THETA_GRID:
        model_probs = np.exp(output.log_probs).tolist()
        probs = [0.0] * time
        for position in range(1, time):
            window_start = max(0, position - window)
            cached = [(hidden[other].tolist(), int(ids[other])) for other in range(window_start, position)]
            probs[position] = reference_cache_probs(cached, hidden[position].tolist(), theta)[ids[position]]
        for weight in neural_cache.WEIGHT_GRID:
            total = math.log(model_probs[0])
            pairs = zip(model_probs[1:], probs[1:], strict=True)
            total += sum(math.log((1 - weight) * p + weight * c) for p, c in pairs)
            if total > best_total + 1e-9:
                best, best_total = (theta, weight), total
    tuned = tune_cache(output, ids, window)
    assert tuned.window == window
    assert (tuned.theta, tuned.weight) == best
    if text_kind == "nothing helps":
        assert tuned.weight == min(neural_cache.WEIGHT_GRID)


def test_a_model_without_hidden_vectors_gets_the_best_weight() -> None:
    ids = np.array([2, 2, 2, 3] * 10, np.int32)
    tuned = tune_cache(forward_sequence(UNIGRAM, ids), ids)
    totals = {
        weight: NeuralCache(UNIGRAM, CacheSettings(500, 0.0, weight)).forward_sequence(ids).log_probs.sum()
        for weight in neural_cache.WEIGHT_GRID
    }
    assert tuned.weight == max(totals, key=totals.__getitem__)
    assert totals[tuned.weight] > forward_sequence(UNIGRAM, ids).log_probs.sum()
