"""Runs put together, against the same parts put together by hand."""

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config
from engine.data.dataset import Dataset, prepare
from engine.data.vocabulary import EOS_ID, Vocabulary
from engine.errors import CorpusError, UnusableInput
from engine.models.base import LanguageModel, trace
from engine.models.cache import SHARES, THETAS, Cache, CacheSettings, choose_cache
from engine.models.dynamic_evaluation import RATES, Dynamic, choose_lr
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs.combine import Combination, Combined, Combiner, dataset_of
from engine.runs.store import LoadedModel
from tests.conftest import sentences, write_csv


def jumbled(number: int) -> list[str]:
    """Utterances with their words in any order: of these Kneser-Ney knows no more than how frequent words are."""
    chance = random.Random(3)
    words = " ".join(sentences(60)).split()
    return [" ".join(chance.sample(words, 9)) for _ in range(number)]


TEXTS = sentences(40) + jumbled(60)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("corpus") / "small.csv", TEXTS)


@pytest.fixture(scope="module")
def dataset(corpus: Path) -> Dataset:
    return prepare(Config("tiny").with_values(corpus=str(corpus)).data)


def run_of(dataset: Dataset, name: str, seed: int, vocabulary: Vocabulary | None = None) -> LoadedModel:
    """A run that was not trained, but knows how frequent words are, so that it deserves some weight."""
    config = Config("tiny").with_values(corpus=dataset.corpus.source, embedding_size=6, hidden_size=6)
    vocabulary = vocabulary or dataset.vocabulary
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(config.model, len(vocabulary))
    weights = {part: chance.normal(0, 0.4, shape).astype(np.float32) for part, shape in shapes.items()}
    weights["output.bias"] = np.log(np.bincount(dataset.train, minlength=len(vocabulary)) + 1).astype(np.float32)
    decoder = Decoder(config.model, vocabulary, weights)
    return LoadedModel(name, Path(name), config, decoder, None, None, dataset.corpus.sha256)


@pytest.fixture(scope="module")
def runs(dataset: Dataset) -> list[LoadedModel]:
    return [run_of(dataset, name, seed) for seed, name in enumerate(("first", "second", "third"))]


@pytest.fixture(scope="module")
def combiner(runs: list[LoadedModel]) -> Combiner:
    return Combiner(runs)


@pytest.fixture(scope="module")
def alone(runs: list[LoadedModel]) -> Combiner:
    return Combiner(runs[:1])


def assert_same(found: LanguageModel, expected: LanguageModel, dataset: Dataset) -> None:
    """Whole texts and single words."""
    ids = dataset.test[:40]
    assert trace(found, ids).scores == pytest.approx(trace(expected, ids).scores, abs=1e-5)
    (_, one), (_, other) = found.advance(found.start(), EOS_ID), expected.advance(expected.start(), EOS_ID)
    for token in ids[:6].tolist():
        (log_probs, one), (others, other) = found.advance(one, token), expected.advance(other, token)
        assert log_probs == pytest.approx(others, abs=1e-4)


# --- ensembles ------------------------------------------------------------------------------------------------


def test_one_run_alone_is_its_decoder(alone: Combiner, runs: list[LoadedModel]) -> None:
    assert alone.combine(Combination()) == Combined(runs[0].decoder, (), None, ())


def test_several_runs_are_their_mean(combiner: Combiner, runs: list[LoadedModel], dataset: Dataset) -> None:
    combined = combiner.combine(Combination())
    assert dict(combined.weights) == pytest.approx({"first": 1 / 3, "second": 1 / 3, "third": 1 / 3})
    assert (combined.cache, combined.learning_rates) == (None, ())
    probs = [np.exp(trace(run.decoder, dataset.test).scores) for run in runs]
    mean = [math.log(sum(column) / 3) for column in zip(*probs, strict=True)]
    assert trace(combined.model, dataset.test).scores == pytest.approx(mean, abs=1e-5)


def test_an_ensemble_takes_weights_in_the_order_of_its_runs(
    combiner: Combiner, runs: list[LoadedModel], dataset: Dataset
) -> None:
    combined = combiner.combine(Combination(weights=(0.5, 0.3, 0.2)))
    assert dict(combined.weights) == {"first": 0.5, "second": 0.3, "third": 0.2}
    assert_same(combined.model, Mixture([run.decoder for run in runs], [0.5, 0.3, 0.2]), dataset)


def test_what_needs_nothing_chosen_needs_no_corpus(runs: list[LoadedModel], tmp_path: Path) -> None:
    gone = [
        replace(run, config=run.config.with_values(corpus=str(tmp_path / "gone.csv")), corpus_sha256="") for run in runs
    ]
    assert len(Combiner(gone).combine(Combination()).weights) == 3
    assert Combiner(gone).combine(Combination(weights=(0.1, 0.1, 0.8))).weights[2] == ("third", 0.8)
    for options in (Combination(mixture=True), Combination(cache=True), Combination(dynamic=True)):
        with pytest.raises(CorpusError, match=r"gone\.csv does not exist"):
            Combiner(gone).combine(options)


# --- mixtures with Kneser-Ney ---------------------------------------------------------------------------------


def test_the_weight_of_kneser_ney_is_the_best_on_validation(
    alone: Combiner, runs: list[LoadedModel], dataset: Dataset
) -> None:
    combined = alone.combine(Combination(mixture=True))
    models = [runs[0].decoder, KneserNey(dataset.train, dataset.vocabulary)]
    lstm, counts = (np.exp(trace(model, dataset.valid).scores) for model in models)
    best = max((i / 1000 for i in range(1001)), key=lambda w: np.log(w * lstm + (1 - w) * counts).sum())
    assert dict(combined.weights) == pytest.approx({"first": best, "Kneser-Ney": 1 - best}, abs=2e-3)
    assert 0.005 < best < 0.995  # else the text above would not tell one model from the other
    assert_same(combined.model, Mixture(models, [weight for _, weight in combined.weights]), dataset)


def test_in_a_mixture_of_several_no_part_deserves_more_weight(
    combiner: Combiner, runs: list[LoadedModel], dataset: Dataset
) -> None:
    combined = combiner.combine(Combination(mixture=True))
    models = [*(run.decoder for run in runs), combiner.kneser_ney]
    probs = np.exp(np.stack([trace(model, dataset.valid).scores for model in models]))
    weights = np.array([weight for _, weight in combined.weights])
    deserved = (probs / (weights @ probs)).mean(axis=1)  # the slope of the likelihood: 1 where a weight is right
    assert [name for name, _ in combined.weights] == ["first", "second", "third", "Kneser-Ney"]
    assert weights.sum() == pytest.approx(1)
    assert deserved.max() < 1.01
    assert_same(combined.model, Mixture(models, weights.tolist()), dataset)


def test_given_weights_are_taken_kneser_ney_last(combiner: Combiner, runs: list[LoadedModel], dataset: Dataset) -> None:
    combined = combiner.combine(Combination(mixture=True, weights=(0.4, 0.3, 0.2, 0.1)))
    assert dict(combined.weights) == {"first": 0.4, "second": 0.3, "third": 0.2, "Kneser-Ney": 0.1}
    counts = KneserNey(dataset.train, dataset.vocabulary)
    expected = Mixture([*(run.decoder for run in runs), counts], [0.4, 0.3, 0.2, 0.1])
    assert_same(combined.model, expected, dataset)


def test_runs_of_one_name_keep_their_weights(runs: list[LoadedModel]) -> None:
    twins = Combiner([runs[0], replace(runs[1], name="first")])  # of two folders, as --run a/first --run b/first
    combined = twins.combine(Combination(weights=(0.25, 0.75)))
    assert combined.weights == (("first", 0.25), ("first", 0.75))
    assert "0.25" in combined.describe()


# --- caches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [7, 300])
def test_the_cache_is_the_best_of_the_grid_on_validation(
    alone: Combiner, runs: list[LoadedModel], dataset: Dataset, window: int
) -> None:
    combined = alone.combine(Combination(cache=True, cache_window=window))
    grid = [CacheSettings(window, theta, share) for theta in THETAS for share in SHARES]
    best = max(grid, key=lambda item: Cache(runs[0].decoder, item).trace(dataset.valid).scores.sum())
    assert combined.cache == best
    assert combined.weights == ()
    assert_same(combined.model, Cache(runs[0].decoder, best), dataset)


@pytest.mark.parametrize("mixture", [False, True])
def test_the_cache_stands_on_the_whole_mixture(combiner: Combiner, dataset: Dataset, mixture: bool) -> None:
    below = combiner.combine(Combination(mixture=mixture))
    combined = combiner.combine(Combination(mixture=mixture, cache=True))
    assert combined.weights == below.weights
    assert combined.cache == choose_cache(trace(below.model, dataset.valid), dataset.valid)
    assert_same(combined.model, Cache(below.model, combined.cache), dataset)
    assert mixture or combined.cache.share > 0


# --- learning from what is read -------------------------------------------------------------------------------


def test_each_run_learns_at_the_rate_that_is_best_on_validation(runs: list[LoadedModel], dataset: Dataset) -> None:
    two = Combiner(runs[:2])
    combined = two.combine(Combination(dynamic=True))
    learning = [Dynamic(run.decoder, dataset.train) for run in runs[:2]]
    rates = tuple(choose_lr(model, dataset.valid) for model in learning)
    assert combined.learning_rates == rates
    assert set(rates) <= set(RATES)
    parts = [model.with_lr(rate) for model, rate in zip(learning, rates, strict=True)]
    assert_same(combined.model, Mixture(parts, [0.5, 0.5]), dataset)
    again = two.combine(Combination(dynamic=True, mixture=True, weights=(0.2, 0.3, 0.5)))
    assert again.learning_rates == rates
    assert_same(again.model, Mixture([*parts, two.kneser_ney], [0.2, 0.3, 0.5]), dataset)
    assert two.combine(Combination()).model.models == tuple(run.decoder for run in runs[:2])


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [Combination(weights=(1.0,)), Combination(weights=(0.5, 0.5), cache=True)])
def test_weights_of_one_model_alone_are_refused(alone: Combiner, options: Combination) -> None:
    with pytest.raises(UnusableInput, match="--weights") as caught:
        alone.combine(options)
    assert "--mixture" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Combination(weights=(0.5, 0.5)), "2 weights for 3 models"),
        (Combination(weights=(0.5, 0.3, 0.2), mixture=True), "3 weights for 4 models"),
        (Combination(weights=(0.5, 0.5, 0.5)), "sum to 1.5"),
        (Combination(weights=(-1.0, 1.0, 1.0)), "-1,1,1"),
    ],
)
def test_weights_that_do_not_fit_are_refused(combiner: Combiner, options: Combination, named: str) -> None:
    with pytest.raises(UnusableInput, match=named) as caught:
        combiner.combine(options)
    assert str(caught.value).isprintable()


def test_weights_of_8_bits_cannot_learn(runs: list[LoadedModel]) -> None:
    exact = runs[1].decoder
    rounded = replace(runs[1], decoder=Decoder(exact.config, exact.vocabulary, exact.weights, int8=True))
    with pytest.raises(UnusableInput, match="leave --dynamic or --precision out"):
        Combiner([runs[0], rounded]).combine(Combination(dynamic=True))


@pytest.mark.parametrize("window", [0, -1])
def test_a_cache_without_a_window_is_refused_at_once(window: int) -> None:
    with pytest.raises(UnusableInput, match=f"window {window} "):
        Combination(cache_window=window)


def test_runs_of_other_words_are_refused_by_name(runs: list[LoadedModel], dataset: Dataset) -> None:
    words = dataset.vocabulary.words
    stranger = run_of(dataset, "stranger", 5, Vocabulary((*words[:-1], "mordor")))
    for order in ([runs[0], stranger], [runs[0], runs[1], stranger]):
        with pytest.raises(UnusableInput, match="stranger") as caught:
            Combiner(order)
        assert "first" in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_corpus_that_changed_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "changing.csv", TEXTS)
    run = run_of(prepare(Config("tiny").with_values(corpus=str(path)).data), "mine", 0)
    assert np.array_equal(dataset_of(run).valid, dataset.valid)
    write_csv(path, [*TEXTS[:-1], "the miller carries the green barrels before dawn"])  # the same words, nearly
    for loaded in (run, replace(run, corpus_sha256="0" * 64)):
        with pytest.raises(CorpusError, match=r"changing\.csv has changed since run mine") as caught:
            Combiner([loaded]).combine(Combination(mixture=True))
        assert str(caught.value).isprintable()
    write_csv(path, TEXTS)
    assert dataset_of(run).corpus.sha256 == run.corpus_sha256  # put back, it is usable again


def test_a_run_that_does_not_say_its_corpus_is_judged_by_its_words(dataset: Dataset, tmp_path: Path) -> None:
    silent = replace(run_of(dataset, "silent", 0), corpus_sha256="")
    assert np.array_equal(dataset_of(silent).train, dataset.train)
    other = write_csv(tmp_path / "other.csv", sentences(90, seed=8)[::-1] + ["beorn eats honey all day long"] * 9)
    with pytest.raises(CorpusError, match="silent"):
        dataset_of(replace(silent, config=silent.config.with_values(corpus=str(other))))


# --- how it is told -------------------------------------------------------------------------------------------


def test_a_description_names_every_part(runs: list[LoadedModel]) -> None:
    model = runs[0].decoder
    weights = (("first", 0.75), ("Kneser-Ney", 0.25))
    told = Combined(model, weights, CacheSettings(300, 0.4, 0.06), (2e-5, 1e-5)).describe()
    assert told == "0.75 first + 0.25 Kneser-Ney, learning at 2e-05, 1e-05, cache 0.06 (window 300, theta 0.4)"
    assert Combined(model, weights, None, ()).describe() == "0.75 first + 0.25 Kneser-Ney"
    assert Combined(model, (), CacheSettings(), ()).describe() == "cache 0.1 (window 500, theta 1)"
    assert Combined(model, (), None, (4e-5,)).describe() == "learning at 4e-05"
    assert Combined(model, (), None, ()).describe() == ""
    assert Combined(model, (), CacheSettings(share=0), ()).describe() == "no cache, which did not help on validation"


def test_a_real_combination_is_described_with_all_it_holds(combiner: Combiner) -> None:
    combined = combiner.combine(Combination(mixture=True, cache=True, cache_window=50))
    told = combined.describe()
    for name in ("first", "second", "third", "Kneser-Ney"):
        assert f"{dict(combined.weights)[name]:.2f} {name}" in told
    assert combined.cache is not None
    assert "no cache" in told  # the training text is all there is to know here
    assert combined.cache.share == 0
