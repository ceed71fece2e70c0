"""Runs are found by name or path and loaded in each precision; pickles are never loaded."""

import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from engine.errors import InvalidInputError, RunError
from engine.runs import directory
from engine.runs.directory import CONFIG_FILE, MODEL_FILE, bundled_run_names, resolve_run
from engine.runs.loading import load_model, load_model_by_name
from engine.storage import files
from engine.storage.tensor_file import read_weights
from tests.support.files import write_run
from tests.support.runs import make_decoder, make_events, record_run, record_three_runs


def test_a_run_is_resolved_from_its_name_or_path(tmp_path, monkeypatch):
    paths = record_three_runs(tmp_path)
    assert resolve_run("alpha", tmp_path) == paths[1]
    assert resolve_run("latest", tmp_path) == paths[2]
    assert resolve_run(str(paths[0]), tmp_path / "elsewhere") == paths[0]
    monkeypatch.chdir(tmp_path)
    assert resolve_run("./beta", tmp_path / "elsewhere").resolve() == paths[0].resolve()
    for bundled in (None, "bundled"):
        assert resolve_run(bundled, tmp_path) == files.assets_dir() / "model"


def test_base_is_the_bundled_pre_trained_model(tmp_path, monkeypatch):
    assets, runs = tmp_path / "assets", tmp_path / "runs"
    monkeypatch.setattr(directory, "assets_dir", lambda: assets)
    write_run(runs / "base")  # the name is reserved, so this run is only found by its path
    with pytest.raises(RunError) as error:
        resolve_run("base", runs)
    missing = f"this installation has no model 'base': {assets / 'base'} is missing; use another run"
    assert str(error.value) == missing
    assert bundled_run_names() == []
    write_run(assets / "base")
    write_run(assets / "model")
    assert resolve_run("base", runs) == assets / "base"
    assert bundled_run_names() == ["bundled", "base"]
    assert [load_model(path).name for path in (assets / "base", assets / "model")] == ["base", "bundled"]


def test_an_unknown_run_suggests_the_nearest_name(tmp_path):
    record_three_runs(tmp_path)
    with pytest.raises(RunError, match="did you mean alpha"):
        resolve_run("alhpa", tmp_path)
    with pytest.raises(RunError, match="'zzz' is neither") as error:
        resolve_run("zzz", tmp_path)
    assert "did you mean" not in str(error.value)


def test_latest_skips_a_damaged_run(tmp_path):
    record_three_runs(tmp_path)
    newest = resolve_run("latest", tmp_path)
    (newest / CONFIG_FILE).write_text("{")
    assert newest.name == "gamma"
    assert resolve_run("latest", tmp_path).name == "alpha"


def test_latest_without_runs_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run in"):
        resolve_run("latest", tmp_path / "none")


def test_a_folder_without_configuration_is_refused(tmp_path):
    with pytest.raises(RunError, match=CONFIG_FILE):
        resolve_run(str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["x" * 3000, "~no-such-user-here/run", "a\0b", "", "..", "\x1b[31mred"], ids=range(6))
def test_the_error_for_an_odd_name_is_one_printable_line(tmp_path, name):
    with pytest.raises(RunError) as error:
        resolve_run(name, tmp_path / "runs")
    assert str(error.value).isprintable()


def write_pickle(path):
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


def write_torch_checkpoint(path):
    with zipfile.ZipFile(path, "w") as archive:  # the format of torch.save
        archive.writestr("archive/data.pkl", pickle.dumps([1]))


@pytest.mark.parametrize("write_file", [write_pickle, write_torch_checkpoint])
def test_a_pickle_is_refused_as_a_run_and_as_weights(tmp_path, write_file):
    write_file(tmp_path / "model.pt")
    with pytest.raises(RunError, match="pickle"):
        resolve_run(str(tmp_path / "model.pt"), tmp_path)
    path = record_run(tmp_path, "r", make_events())
    write_file(path / MODEL_FILE)
    with pytest.raises(RunError, match="pickle"):
        load_model(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_header_length_that_looks_like_a_pickle_is_loaded(tmp_path, protocol):
    """A safetensors file starts with the length of its header; 640 and 896 are also the start of a pickle."""
    path, target_length = tmp_path / "model.safetensors", protocol * 256 + 0x80
    values = {"a": np.arange(3, dtype=np.float32)}
    length = int.from_bytes(save(values, metadata={"note": ""})[:8], "little")
    path.write_bytes(save(values, metadata={"note": "x" * (target_length - length)}))
    assert path.read_bytes()[:2] == bytes([0x80, protocol])
    assert read_weights(path, {"a": (3,)})["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_is_never_executed(tmp_path, protocol):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = record_run(tmp_path, "r", make_events())
    (path / MODEL_FILE).write_bytes(pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(RunError):
        load_model(path)
    assert not (tmp_path / "pwned").exists()


def test_int8_quantizes_the_weights_on_request(tmp_path):
    pytest.importorskip("numkong")
    record_run(tmp_path, "r", make_events())
    exact, quantized = (load_model_by_name("r", tmp_path, precision) for precision in ("fp32", "int8"))
    assert (exact.decoder.int8, quantized.decoder.int8) == (False, True)
    assert quantized == replace(exact, decoder=quantized.decoder)
    assert (quantized.decoder.config, quantized.decoder.tokenizer) == (exact.decoder.config, exact.decoder.tokenizer)
    assert all(
        np.array_equal(quantized.decoder.weights[name], exact.decoder.weights[name]) for name in make_decoder(1).weights
    )


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(InvalidInputError) as error:
        load_model_by_name("r", tmp_path, "fp16")
    assert str(error.value) == "--precision fp16 is unknown for inference; choose one of auto, fp32, int8"
