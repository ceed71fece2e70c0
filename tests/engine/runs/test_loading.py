"""Loading of runs, their epochs and dialogue parts; hostile files are refused by name, pickles never loaded."""

import json
import math
import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from engine.analysis.evaluation import evaluate
from engine.data.speakers import CAST_FILE
from engine.data.tokenizers import CharacterTokenizer, WordTokenizer
from engine.errors import ConfigError, CorpusError, InvalidInputError, RunError
from engine.events import Checkpointed, Evaluated
from engine.models.dialogue import DialogueModel
from engine.presets import PRESETS
from engine.runs import directory
from engine.runs.combine import load_run_dataset
from engine.runs.loading import (
    list_epoch_checkpoints,
    load_model,
    load_model_by_name,
    read_config_and_tokenizer,
    read_initial_weights,
)
from engine.runs.locked_run import create_run, record_events, reopen_run
from engine.storage import files
from engine.storage.tensor_file import to_float32, to_int8
from engine.training.job import prepare_job
from tests.support.files import sentences, write_csv, write_run
from tests.support.random_dialogues import RUN_CAST, write_dialogue_run
from tests.support.runs import CONFIG, CONFIG_WITH_EPOCHS, VOCABULARY, make_decoder, make_events, record_run
from tests.tools.compact import write_compact_copy


@pytest.fixture
def path(tmp_path):
    return record_run(tmp_path, "r", make_events())


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps([1]))
    with pytest.raises(RunError, match=r"model\.pt is a file; a run has config\.json"):
        directory.resolve_run(str(tmp_path / "model.pt"), tmp_path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_is_never_executed(tmp_path, path, protocol):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    (path / directory.MODEL_FILE).write_bytes(pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(RunError, match="is not a valid safetensors file"):
        load_model(path)
    assert not (tmp_path / "pwned").exists()


def test_the_precision_of_products_can_be_chosen(tmp_path, path):
    pytest.importorskip("numkong")
    exact, int8 = (load_model_by_name("r", tmp_path, precision) for precision in ("auto", "int8"))
    assert (exact.decoder.int8, int8.decoder.int8) == (False, True)
    assert int8 == replace(exact, decoder=int8.decoder)
    assert all(np.array_equal(int8.decoder.weights[name], value) for name, value in exact.decoder.weights.items())
    write_compact_copy(path, tmp_path / "small")
    auto, fp32, int8 = (load_model_by_name("small", tmp_path, precision) for precision in ("auto", "fp32", "int8"))
    assert fp32 == replace(auto, decoder=fp32.decoder)
    models = [each.decoder for each in (auto, fp32, int8)]
    assert [model.has_int8_weights for model in models] == [True, False, True]
    log_probs = [model.advance(model.start(), 3)[0] for model in models]
    assert np.array_equal(log_probs[0], log_probs[2])
    assert not np.array_equal(log_probs[0], log_probs[1])
    assert log_probs[1] == pytest.approx(log_probs[0], abs=0.2)


HEADER = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,9999]}}'


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"", lambda content: content[:100], lambda content: content[:-1],
        lambda content: np.random.default_rng(0).bytes(5000), lambda content: (2**62).to_bytes(8, "little") + b"{}",
        lambda content: len(HEADER).to_bytes(8, "little") + HEADER, lambda content: b"just text",
    ],
)  # fmt: skip
def test_damaged_weights_are_refused(path, change):
    (path / directory.MODEL_FILE).write_bytes(change((path / directory.MODEL_FILE).read_bytes()))
    with pytest.raises(RunError, match=directory.MODEL_FILE):
        load_model(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32, None])
def test_weights_of_another_type_or_architecture_are_refused(path, dtype):
    if dtype is None:
        save_file({"transformer.wte.weight": np.zeros((5, 6), np.float32)}, path / directory.MODEL_FILE)
    else:
        weights = load_file(path / directory.MODEL_FILE).items()
        tensors = {name: torch.from_numpy(value).to(dtype) for name, value in weights}
        save_torch(tensors, path / directory.MODEL_FILE)
    with pytest.raises(
        RunError,
        match=r"model\.safetensors: .*not match" if dtype is None else r"model\.safetensors: .* is ",
    ):
        load_model(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, -math.inf, 3e38])
def test_weights_that_are_not_finite_or_huge_are_refused(path, value):
    tensors = load_file(path / directory.MODEL_FILE)
    tensors["output.bias"].flat[2] = value
    save_file(tensors, path / directory.MODEL_FILE)
    with pytest.raises(RunError) as caught:
        load_model(path)
    problem = f"output.bias holds values that are not finite or beyond 1e+15, such as {value:g}; the run is damaged"
    assert str(caught.value) == f"{path / directory.MODEL_FILE}: {problem}"


@pytest.mark.parametrize("name", [directory.CONFIG_FILE, "vocabulary.json", directory.MODEL_FILE])
def test_a_missing_file_is_named(path, name):
    (path / name).unlink()
    with pytest.raises(RunError, match=rf"{name} is missing; the run (is not complete|has not saved a model yet)"):
        load_model(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"preset": 3}', "[" * 100_000, "\udcff"], ids=range(7))
@pytest.mark.parametrize("name", [directory.CONFIG_FILE, "vocabulary.json"])
def test_damaged_json_is_named(path, name, content):
    (path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    message = "cannot be read: not UTF-8; the run is damaged" if content == "\udcff" else ""
    with pytest.raises((RunError, ConfigError), match=f"{name}.*{message}"):
        load_model(path)


@pytest.mark.parametrize("name", [directory.CONFIG_FILE, "vocabulary.json"])
def test_a_file_that_cannot_be_read_is_not_called_damaged(path, name):
    (path / name).unlink()
    (path / name).mkdir()
    with pytest.raises(RunError, match=f"{name} cannot be read: it is a folder$"):
        load_model(path)


@pytest.mark.parametrize("value", [-7, 1e308, math.nan, None, [], "\x00junk"], ids=range(6))
def test_a_damaged_setting_is_named_with_its_file_and_value(path, value):
    config = json.loads((path / directory.CONFIG_FILE).read_text())
    for section, name in (("model", "embedding_dropout"), ("training", "lr")):
        damaged = config | {section: config[section] | {name: value}}
        (path / directory.CONFIG_FILE).write_text(json.dumps(damaged))
        with pytest.raises(ConfigError) as caught:
            load_model(path)
        assert f"{path / directory.CONFIG_FILE} is not a valid configuration" in str(caught.value)
        assert name in str(caught.value)
        assert not isinstance(value, (float, int)) or f"{name}={value}" in str(caught.value)


def test_a_damaged_training_text_is_named_with_the_configuration(path):
    for change in ({"corpus": "/nowhere.csv"}, {"valid_corpus": "/nowhere.csv"}):
        (path / directory.CONFIG_FILE).write_text(CONFIG.with_values(**change).to_json())
        with pytest.raises(CorpusError, match=r"which .*/r/config\.json names, cannot be used: "):
            load_run_dataset(load_model(path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*VOCABULARY.tokens, "more"], r"embedding\.weight"),
        *((["<unk>", "<eos>", "a", "b", word], "not a vocabulary") for word in ("\x1b[31m", "<b>", "[red]", "")),
        (["<unk>", "<eos>", "a", "b", "a" * 5_000_000], r"not a (list of words|vocabulary)"),
    ],
    ids=range(6),
)
def test_a_list_that_is_not_the_vocabulary_never_reaches_a_terminal(path, words, message):
    (path / "vocabulary.json").write_text(json.dumps(words))
    with pytest.raises(RunError, match=message):
        load_model(path)


def test_initial_weights_are_read_back_and_missing_ones_named(tmp_path):
    weights, config = make_decoder(3).weights, CONFIG.with_values(init="base")
    path = create_run(config, VOCABULARY, "tuned", tmp_path, weights).path
    read = read_initial_weights(path, config, VOCABULARY)
    assert all(np.array_equal(read[name], value) for name, value in weights.items())
    assert read_initial_weights(path, CONFIG, VOCABULARY) is None
    (path / directory.INITIAL_FILE).unlink()
    with pytest.raises(RunError, match=r"initial\.safetensors is missing"):
        read_initial_weights(path, config, VOCABULARY)


WHITESPACE = WordTokenizer(VOCABULARY.tokens, "whitespace")


@pytest.mark.parametrize("tokenizer", [VOCABULARY, WHITESPACE, CharacterTokenizer("éû")])
def test_a_tokenizer_is_read_from_its_file(tmp_path, tokenizer):
    config = CONFIG.with_values(mode="stream", tokenizer=tokenizer.name)
    path = create_run(config, tokenizer, "r", tmp_path).path
    assert read_config_and_tokenizer(path) == (config, tokenizer)


def test_a_run_without_metrics_is_loaded(path):
    assert load_model(path).bits_per_character is None  # the metrics do not count the characters
    (path / directory.METRICS_FILE).unlink()
    loaded = load_model(path)
    assert (loaded.valid_perplexity, loaded.started, loaded.bits_per_character) == (None, None, None)


def test_a_configuration_of_another_version_is_refused_with_file_and_remedy_and_not_overwritten(tmp_path):
    path = write_run(tmp_path / "old")
    config = json.loads((path / directory.CONFIG_FILE).read_text())
    config["model"]["locked"] = config["model"].pop("variational_dropout")
    (path / directory.CONFIG_FILE).write_text(json.dumps(config))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    uses = (load_model, directory.summarize_run, reopen_run, lambda path: load_model_by_name("old@1", path.parent))
    for use in uses:
        with pytest.raises(ConfigError) as error:
            use(path)
        message = str(error.value)
        assert message.startswith("run 'old' is damaged, or was written by another version of lotr-tui (")
        assert str(path / directory.CONFIG_FILE) in message
        assert message.endswith("unknown field 'model.locked'); train a new run")
    with pytest.raises(RunError, match="'old' exists"):
        create_run(CONFIG, VOCABULARY, "old", tmp_path)
    with pytest.raises(RunError, match="there is no run"):
        directory.resolve_run("latest", tmp_path)
    assert directory.list_runs(tmp_path) == []
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def record_epochs(runs_dir, epochs, config=CONFIG_WITH_EPOCHS, name="r"):
    """Record a run with evaluations at `epochs`, the first one the best. Return the run directory and the events."""
    run, first = create_run(config, VOCABULARY, name, runs_dir), epochs[0]
    models = ((epoch, make_decoder(int(100 * epoch))) for epoch in epochs)
    events = (Evaluated(int(10 * at), at, 100 - at, at == first, at, model) for at, model in models)
    return run.path, list(record_events(run, events))


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
    assert {file.name for file in (path / directory.EPOCHS_DIR).iterdir()} == {f"{epoch}.safetensors" for epoch in kept}
    assert list_epoch_checkpoints(path) == {epoch: 100.0 - epoch for epoch in kept}
    for epoch in kept:
        assert same_weights(load_model(path, epoch).decoder, make_decoder(100 * epoch))
    assert same_weights(load_model(path).decoder, make_decoder(int(100 * epochs[0])), to_float32)


def test_without_the_setting_only_the_best_weights_are_kept(tmp_path):
    path, events = record_epochs(tmp_path, [0.0, 1.0, 2.0], CONFIG)
    assert not (path / directory.EPOCHS_DIR).exists()
    assert [event.file for event in events if isinstance(event, Checkpointed)] == [directory.MODEL_FILE]
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
    values = json.loads((old / directory.CONFIG_FILE).read_text())
    del values["training"]["keep_epoch_checkpoints"]  # a configuration without the setting
    (old / directory.CONFIG_FILE).write_text(json.dumps(values))
    assert load_model_by_name("old", tmp_path).valid_perplexity == 100.0
    for name in ("r@1", "old@1", "bundled@1"):
        with pytest.raises(RunError) as error:
            load_model_by_name(name, tmp_path)
        run, epoch = name.split("@")
        assert str(error.value) == f"run {run!r} did not keep epoch {epoch}; it kept only the best model"


@pytest.mark.parametrize("name", ["r@", "r@four", "r@-1", "r@1.0", "r@1@2", "@1", "r@ 1", "r@٣", "r@" + "9" * 5000])
def test_the_error_for_an_invalid_epoch_is_one_printable_line(tmp_path, name):
    record_epochs(tmp_path, [0.0, 1.0])
    with pytest.raises(RunError, match="is neither in"):
        load_model_by_name(name, tmp_path)


def test_a_damaged_epoch_is_refused_by_name_and_the_others_are_loaded(tmp_path):
    path, _ = record_epochs(tmp_path, [0.0, 1.0, 4.0])
    file = path / directory.EPOCHS_DIR / "4.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"epochs/4\.safetensors"):
        load_model(path, 4)
    load_model(path)
    load_model(path, 1)


@pytest.fixture
def dialogue_run(tmp_path):
    return write_dialogue_run(tmp_path / "run")


def test_a_played_model_has_all_parts(dialogue_run):
    loaded = load_model(dialogue_run)
    model = loaded.model
    assert isinstance(model, DialogueModel)
    assert model.cast == RUN_CAST
    assert model.model is loaded.decoder
    assert model.turn_model is not None
    assert model.text_model is not None


def changed(**values):
    """Return a function that replaces values in the JSON of a file."""
    return lambda content: json.dumps(json.loads(content) | values).encode()


DAMAGE = {
    (CAST_FILE, "empty"): lambda content: b"",
    (CAST_FILE, "another version"): changed(version=7),
    (CAST_FILE, "a name twice"): changed(cast=["SAM", "SAM", "A", "B", "SOMEONE"]),
    (CAST_FILE, "a control character"): changed(cast=["SAM\x1b[31m", "B", "C", "D", "SOMEONE"]),
    (CAST_FILE, "other speakers than the turn model's"): changed(cast=["SAM", "SOMEONE"]),
    (directory.DIALOGUE_FILE, "deep"): lambda content: b"[" * 100_000,
    (directory.DIALOGUE_FILE, "an unknown field"): changed(colour="red"),
    (directory.DIALOGUE_FILE, "a turn model of other speakers"): changed(cast=["A", "B", "C", "D", "E"]),
    (directory.DIALOGUE_FILE, "a negative count"): changed(lines=[3, 4, 5, -1, 2]),
    (directory.DIALOGUE_FILE, "a speaker below the cast"): changed(successions=[[-9, 0, 1]]),
}


@pytest.mark.parametrize(("file", "damage"), DAMAGE, ids=[" ".join(key) for key in DAMAGE])
def test_damaged_files_of_a_dialogue_run_are_refused_in_one_line(dialogue_run, file, damage):
    content = (dialogue_run / file).read_bytes()
    (dialogue_run / file).write_bytes(DAMAGE[file, damage](content))
    with pytest.raises(InvalidInputError) as caught:
        _ = load_model(dialogue_run).model
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"words": 1}', b"\x00" * 50, b'"prior": 99'])
def test_a_damaged_model_of_who_speaks_is_refused_when_it_is_used(dialogue_run, damage):
    if damage.startswith(b'"prior"'):  # a power beyond all that are fitted
        damage = re.sub(rb'"prior":[\d.]+', damage, (dialogue_run / directory.WHO_FILE).read_bytes())
    (dialogue_run / directory.WHO_FILE).write_bytes(damage)
    model = load_model(dialogue_run).model
    with pytest.raises(RunError, match=r"who\.json is damaged: .*; train a new run$"):
        _ = model.text_model


@pytest.mark.parametrize("file", [CAST_FILE, directory.DIALOGUE_FILE])
def test_a_missing_file_of_a_dialogue_run_is_named(dialogue_run, file):
    (dialogue_run / file).unlink()
    with pytest.raises(RunError, match=rf"{file} is missing; the run is not complete$"):
        load_model(dialogue_run)
