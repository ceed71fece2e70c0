"""A Transformer trained by the same trainer: settings, tokenizers, fine-tuning, and the model that is played."""

import numpy as np
import pytest
import torch

from engine.analysis.evaluation import evaluate
from engine.config import Config
from engine.errors import ConfigError
from engine.events import Evaluated
from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer import TransformerModel
from engine.presets import PRESETS
from engine.runs.loading import load_model
from engine.training.job import configure, prepare_job
from tests.support.files import sentences, write_csv
from tests.support.networks import TRANSFORMER
from tests.support.training import events_of, make_trainer, run_training, take_step

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
        ({"weight_drop": 0.3}, "a transformer cannot have weight_drop=0.3; use --set weight_drop=0.0"),
        ({"num_heads": 3}, "num_heads=3"),
        ({"bptt": 13}, "bptt=13 makes windows that a transformer with context_size=12 cannot read; use --set bptt=12"),
        ({"variable_bptt": True}, "use --set variable_bptt=false"),
        ({"bptt": 11}, "bptt=11 trains only the first positions of a transformer with context_size=12"),
    ],
)
def test_impossible_settings_are_refused_before_a_run_is_created(corpus, tmp_path, values, message):
    with pytest.raises(ConfigError) as error:
        prepare_job(small_preset(corpus=str(corpus), **values), "refused", tmp_path / "runs")
    assert message in str(error.value)
    assert not (tmp_path / "runs" / "refused").exists()


def test_weight_decay_leaves_the_scales_of_norms_alone(dataset):
    plain, decayed = (take_step(make_trainer(dataset, **SETTINGS, weight_decay=decay)) for decay in (0.0, 0.5))
    for name, value in plain.after.items():
        assert (value != decayed.after[name]).any() == ("norm" not in name), name
