"""A run found by its name or path and loaded, in whichever precision; a pickle never is."""

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from engine.errors import RunError, UnusableInput
from engine.runs import store
from engine.storage import files
from engine.storage.tensor_file import read_weights
from tests.support.runs import decoder, three_runs, training, write


def test_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = three_runs(tmp_path)
    assert store.resolve("alpha", tmp_path) == paths[1]
    assert store.resolve("latest", tmp_path) == paths[2]
    assert store.resolve(str(paths[0]), tmp_path / "elsewhere") == paths[0]
    monkeypatch.chdir(tmp_path)
    assert store.resolve("./beta", tmp_path / "elsewhere").resolve() == paths[0].resolve()
    for bundled in (None, "bundled"):
        assert store.resolve(bundled, tmp_path) == files.assets_folder() / "model"


def test_a_run_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    three_runs(tmp_path)
    with pytest.raises(RunError, match="did you mean alpha"):
        store.resolve("alhpa", tmp_path)
    with pytest.raises(RunError, match="'zzz' is neither") as caught:
        store.resolve("zzz", tmp_path)
    assert "did you mean" not in str(caught.value)


def test_latest_passes_over_a_run_that_is_damaged(tmp_path: Path) -> None:
    three_runs(tmp_path)
    newest = store.resolve("latest", tmp_path)
    (newest / store.CONFIG).write_text("{")
    assert newest.name == "gamma"
    assert store.resolve("latest", tmp_path).name == "alpha"


def test_latest_of_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in"):
        store.resolve("latest", tmp_path / "none")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=store.CONFIG):
        store.resolve(str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["x" * 3000, "~no-such-user-here/run", "a\0b", "", "..", "\x1b[31mred"], ids=range(6))
def test_odd_names_are_one_clear_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError) as caught:
        store.resolve(name, tmp_path / "runs")
    assert str(caught.value).isprintable()


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # what torch.save writes
        archive.writestr("archive/data.pkl", pickle.dumps([1]))


@pytest.mark.parametrize("make", [pickled, zipped])
def test_a_pickle_is_refused_as_a_run_and_as_a_model(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "model.pt")
    with pytest.raises(RunError, match="pickle"):
        store.resolve(str(tmp_path / "model.pt"), tmp_path)
    path = write(tmp_path, "r", training())
    make(path / store.MODEL)
    with pytest.raises(RunError, match="pickle"):
        store.load(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_model_whose_header_is_as_long_as_a_pickle_begins_is_loaded(tmp_path: Path, protocol: int) -> None:
    """The file begins with the header's length: 640 bytes, 896 and so on are the first two bytes of a pickle."""
    path, wanted = tmp_path / "model.safetensors", protocol * 256 + 0x80
    values = {"a": np.arange(3, dtype=np.float32)}
    length = int.from_bytes(save(values, metadata={"note": ""})[:8], "little")
    path.write_bytes(save(values, metadata={"note": "x" * (wanted - length)}))
    assert path.read_bytes()[:2] == bytes([0x80, protocol])
    assert read_weights(path, {"a": (3,)})["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_is_never_run(tmp_path: Path, protocol: int) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = write(tmp_path, "r", training())
    (path / store.MODEL).write_bytes(pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(RunError):
        store.load(path)
    assert not (tmp_path / "pwned").exists()


def test_a_run_is_played_in_8_bits_where_that_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("numkong")
    write(tmp_path, "r", training())
    exact, rounded = (store.load_named("r", tmp_path, precision) for precision in ("fp32", "int8"))
    assert (exact.decoder.int8, rounded.decoder.int8) == (False, True)
    assert rounded == replace(exact, decoder=rounded.decoder)
    assert (rounded.decoder.config, rounded.decoder.vocabulary) == (exact.decoder.config, exact.decoder.vocabulary)
    assert all(
        np.array_equal(rounded.decoder.weights[name], exact.decoder.weights[name]) for name in decoder(1).weights
    )


def test_a_precision_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput) as caught:
        store.load_named("r", tmp_path, "fp16")
    assert str(caught.value) == "--precision fp16 is unknown; a model is played in fp32 or int8"
