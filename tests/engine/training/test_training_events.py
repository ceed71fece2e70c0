"""Order and content of the events of a training, its ends and its precision; trainings of a Transformer."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from engine.analysis.evaluation import evaluate
from engine.config import Config
from engine.data.dataset import load_dataset
from engine.errors import ConfigError, TrainingError
from engine.events import Evaluated, Finished, Preparing, Sampled, Started, Step
from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.ngram import KneserNey, Unigram
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer import TransformerModel
from engine.presets import PRESETS
from engine.runs.loading import load_model
from engine.training import TrainingInput
from engine.training.job import configure, prepare_job
from engine.training.state import choose_dtype
from engine.training.trainer import divergence_error, train
from tests.support.files import sentences, write_csv
from tests.support.models import text_bits_per_character
from tests.support.networks import TRANSFORMER
from tests.support.training import (
    events_of,
    make_config,
    make_trainer,
    run_training,
    take_step,
    weights_equal,
    weights_of,
)


class Untouchable:
    def __getattribute__(self, name):
        pytest.fail(f"{name} of the test split was read")

    def __len__(self):
        pytest.fail("the length of the test split was read")

    def __getitem__(self, index):
        pytest.fail("the test split was read")


def test_events_come_in_order_and_their_clocks_increase(default_events):
    kinds = [type(event) for event in default_events if not isinstance(event, Step)]
    assert kinds == [Preparing, Started, *[Evaluated, Sampled] * 4, Finished]
    indices = [i for i, event in enumerate(default_events) if isinstance(event, Evaluated)]
    assert all(events_of(Step, default_events[before:after]) for before, after in pairwise(indices))
    assert [event.epoch for event in events_of(Evaluated, default_events)] == [0, 1, 2, 3]
    steps = events_of(Step, default_events)
    assert [step.step for step in steps] == sorted({step.step for step in steps})
    assert [step.epoch for step in steps] == sorted({step.epoch for step in steps})
    assert all(step.tokens_per_second > 0 and step.gradient_norm > 0 for step in steps)
    assert (steps[-1].epoch, steps[-1].eta_seconds) == pytest.approx((3, 0))
    seconds = [event.seconds for event in default_events if isinstance(event, (Step, Evaluated, Finished))]
    assert seconds == sorted(seconds)


def test_started_describes_the_training_and_the_baselines(default_events, dataset):
    (started,), (finished,) = events_of(Started, default_events), events_of(Finished, default_events)
    assert (started.run, started.preset, started.epochs, started.device) == ("a-run", "test", 3, "cpu")
    assert started.vocabulary_size == len(dataset.tokenizer)
    assert (started.train_tokens, started.valid_tokens) == (len(dataset.train), len(dataset.valid))
    assert started.parameters == sum(value.size for value in weights_of(finished).values())
    assert started.corpus_sha256 == dataset.corpus.sha256
    unigram, kneser_ney = (model(dataset.train, dataset.tokenizer) for model in (Unigram, KneserNey))
    assert started.unigram_perplexity == evaluate(unigram, dataset.valid).perplexity
    assert started.kneser_ney_perplexity == evaluate(kneser_ney, dataset.valid).perplexity
    text = "".join(f"{line.text}\n" for line in dataset.splits.valid)
    expected = text_bits_per_character(finished.model, text, dataset.mode)
    assert started.bits_per_character(finished.valid_perplexity) == pytest.approx(expected, rel=1e-4)


def test_finished_has_the_best_model_and_its_perplexities(dataset):
    """The learning rate is so high that the last model is not the best one."""
    events = run_training(dataset, lr=0.5, schedule="constant", epochs=5, eval_every_epochs=2, clip=0.0)
    evaluated, (finished,) = events_of(Evaluated, events), events_of(Finished, events)
    assert [event.epoch for event in evaluated] == [0, 2, 4, 5]
    perplexities = [event.valid_perplexity for event in evaluated]
    best = evaluated[perplexities.index(min(perplexities))]
    assert best is not evaluated[-1], "this test needs a training whose last model is not its best"
    assert finished.valid_perplexity == best.valid_perplexity
    assert weights_equal(weights_of(finished), weights_of(best))
    assert finished.test_perplexity == pytest.approx(evaluate(best.model, dataset.test).perplexity)
    expected = [value < min([math.inf, *perplexities[:i]]) for i, value in enumerate(perplexities)]
    assert [event.is_best for event in evaluated] == expected
    assert (finished.reason, finished.epochs) == ("done", 5)


def check_samples(events, prompt, encoded, **settings):
    """Check that the samples continue `prompt` as a generation from the text `encoded` does."""
    for sampled, evaluated in zip(events_of(Sampled, events), events_of(Evaluated, events), strict=True):
        assert (sampled.prompt, sampled.step, sampled.epoch) == (prompt, evaluated.step, evaluated.epoch)
        ids = evaluated.model.tokenizer.encode(encoded).tolist()
        chain = SamplerSettings(max_tokens=25, **settings)
        tokens = generate(TextInProgress(evaluated.model, ids, chain, sampled.seed))
        assert sampled.text == "".join(event.piece for event in tokens if isinstance(event, TokenEvent)).lstrip(" ")


def test_samples_continue_the_known_words_of_the_prompt_with_the_configured_seed(dataset):
    values = {"epochs": 1, "sample_seed": 9, "sample_temperature": 0.5}
    events = run_training(dataset, **values, sample_prompt="The old XYZZY hobbit")
    check_samples(events, "the old hobbit", "the old hobbit", temperature=0.5)
    assert all(event.text for event in events_of(Sampled, events))
    assert {(event.seed, event.temperature) for event in events_of(Sampled, events)} == {(9, 0.5)}
    check_samples(run_training(dataset, **values, sample_prompt="xyzzy plugh"), "", "", temperature=0.5)


def test_a_sample_of_an_open_vocabulary_starts_with_another_word(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(["the older wizards walk home", "the oldest hobbit is awake", "the oldish mill"] * 30))
    config = make_config(corpus=str(path), corpus_format="text", tokenizer="characters")
    events = run_training(load_dataset(config.data), epochs=1, sample_prompt="the old", sample_temperature=0.0)
    check_samples(events, "the old", "the old ", temperature=0.0)


@pytest.mark.parametrize("num_calls", [0, 3])
def test_stop_ends_at_once_with_the_model_before_the_first_step(dataset, num_calls):
    calls = iter(range(num_calls))
    events = run_training(dataset, lambda: next(calls, None) is None, epochs=50)
    (finished,), (evaluated,) = events_of(Finished, events), events_of(Evaluated, events)
    assert finished.reason == "stopped"
    assert math.isnan(finished.test_perplexity)
    assert 0 <= finished.epochs < 1
    assert (finished.epochs == 0) == (not events_of(Step, events)) == (num_calls == 0)
    assert finished.valid_perplexity == evaluated.valid_perplexity
    assert weights_equal(weights_of(finished), weights_of(evaluated))


def test_a_training_without_score_test_never_reads_the_test_split(dataset):
    untouchable = replace(dataset, test=Untouchable())
    *_, finished = run_training(untouchable, epochs=1, score_test=False)
    assert (finished.reason, math.isnan(finished.test_perplexity)) == ("done", True)
    with pytest.raises(pytest.fail.Exception):  # the same training with the score
        run_training(untouchable, epochs=1)


STANDSTILL = {"optimizer": "sgd", "clip": 1e-30}
HARMFUL = {"optimizer": "adamw", "lr": 1.0}


@pytest.mark.parametrize("values", [STANDSTILL, HARMFUL], ids=["equal perplexities", "worse perplexities"])
def test_patience_counts_evaluations_without_improvement(dataset, values):
    values = {"schedule": "constant", "averaging": "none", "weight_decay": 0.0, **values}
    events = run_training(dataset, epochs=20, patience=3, eval_every_steps=4, variable_bptt=False, **values)
    assert [event.step for event in events_of(Evaluated, events)] == [0, 4, 8, 12]
    assert [event.is_best for event in events_of(Evaluated, events)] == [True, False, False, False]
    (finished,) = events_of(Finished, events)
    assert finished.reason == "patience"
    assert finished.epochs == pytest.approx(12 * 12 / (len(dataset.train) // 4 - 1))
    assert math.isfinite(finished.test_perplexity)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"the learning rate is too high; try --set lr=0\.01$"),
        ({"clip": 0.0, "precision": "bf16"}, r"gradients are not clipped; try --set clip=1 or --set lr=0\.01$"),
        ({"precision": "bf16"}, r"torch\.bfloat16 too coarse; try --set lr=0\.01 or --precision fp32$"),
    ],
    ids=str,
)
def test_the_remedy_for_a_loss_that_is_not_finite_fits_the_likely_cause(dataset, values, message):
    state = make_trainer(dataset, **values).state
    for loss in (math.nan, math.inf):
        with pytest.raises(TrainingError, match=f"the loss is {loss} at step 0, likely because .*{message}"):
            raise divergence_error(loss, state)


def test_weights_ruined_by_the_last_step_are_the_same_error(dataset):
    """The loss of the last window is finite, but the weights after its step are not and must not be saved."""
    values = {"optimizer": "sgd", "lr": 1000.0, "weight_decay": 100.0, "clip": 0.0, "schedule": "constant"}
    config = make_config(epochs=1, bptt=75, variable_bptt=False, shuffle_lines=False, **values)
    events = []
    with pytest.raises(TrainingError, match=r"--set lr="):
        events.extend(train(config, TrainingInput(dataset)))  # keeps the events before the error
    assert isinstance(events[-1], Step)
    assert math.isfinite(events[-1].train_perplexity)


WITH_BF16, WITHOUT_BF16 = {"avx512_bf16": True, "amx_bf16": False}, {"avx512_bf16": False, "avx512": True}


@pytest.mark.parametrize(
    ("capabilities", "hidden_size", "precision", "dtype"),
    [
        (WITH_BF16, 400, "auto", torch.bfloat16), (WITH_BF16, 399, "auto", torch.float32),
        (WITHOUT_BF16, 2000, "auto", torch.float32), (WITHOUT_BF16, 8, "bf16", torch.bfloat16),
        (None, 2000, "auto", torch.float32),  # PyTorch before 2.9
    ],
)  # fmt: skip
def test_auto_precision_is_bf16_for_large_layers_on_some_cpus(monkeypatch, capabilities, hidden_size, precision, dtype):
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    config = PRESETS["default"].with_values(hidden_size=hidden_size, precision=precision)
    assert choose_dtype(config, torch.device("cpu")) == dtype


def test_training_scores_only_max_eval_tokens_and_reports_skipped_5_grams(dataset, monkeypatch):
    monkeypatch.setattr("engine.models.ngram.MAX_KNESER_NEY_TOKENS", len(dataset.train) - 1)
    events = run_training(dataset, epochs=1, max_eval_tokens=30)
    (started,) = events_of(Started, events)
    assert math.isnan(started.kneser_ney_perplexity)
    (message,) = [event.message for event in events_of(Preparing, events) if "5-gram" in event.message]
    assert f"no 5-grams beyond {len(dataset.train) - 1:,} tokens" in message
    part = dataset.valid[:30]
    assert started.valid_tokens == 30 < len(dataset.valid)
    assert started.unigram_perplexity == evaluate(Unigram(dataset.train, dataset.tokenizer), part).perplexity
    for evaluated in events_of(Evaluated, events):
        assert evaluated.valid_perplexity == pytest.approx(evaluate(evaluated.model, part).perplexity, rel=1e-5)


pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {**TRANSFORMER, "variable_bptt": False, "lr": 0.01}


@pytest.fixture
def corpus(tmp_path):
    return write_csv(tmp_path / "corpus.csv", sentences(60))


def small_preset(**values):
    """Return a configuration of one short training, with the settings of a Transformer."""
    training = {"epochs": 1, "batch_size": 4, "bptt": 12, "threads": 1, "keep_epoch_checkpoints": False, "patience": 0}
    return Config("small").with_values(**(SETTINGS | training | {"embedding_dropout": 0.0} | values))


def test_perplexity_of_the_played_model_falls_far_below_that_of_a_unigram_model(dataset):
    events = run_training(dataset, **SETTINGS, epochs=8)
    perplexities = [event.valid_perplexity for event in events_of(Evaluated, events)]
    assert perplexities[-1] < 0.4 * perplexities[0]
    assert min(perplexities) < 10  # a unigram model has about 25
    played = events[-1].model
    assert isinstance(played, NumpyTransformer)
    assert evaluate(played, dataset.valid).perplexity == pytest.approx(events[-1].valid_perplexity, rel=1e-4)


def test_words_and_pieces_train_and_the_run_can_be_played(corpus, tmp_path):
    for tokenizer in ("words", "bpe"):
        config = small_preset(corpus=str(corpus), tokenizer=tokenizer, vocabulary_size=300)
        job = prepare_job(config, tokenizer, tmp_path / "runs")
        list(job.events(lambda: False))
        loaded = load_model(job.run.path)
        ids = loaded.model.tokenizer.encode("the miller").tolist()
        events = list(generate(TextInProgress(loaded.model, ids, SamplerSettings(max_tokens=20))))
        assert any(isinstance(event, TokenEvent) for event in events)


def test_another_corpus_fine_tunes_it_and_words_of_both_keep_their_vectors(corpus, tmp_path):
    runs_dir = tmp_path / "runs"
    first = prepare_job(small_preset(corpus=str(corpus)), "first", runs_dir)
    list(first.events(lambda: False))
    other = write_csv(tmp_path / "other.csv", [f"{line} besides" for line in sentences(60)])
    config = configure(
        PRESETS["finetune"],
        lambda preset: preset.with_values(init="first", corpus=str(other), batch_size=4, threads=1, epochs=1),
        runs_dir,
    )
    assert config.model.architecture == "transformer"
    assert config.training.bptt == config.model.context_size == 12
    job = prepare_job(config, "second", runs_dir)
    first_evaluation = next(event for event in job.events(lambda: False) if isinstance(event, Evaluated))
    old, new = load_model(first.run.path).decoder, first_evaluation.model.weights
    name = "model.embed_tokens.weight"
    old_id, new_id = old.tokenizer.token_to_id["the"], job.dataset.tokenizer.token_to_id["the"]
    np.testing.assert_array_equal(old.weights[name][old_id], new[name][new_id])
    besides = job.dataset.tokenizer.token_to_id["besides"]
    np.testing.assert_allclose(new[name][besides], old.weights[name].mean(axis=0), rtol=1e-5, atol=1e-7)


def test_a_preset_of_an_lstm_becomes_a_transformer_without_what_only_lstms_have():
    config = configure(PRESETS["default"], lambda preset: preset.with_values(architecture="transformer"))
    model = config.model
    assert (model.punctuation, model.subword_embeddings, model.weight_drop) == (False, False, 0.0)
    TransformerModel(model, 100, torch.Generator())  # refuses impossible settings
    assert model.num_heads == 5, "the largest number of heads, up to 6, that divides 400 units evenly"
    assert config.training.bptt == model.context_size  # otherwise, later positions would stay untrained


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 3}, "num_heads=3"),
        ({"bptt": 13}, "bptt=13 makes windows that a transformer with context_size=12 cannot read; use --set bptt=12"),
        ({"variable_bptt": True}, "use --set variable_bptt=false"),
        ({"bptt": 11}, "bptt=11 trains only the first positions of a transformer with context_size=12"),
    ],
)
def test_impossible_settings_are_refused_before_a_run_is_created(corpus, tmp_path, values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        prepare_job(small_preset(corpus=str(corpus), **values), "refused", tmp_path / "runs")
    assert not (tmp_path / "runs" / "refused").exists()


def test_weight_decay_leaves_the_scales_of_norms_alone(dataset):
    plain, decayed = (take_step(make_trainer(dataset, **SETTINGS, weight_decay=decay)) for decay in (0.0, 0.5))
    for name, value in plain.after.items():
        assert (value != decayed.after[name]).any() == ("norm" not in name), name
