"""Damaged files of a run are refused by name, or ignored if the model does not need them."""

import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from engine.data.tokenizers.loading import VOCABULARY_FILE
from engine.errors import ConfigError, CorpusError, RunError
from engine.runs.combine import load_run_dataset
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, MODEL_FILE, resolve_run
from engine.runs.loading import load_model, load_model_by_name
from engine.runs.locked_run import create_run, reopen_run
from engine.runs.summary import list_runs, summarize_run
from tests.support.runs import CONFIG, VOCABULARY, make_events, record_run


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights_are_refused(tmp_path, keep):
    path = record_run(tmp_path, "r", make_events())
    content = (path / MODEL_FILE).read_bytes()
    (path / MODEL_FILE).write_bytes(content[:keep])
    with pytest.raises(RunError, match=MODEL_FILE):
        load_model(path)


def test_weights_of_noise_or_with_an_impossible_header_are_refused(tmp_path):
    path = record_run(tmp_path, "r", make_events())
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,9999]}}'
    for content in (
        np.random.default_rng(0).bytes(5000),
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        len(header).to_bytes(8, "little") + header,
        b"just text",
    ):
        (path / MODEL_FILE).write_bytes(content)
        with pytest.raises(RunError, match=MODEL_FILE):
            load_model(path)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = record_run(tmp_path, "r", make_events())
    save_file({"transformer.wte.weight": np.zeros((5, 6), np.float32)}, path / MODEL_FILE)
    with pytest.raises(RunError, match="lacks"):
        load_model(path)


@pytest.mark.parametrize("dtype", ["BF16", "F64", "I32"])
def test_weights_of_another_dtype_are_refused(tmp_path, dtype):
    torch_dtype = {"BF16": torch.bfloat16, "F64": torch.float64, "I32": torch.int32}[dtype]
    path = record_run(tmp_path, "r", make_events())
    tensors = {name: torch.from_numpy(value).to(torch_dtype) for name, value in load_file(path / MODEL_FILE).items()}
    save_torch(tensors, path / MODEL_FILE)
    with pytest.raises(RunError, match=r"model\.safetensors"):
        load_model(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, -math.inf, 3e38])
@pytest.mark.parametrize("name", ["output.bias", "embedding.weight"])
def test_weights_that_are_not_finite_or_huge_are_refused(tmp_path, name, value):
    path = record_run(tmp_path, "r", make_events())
    tensors = load_file(path / MODEL_FILE)
    tensors[name].flat[2] = value
    save_file(tensors, path / MODEL_FILE)
    with pytest.raises(RunError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path / MODEL_FILE}: {name} holds values that are not finite or beyond 1e+15, such as {value:g}; "
        "the run is damaged"
    )


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    path = record_run(tmp_path, "r", make_events())
    (path / VOCABULARY_FILE).write_text(json.dumps([*VOCABULARY.tokens, "more"]))
    with pytest.raises(RunError, match=r"embedding\.weight"):
        load_model(path)


@pytest.mark.parametrize("name", [CONFIG_FILE, VOCABULARY_FILE, MODEL_FILE])
def test_a_missing_file_is_named(tmp_path, name):
    path = record_run(tmp_path, "r", make_events())
    (path / name).unlink()
    with pytest.raises(RunError, match=name):
        load_model(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"preset": 3}', "[" * 100_000, "\udcff", '{"preset": "x", "data": []}']
)
@pytest.mark.parametrize("name", [CONFIG_FILE, VOCABULARY_FILE])
def test_damaged_json_is_named(tmp_path, name, content):
    path = record_run(tmp_path, "r", make_events())
    (path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises((RunError, ConfigError), match=name):
        load_model(path)


@pytest.mark.parametrize("value", [-7, 1e308, math.nan, None, [], {}, "\x00junk", ""])
def test_a_damaged_setting_is_named_with_its_file_and_value(tmp_path, value):
    path = record_run(tmp_path, "r", make_events())
    config = json.loads((path / CONFIG_FILE).read_text())
    settings = [(section, name) for section in ("model", "training") for name in config[section]]
    for section, name in settings:
        if isinstance(config[section][name], float):
            damaged = config | {section: config[section] | {name: value}}
            (path / CONFIG_FILE).write_text(json.dumps(damaged))
            with pytest.raises(ConfigError) as caught:
                load_model(path)
            assert f"{path / CONFIG_FILE} is not a valid configuration" in str(caught.value)
            assert name in str(caught.value)
            assert not isinstance(value, (float, int)) or f"{name}={value}" in str(caught.value)


def test_a_damaged_training_text_is_named_with_the_configuration(tmp_path):
    path = record_run(tmp_path, "r", make_events())
    for change in ({"corpus": "/nowhere.csv"}, {"valid_corpus": "/nowhere.csv"}):
        (path / CONFIG_FILE).write_text(CONFIG.with_values(**change).to_json())
        with pytest.raises(CorpusError, match=re.escape(f"which {path / CONFIG_FILE} names, cannot be used: ")):
            load_run_dataset(load_model(path))


@pytest.mark.parametrize("words", [["<unk>", "<eos>"], ["a", "b", "c"], ["<unk>", "<eos>", "a", "a", "b"]])
def test_a_list_that_is_not_a_vocabulary_is_refused(tmp_path, words):
    path = record_run(tmp_path, "r", make_events())
    (path / VOCABULARY_FILE).write_text(json.dumps(words))
    with pytest.raises(RunError, match=VOCABULARY_FILE):
        load_model(path)


@pytest.mark.parametrize(
    "word", ["\x1b[31m", "two words", "<b>", "[red]", "", 3, None, pytest.param("a" * 5_000_000, id="endless")]
)
def test_entries_that_are_not_words_never_reach_a_terminal(tmp_path, word):
    path = record_run(tmp_path, "r", make_events())
    (path / VOCABULARY_FILE).write_text(json.dumps(["<unk>", "<eos>", "bilbo", "is", word]))
    with pytest.raises(RunError, match="not words"):
        load_model(path)


def test_a_run_without_metrics_is_loaded(tmp_path):
    path = record_run(tmp_path, "r", make_events())
    (path / METRICS_FILE).unlink()
    loaded = load_model(path)
    assert loaded.valid_perplexity is None
    assert loaded.kneser_ney_perplexity is None
    assert loaded.corpus_sha256 == ""


# Runs of another version


@pytest.fixture
def old_run(tmp_path):
    """A run directory whose configuration and metrics have the field names of an earlier version."""
    path = record_run(tmp_path, "old", make_events("stopped"))
    config = json.loads((path / CONFIG_FILE).read_text())
    model = config["model"]
    model["locked"] = model.pop("variational_dropout")
    model["pauses"] = model.pop("punctuation")
    (path / CONFIG_FILE).write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    "use",
    [
        load_model,
        summarize_run,
        reopen_run,
        lambda path: load_model_by_name("old@1", path.parent),
    ],
)
def test_a_configuration_with_old_field_names_is_refused_with_file_and_remedy(old_run, use):
    before = {path.name: path.read_bytes() for path in old_run.iterdir()}
    with pytest.raises(ConfigError) as error:
        use(old_run)
    message = str(error.value)
    assert message.isprintable()
    assert str(old_run / CONFIG_FILE) in message
    assert "unknown field 'model.locked'" in message
    assert message.endswith("train a new run")
    assert {path.name: path.read_bytes() for path in old_run.iterdir()} == before


def test_a_run_with_old_field_names_is_not_overwritten_and_not_the_latest(old_run, tmp_path):
    before = {path.name: path.read_bytes() for path in old_run.iterdir()}
    with pytest.raises(RunError, match="'old' exists"):
        create_run(CONFIG, VOCABULARY, "old", tmp_path)
    with pytest.raises(RunError, match="there is no run"):
        resolve_run("latest", tmp_path)
    assert list_runs(tmp_path) == []
    assert {path.name: path.read_bytes() for path in old_run.iterdir()} == before
