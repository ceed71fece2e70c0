"""Loading of runs; damaged and hostile files are refused by name, and pickles are never loaded."""

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

from engine.data.tokenizers import CharacterTokenizer
from engine.errors import ConfigError, CorpusError, RunError
from engine.runs import directory
from engine.runs.combine import load_run_dataset
from engine.runs.loading import load_model, load_model_by_name, read_config_and_tokenizer, read_initial_weights
from engine.runs.locked_run import create_run, reopen_run
from tests.support.files import write_run
from tests.support.runs import CONFIG, VOCABULARY, make_decoder, make_events, record_run
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
        tensors = {
            name: torch.from_numpy(value).to(dtype) for name, value in load_file(path / directory.MODEL_FILE).items()
        }
        save_torch(tensors, path / directory.MODEL_FILE)
    with pytest.raises(
        RunError,
        match=r"model\.safetensors: .*not match" if dtype is None else r"model\.safetensors: .* is ",
    ):
        load_model(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "value"), [("output.bias", math.nan), ("embedding.weight", -math.inf), ("output.bias", 3e38)]
)
def test_weights_that_are_not_finite_or_huge_are_refused(path, name, value):
    tensors = load_file(path / directory.MODEL_FILE)
    tensors[name].flat[2] = value
    save_file(tensors, path / directory.MODEL_FILE)
    with pytest.raises(RunError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path / directory.MODEL_FILE}: {name} holds values that are not finite or beyond 1e+15, such as {value:g}; "
        "the run is damaged"
    )


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
        with pytest.raises(
            CorpusError, match=re.escape(f"which {path / directory.CONFIG_FILE} names, cannot be used: ")
        ):
            load_run_dataset(load_model(path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["<unk>", "<eos>"], "vocabulary.json"),
        (["a", "b", "c"], "vocabulary.json"),
        (["<unk>", "<eos>", "a", "a", "b"], "vocabulary.json"),
        ([*VOCABULARY.tokens, "more"], r"embedding\.weight"),
        *(
            (["<unk>", "<eos>", "a", "b", word], "not a vocabulary")
            for word in ("\x1b[31m", "two words", "<b>", "[red]", "")
        ),
        *(
            (["<unk>", "<eos>", "a", "b", word], r"not a (list of words|vocabulary)")
            for word in (3, None, "a" * 5_000_000)
        ),
    ],
    ids=range(12),
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


@pytest.mark.parametrize("tokenizer", [VOCABULARY, CharacterTokenizer("éû")])
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
        assert message.isprintable()
        assert message.startswith("run 'old' is damaged, or was written by another version of lotr-tui (")
        assert str(path / directory.CONFIG_FILE) in message
        assert message.endswith("unknown field 'model.locked'); train a new run")
    with pytest.raises(RunError, match="'old' exists"):
        create_run(CONFIG, VOCABULARY, "old", tmp_path)
    with pytest.raises(RunError, match="there is no run"):
        directory.resolve_run("latest", tmp_path)
    assert directory.list_runs(tmp_path) == []
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
