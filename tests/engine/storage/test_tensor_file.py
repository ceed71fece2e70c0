"""The header of a safetensors file is validated before any tensor is loaded."""

import json
import math
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from engine.config import Config
from engine.errors import RunError
from engine.models.weights import weight_shapes
from engine.runs.loading import load_model
from engine.storage.tensor_file import UNSEALED, TensorFile, open_weights, serialize_weights
from tests.support.files import KNOWN_WORDS, write_run


def tensor_entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_file(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


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
def test_a_saved_file_is_read_and_a_truncated_one_refused_in_one_line(tmp_path_factory, shapes, metadata, tear):
    path = tmp_path_factory.getbasetemp() / "a.safetensors"
    tensors = {name: np.zeros(shape, kind) for name, (kind, shape) in shapes.items()}
    content = save(tensors, metadata=metadata or None)  # with {}, the library writes invalid JSON
    path.write_bytes(content)
    assert TensorFile(path).tensors == shapes
    assert TensorFile(path).metadata == metadata
    path.write_bytes(content[: tear % len(content)])
    with pytest.raises(RunError) as error:
        TensorFile(path)
    assert str(error.value).startswith(f"{path} is not a valid safetensors file: ")
    assert str(error.value).isprintable()


def test_a_model_larger_than_the_free_memory_is_refused(tmp_path):
    """Configuration and sparse file agree: 16 layers of 16,384 units, which would take 137 GB of memory."""
    run = write_run(tmp_path / "r")
    config = Config("tiny").with_values(embedding_size=16_384, hidden_size=16_384, num_layers=16)
    (run / "config.json").write_text(config.to_json())
    header, place = {}, 0
    for name, shape in weight_shapes(config.model, 2 + len(KNOWN_WORDS)).items():
        size = 4 * math.prod(shape)
        header[name] = tensor_entry(list(shape), place, place + size)
        place += size
    path = write_file(run / "model.safetensors", header)
    os.truncate(path, path.stat().st_size + place)
    with pytest.raises(RunError, match=r"needs 41\d\.\d GB of memory"):
        load_model(run)


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    content = serialize_weights({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"note": "b", **UNSEALED})
    path.write_bytes(content)
    assert np.array_equal(open_weights(path, {"a": (2, 3)}).read_weight("a"), [[0, 1, 2], [3, 4, 5]])
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(RunError):
            TensorFile(path).check_bytes()
    path.write_bytes(flipped)
    with pytest.raises(RunError, match=r"a\.safetensors has changed since it was written; the run is damaged"):
        open_weights(path, {"a": (2, 3)})


def test_a_file_that_is_deleted_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(serialize_weights({"a": np.zeros(2, np.float32)}))
    file = TensorFile(path)
    path.unlink()
    with pytest.raises(RunError, match=r"a\.safetensors cannot be read: .*No such file"):
        file.read_weight("a")
