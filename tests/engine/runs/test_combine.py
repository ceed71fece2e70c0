"""Combined runs behave like the same parts combined by hand."""

import math
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.errors import CorpusError, InvalidInputError
from engine.models.base import forward_sequence
from engine.models.combinations import Mixture, NeuralCache, tune_cache
from engine.models.lstm import LR_GRID, DynamicEvaluation
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.weights import weight_shapes
from engine.runs.combine import CombinationOptions, ModelCombiner, load_run_dataset
from engine.runs.directory import METRICS_FILE
from engine.runs.loading import LoadedModel
from tests.support.files import sentences, write_csv
from tests.support.runs import append_events, make_events


def shuffled_sentences(count):
    """Return sentences of random words, for which Kneser-Ney is no better than word frequencies."""
    rng = random.Random(3)
    words = " ".join(sentences(60)).split()
    return [" ".join(rng.sample(words, 9)) for _ in range(count)]


TEXTS = sentences(40) + shuffled_sentences(60)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("corpus") / "small.csv", TEXTS)


@pytest.fixture(scope="module")
def dataset(corpus):
    return load_dataset(Config("tiny").with_values(corpus=str(corpus)).data)


def make_run(dataset, name, seed, tokenizer=None):
    """Return an untrained run whose output bias is the word frequencies, so that it deserves some weight."""
    config = Config("tiny").with_values(corpus=dataset.corpus.source, embedding_size=6, hidden_size=6)
    tokenizer = tokenizer or dataset.tokenizer
    rng = np.random.default_rng(seed)
    shapes = weight_shapes(config.model, len(tokenizer))
    weights = {part: rng.normal(0, 0.4, shape).astype(np.float32) for part, shape in shapes.items()}
    weights["output.bias"] = np.log(np.bincount(dataset.train, minlength=len(tokenizer)) + 1).astype(np.float32)
    decoder = NumpyLSTM(config.model, tokenizer, weights)
    path = Path(tempfile.mkdtemp(dir=Path(dataset.corpus.source).parent))
    record_start(path, dataset.corpus.sha256)
    return LoadedModel(name, path, config, decoder)


def record_start(path, sha256):
    (path / METRICS_FILE).unlink(missing_ok=True)
    append_events(path, [replace(make_events()[1], corpus_sha256=sha256)])


@pytest.fixture(scope="module")
def runs(dataset):
    return [make_run(dataset, name, seed) for seed, name in enumerate(("first", "second", "third"))]


@pytest.fixture(scope="module")
def combiner(runs):
    return ModelCombiner(runs)


@pytest.fixture(scope="module")
def alone(runs):
    return ModelCombiner(runs[:1])


def assert_same(actual, expected, dataset):
    ids = dataset.test[:40]
    assert forward_sequence(actual, ids).log_probs == pytest.approx(forward_sequence(expected, ids).log_probs, abs=1e-5)
    (_, state), (_, expected_state) = actual.advance(actual.start(), EOS_ID), expected.advance(expected.start(), EOS_ID)
    for token in ids[:6].tolist():
        log_probs, state = actual.advance(state, token)
        expected_log_probs, expected_state = expected.advance(expected_state, token)
        assert log_probs == pytest.approx(expected_log_probs, abs=1e-4)


def test_several_runs_are_averaged(combiner, alone, runs, dataset):
    assert alone.combine(CombinationOptions()) == (runs[0].decoder, "")
    combined = combiner.combine(CombinationOptions())
    assert combined.description == "0.33 first + 0.33 second + 0.33 third"
    probs = [np.exp(forward_sequence(run.decoder, dataset.test).log_probs) for run in runs]
    mean = [math.log(sum(column) / 3) for column in zip(*probs, strict=True)]
    assert forward_sequence(combined.model, dataset.test).log_probs == pytest.approx(mean, abs=1e-5)


def test_a_combination_without_tuning_needs_no_corpus(runs, tmp_path):
    gone = str(tmp_path / "gone.csv")
    runs_without_corpus = [replace(run, config=run.config.with_values(corpus=gone)) for run in runs]
    assert ModelCombiner(runs_without_corpus).combine(CombinationOptions()).model.weights == (1 / 3, 1 / 3, 1 / 3)
    for options in (CombinationOptions(mixture=True), CombinationOptions(cache=True), CombinationOptions(dynamic=True)):
        with pytest.raises(CorpusError, match=r"gone\.csv does not exist"):
            ModelCombiner(runs_without_corpus).combine(options)


def test_the_weight_of_kneser_ney_is_tuned_on_validation(alone, runs, dataset):
    combined = alone.combine(CombinationOptions(mixture=True))
    models = [runs[0].decoder, KneserNey(dataset.train, dataset.tokenizer)]
    lstm, counts = (np.exp(forward_sequence(model, dataset.valid).log_probs) for model in models)
    best = max((i / 1000 for i in range(1001)), key=lambda w: np.log(w * lstm + (1 - w) * counts).sum())
    assert combined.model.weights == pytest.approx((best, 1 - best), abs=2e-3)
    assert combined.description == f"{combined.model.weights[0]:.2f} first + {combined.model.weights[1]:.2f} Kneser-Ney"
    assert 0.005 < best < 0.995  # otherwise the corpus could not distinguish the models
    assert_same(combined.model, Mixture(models, combined.model.weights), dataset)


def test_the_cache_is_added_to_the_whole_mixture(combiner, dataset):
    without_cache = combiner.combine(CombinationOptions())
    combined = combiner.combine(CombinationOptions(cache=True))
    cache = combined.model.settings
    assert cache == tune_cache(forward_sequence(without_cache.model, dataset.valid), dataset.valid)
    assert_same(combined.model, NeuralCache(without_cache.model, cache), dataset)
    assert cache.weight > 0
    parameters = f"cache {cache.weight:g} (window 500, theta {cache.theta:g})"
    assert combined.description == f"{without_cache.description}, {parameters}"


def test_the_learning_rate_of_each_run_is_tuned_on_validation(runs, dataset):
    combiner = ModelCombiner(runs[:2])
    combined = combiner.combine(CombinationOptions(dynamic=True))
    dynamic_models = [DynamicEvaluation(run.decoder, dataset.train) for run in runs[:2]]
    for model in dynamic_models:
        model.tune_lr(dataset.valid)
    rates = [model.lr for model in dynamic_models]
    assert combined.description.endswith(f", dynamic evaluation at lr {rates[0]:g}, {rates[1]:g}")
    assert set(rates) <= set(LR_GRID)
    models = combined.model, Mixture(dynamic_models, [0.5, 0.5])
    scores, expected = (forward_sequence(model, dataset.valid).log_probs for model in models)
    assert np.array_equal(scores, expected)
    assert combiner.combine(CombinationOptions()).model.models == tuple(run.decoder for run in runs[:2])


def test_dynamic_evaluation_of_int8_weights_is_refused(runs):
    exact = runs[1].decoder
    quantized = replace(runs[1], decoder=NumpyLSTM(exact.config, exact.tokenizer, exact.weights, int8=True))
    with pytest.raises(InvalidInputError, match="leave out --dynamic or --precision"):
        ModelCombiner([runs[0], quantized]).combine(CombinationOptions(dynamic=True))


def test_runs_with_different_vocabularies_are_refused_by_name(runs, dataset):
    words = dataset.tokenizer.tokens
    other = make_run(dataset, "other", 5, WordTokenizer((*words[:-1], "mordor")))
    for order in ([runs[0], other], [runs[0], runs[1], other]):
        with pytest.raises(InvalidInputError, match="other") as error:
            ModelCombiner(order)
        assert "first" in str(error.value)


def test_a_changed_corpus_is_refused(dataset, tmp_path):
    path = write_csv(tmp_path / "changing.csv", TEXTS)
    run = make_run(load_dataset(Config("tiny").with_values(corpus=str(path)).data), "mine", 0)
    assert np.array_equal(load_run_dataset(run).valid, dataset.valid)
    write_csv(path, [*TEXTS[:-1], "the miller carries the green barrels before dawn"])  # nearly the same words
    other = replace(run, path=tmp_path)
    record_start(tmp_path, "0" * 64)
    for loaded in (run, other):
        with pytest.raises(CorpusError, match=r"changing\.csv has changed since run mine"):
            ModelCombiner([loaded]).combine(CombinationOptions(mixture=True))
    write_csv(path, TEXTS)
    assert load_run_dataset(run).corpus.sha256 == run.started.corpus_sha256  # a restored corpus is accepted
