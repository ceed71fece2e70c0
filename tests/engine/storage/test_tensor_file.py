"""The header of a safetensors file is read by itself, and nothing is loaded that is not of the configuration."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from engine.config import Config
from engine.errors import RunError
from engine.models.numpy_lstm import weight_shapes
from engine.runs import store
from engine.storage import tensor_file
from engine.storage.tensor_file import kind_of_file, read_header
from tests.conftest import KNOWN_WORDS, write_run


def tensor(shape: list[int], begin: int, end: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


ONE = json.dumps(tensor([1], 0, 4)).encode()
HEADERS: dict[str, tuple[object, bytes, int | None, str]] = {
    "longer than the file": ({}, b"", 2**63, "shorter than its header"),
    "no JSON": (b"{nothing", b"", None, "no JSON"),
    "deep": (b'{"a":' * 100_000, b"", None, "more than 10,000 tensors"),
    "deep in lists": (b"[" * 100_000, b"", None, "no JSON"),
    "one name twice": (b'{"a":%s,"a":%s}' % (ONE, ONE), b"\0" * 4, None, "a name twice"),
    "a list": ([], b"", None, "its header is none"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", None, "its header is none"),
    "a shape that is none": ({"a": tensor([-1, -4], 0, 16)}, b"\0" * 16, None, "is damaged"),
    "a shape of other numbers": ({"a": {**tensor([4], 0, 16), "shape": [4.0]}}, b"\0" * 16, None, "is damaged"),
    "another size": ({"a": tensor([5], 0, 16)}, b"\0" * 16, None, "is damaged"),
    "a number for a tensor": ({"a": 4}, b"\0" * 4, None, "what it says of a is damaged"),
    "more of a tensor": ({"a": {**tensor([1], 0, 4), "b": 1}}, b"\0" * 4, None, "what it says of a is damaged"),
    "an unknown kind": ({"a": tensor([4], 0, 16, "X\x1b")}, b"\0" * 16, None, "unknown kind, X"),
    "terabytes": ({"a": tensor([2**40], 0, 2**42)}, b"\0" * 16, None, "bytes, and 16 are there"),
    "overlapping": ({"a": tensor([4], 0, 16), "b": tensor([4], 0, 16)}, b"\0" * 16, None, "overlap"),
    "a gap": ({"a": tensor([4], 4, 20)}, b"\0" * 20, None, "gaps"),
    "more than it says": ({"a": tensor([4], 0, 16)}, b"\0" * 20, None, "16 bytes, and 20 are there"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_header_is_refused(tmp_path: Path, kind: str) -> None:
    header, data, length, said = HEADERS[kind]
    with pytest.raises(RunError, match=said) as raised:
        read_header(write(tmp_path / "a.safetensors", header, data, length))
    assert str(raised.value).isprintable()


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", b"{", length=3_000_000_000)
    os.truncate(path, 4_000_000_000)
    with pytest.raises(RunError, match="its header has more than 8,000,000 bytes"):
        read_header(path)


def test_the_header_says_what_the_library_reads(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r") / "model.safetensors"
    header, tensors = read_header(path), load_file(path)
    assert header.shapes == {name: (str(array.dtype), array.shape) for name, array in tensors.items()}
    assert header.bytes == sum(array.nbytes for array in tensors.values())
    path.write_bytes(save(tensors, metadata={"a": "b"}))
    assert read_header(path).metadata == {"a": "b"}


SHAPES = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from(["float64", "float32", "float16", "int64", "int32", "uint8"]),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
    ),
    max_size=4,
)


@settings(max_examples=40)
@given(SHAPES, st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=2), st.integers(0, 10**6))
def test_whatever_was_saved_is_read_and_what_is_torn_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: dict[str, tuple[str, tuple[int, ...]]],
    metadata: dict[str, str],
    tear: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.safetensors"
    tensors = {name: np.zeros(shape, kind) for name, (kind, shape) in shapes.items()}
    content = save(tensors, metadata=metadata or None)  # of nothing and an empty one it makes what is no JSON
    path.write_bytes(content)
    assert read_header(path).shapes == shapes
    assert read_header(path).metadata == metadata
    path.write_bytes(content[: tear % len(content)])
    with pytest.raises(RunError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path} is no safetensors file or a damaged one: ")
    assert str(caught.value).isprintable()


def test_what_is_not_of_the_configuration_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_nothing(path: Path) -> None:
        pytest.fail(f"{path} is loaded")

    monkeypatch.setattr("safetensors.numpy.load_file", load_nothing)
    path = write_run(tmp_path / "r") / "model.safetensors"
    write(path, {"embedding.weight": tensor([20_000, 100_000], 0, 8_000_000_000)})
    os.truncate(path, path.stat().st_size + 8_000_000_000)
    with pytest.raises(RunError, match="the model lacks layers"):
        store.load(tmp_path / "r")


def test_a_model_too_large_for_the_machine_is_refused(tmp_path: Path) -> None:
    """File and configuration agree: 16 layers of 16,384. It takes no room on the disk, and 137 GB in memory."""
    run = write_run(tmp_path / "r")
    config = Config("tiny").with_values(embedding_size=16_384, hidden_size=16_384, layers=16)
    (run / "config.json").write_text(config.to_json())
    header, place = {}, 0
    for name, shape in weight_shapes(config.model, 2 + len(KNOWN_WORDS)).items():
        size = 4
        for number in shape:
            size *= number
        header[name] = tensor(list(shape), place, place + size)
        place += size
    path = write(run / "model.safetensors", header)
    os.truncate(path, path.stat().st_size + place)
    with pytest.raises(RunError, match=r"needs 41\d\.\d GB of memory"):
        store.load(run)


def test_a_file_that_goes_or_changes_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "r")
    path = run / "model.safetensors"
    with monkeypatch.context() as changing:
        changing.setattr(tensor_file, "check_room", lambda path, size: os.truncate(path, 100))
        with pytest.raises(RunError, match=r"model\.safetensors is no safetensors file or a damaged one"):
            store.load(run)
    monkeypatch.setattr(tensor_file, "kind_of_file", lambda path: path.unlink() or "a file")
    with pytest.raises(RunError, match=rf"{path} is gone"):
        store.load(run)


def test_a_file_offered_as_weights_is_spoken_of_as_what_it_is(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r") / "model.safetensors"
    assert kind_of_file(path) == "a file"
    assert kind_of_file(tmp_path) == "a file that cannot be read"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    assert "pickle" in kind_of_file(path)
    path.write_bytes(b"\x80\x02" + b"\0" * 6 + b"{}")  # 640 bytes of header
    assert kind_of_file(path) == "a file"


def test_a_model_that_fits_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "ALWAYS_ROOM", 0)
    store.load(write_run(tmp_path / "r"))
