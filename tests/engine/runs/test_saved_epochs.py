"""Weights that a run keeps after selected epochs: selection, names, loading and damage."""

import json

import pytest

from engine.analysis.evaluation import evaluate
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated
from engine.presets import PRESETS
from engine.runs.directory import CONFIG_FILE, EPOCHS_DIR, MODEL_FILE
from engine.runs.loading import list_epoch_checkpoints, load_model, load_model_by_name
from engine.runs.locked_run import create_run, record_events
from engine.storage import files
from engine.storage.tensor_file import to_float32, to_int8
from engine.training.job import prepare_job
from tests.support.files import sentences, write_csv, write_run
from tests.support.runs import CONFIG, CONFIG_WITH_EPOCHS, VOCABULARY, make_decoder


def evaluated(epoch, best=False):
    """Return an evaluation with a model and a perplexity that no other epoch has."""
    return Evaluated(int(10 * epoch), epoch, 100 - epoch, best, epoch, make_decoder(int(100 * epoch)))


def record_epochs(runs_dir, epochs, config=CONFIG_WITH_EPOCHS, name="r"):
    """Record a run with evaluations at `epochs`, the first one the best. Return the run directory and the events."""
    run = create_run(config, VOCABULARY, name, runs_dir)
    events = [evaluated(epoch, best=i == 0) for i, epoch in enumerate(epochs)]
    return run.path, list(record_events(run, iter(events)))


def same_weights(model, other, convert=to_int8):
    expected = {name: to_float32(convert(weight)) for name, weight in other.weights.items()}
    return model.weights.keys() == expected.keys() and all(
        model.weights[name].tobytes() == expected[name].tobytes() for name in expected
    )


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        ([float(epoch) for epoch in range(10)], [1, 4]),
        ([0.0, 0.5, 1.0, 1.5, 2.25, 4.0001, 7.9999, 8.0], [1]),
        ([0.0, 2.0, 4.0, 6.0, 8.0], [4]),
        ([0.0, 3.0, 6.0], []),
    ],
)
def test_weights_are_kept_in_8_bits_after_an_early_epoch_and_a_later_one(tmp_path, epochs, kept):
    path, _ = record_epochs(tmp_path, epochs)
    assert {file.name for file in (path / EPOCHS_DIR).iterdir()} == {f"{epoch}.safetensors" for epoch in kept}
    assert list_epoch_checkpoints(path) == {epoch: 100.0 - epoch for epoch in kept}
    for epoch in kept:
        assert same_weights(load_model(path, epoch).decoder, make_decoder(100 * epoch))
    assert same_weights(load_model(path).decoder, make_decoder(int(100 * epochs[0])), to_float32)


def test_without_the_setting_only_the_best_weights_are_kept(tmp_path):
    path, events = record_epochs(tmp_path, [0.0, 1.0, 2.0], CONFIG)
    assert not (path / EPOCHS_DIR).exists()
    assert [event.file for event in events if isinstance(event, Checkpointed)] == [MODEL_FILE]
    assert list_epoch_checkpoints(path) == {}


def test_a_training_keeps_the_models_of_its_evaluations(tmp_path, one_thread):
    corpus = write_csv(tmp_path / "small.csv", sentences(120))
    config = PRESETS["tiny"].with_values(corpus=str(corpus), embedding_size=8, epochs=5, threads=1)
    job = prepare_job(config.with_values(eval_every_epochs=2), "mine", tmp_path / "runs")
    evaluations = [event for event in job.events(lambda: False) if isinstance(event, Evaluated)]
    kept = list_epoch_checkpoints(job.run.path)
    assert list(kept) == [4]
    for epoch, perplexity in kept.items():
        event = next(event for event in evaluations if event.epoch == epoch)
        loaded = load_model(job.run.path, epoch)
        assert same_weights(loaded.decoder, event.model)
        assert loaded.valid_perplexity == perplexity == event.valid_perplexity
        assert loaded.bits_per_character > 0
        measured = evaluate(loaded.decoder, job.dataset.valid).perplexity
        assert measured == pytest.approx(event.valid_perplexity, rel=1e-2)


def test_run_at_epoch_loads_the_weights_of_the_epoch(tmp_path, monkeypatch):
    path, _ = record_epochs(tmp_path, [0.0, 1.0, 2.0, 3.0, 4.0])
    monkeypatch.chdir(tmp_path)
    for name in ("r@4", "latest@4", f"{path}@4", "./r@4", "r@04"):
        loaded = load_model_by_name(name, tmp_path)
        assert (loaded.name, loaded.path.resolve(), loaded.epoch) == ("r@4", path, 4)
        assert loaded.valid_perplexity == 96.0
        assert same_weights(loaded.decoder, make_decoder(400))
    write_run(tmp_path / "odd@2")
    assert load_model_by_name("odd@2", tmp_path).epoch is None  # the name of a folder
    best = load_model_by_name("r", tmp_path)
    assert (best.name, best.epoch, best.valid_perplexity) == ("r", None, 100.0)
    assert same_weights(best.decoder, make_decoder(0), to_float32)
    assert load_model_by_name("lstm").path == files.assets_dir() / "lstm"


def test_an_epoch_that_was_not_kept_is_an_error_that_names_the_kept_ones(tmp_path):
    record_epochs(tmp_path, [0.0, 1.0, 2.0, 3.0, 4.0])
    for epoch in (0, 2, 8, 999_999_999):
        with pytest.raises(RunError) as error:
            load_model_by_name(f"r@{epoch}", tmp_path)
        assert str(error.value) == f"run 'r' did not keep epoch {epoch}; it kept 1, 4, and the best model"


def test_a_run_without_kept_epochs_says_so(tmp_path):
    record_epochs(tmp_path, [0.0, 3.0])
    old, _ = record_epochs(tmp_path, [0.0, 1.0], CONFIG, "old")
    values = json.loads((old / CONFIG_FILE).read_text())
    del values["training"]["keep_epoch_checkpoints"]  # a configuration without the setting
    (old / CONFIG_FILE).write_text(json.dumps(values))
    assert load_model_by_name("old", tmp_path).valid_perplexity == 100.0
    for name in ("r@1", "old@1", "bundled@1"):
        with pytest.raises(RunError) as error:
            load_model_by_name(name, tmp_path)
        run, epoch = name.split("@")
        assert str(error.value) == f"run {run!r} did not keep epoch {epoch}; it kept only the best model"


@pytest.mark.parametrize("name", ["r@", "r@four", "r@-1", "r@1.0", "r@1@2", "@1", "r@ 1", "r@٣", "r@" + "9" * 5000])
def test_the_error_for_an_invalid_epoch_is_one_printable_line(tmp_path, name):
    record_epochs(tmp_path, [0.0, 1.0])
    with pytest.raises(RunError, match="is neither in") as error:
        load_model_by_name(name, tmp_path)
    assert str(error.value).isprintable()


def test_a_damaged_epoch_is_refused_by_name_and_the_others_are_loaded(tmp_path):
    path, _ = record_epochs(tmp_path, [0.0, 1.0, 4.0])
    file = path / EPOCHS_DIR / "4.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"epochs/4\.safetensors"):
        load_model(path, 4)
    load_model(path)
    load_model(path, 1)
