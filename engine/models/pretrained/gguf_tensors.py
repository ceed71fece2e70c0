"""GGUF files of llama.cpp: their metadata, read with limits, and their tensors, dequantized one at a time."""

import math
import mmap
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import MAX_VOCABULARY_SIZE
from engine.errors import InvalidInputError, printable
from engine.storage.files import open_regular_file
from engine.storage.tensor_file import MAX_TENSORS

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
MAX_HEADER_BYTES = 64_000_000
"""Maximum size of everything before the tensors; a vocabulary of 256,000 tokens with its merges needs 12 million."""
MAX_KEYS, MAX_TEXT_BYTES = 10_000, 4_000_000
DEFAULT_ALIGNMENT = 32
_TEXT, _ARRAY = 8, 9
_DTYPES = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
"""Types of the numbers in metadata, by their codes."""


class _TensorPlace(NamedTuple):
    """Place of a tensor in a file."""

    shape: tuple[int, ...]
    row_bytes: int
    """Bytes of each row, or of the whole tensor if it is a vector."""
    start: int
    dequantize: Callable[[npt.NDArray[np.uint8]], Float32Array]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


class GGUFFile:
    """A mapped GGUF file whose metadata and tensor list have been checked."""

    def __init__(self, path: Path, name: str) -> None:
        """Read everything but the tensors. `name` is the model's name in errors.

        Raises:
            InvalidInputError: If the file is not GGUF, damaged, of another version, or has tensors of unknown types.
        """
        self.path = path
        self.name = name
        self._content = _map_file(path, name)
        header = _HeaderReader(self._content)
        version = header.number("<u4")
        if version not in SUPPORTED_VERSIONS:
            raise InvalidInputError(f"{name} is a GGUF file of version {version}; versions 2 and 3 can be read")
        try:
            num_tensors, num_keys = header.number("<u8"), header.number("<u8")
            header.check(num_tensors <= MAX_TENSORS and num_keys <= MAX_KEYS)
            self.metadata: dict[str, Any] = {header.text(): header.value(header.number("<u4")) for _ in range(num_keys)}
            """Values by key, such as "general.architecture"; an array of numbers is an array of numpy."""
            entries = [header.tensor_entry() for _ in range(num_tensors)]
            alignment = self.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
            header.check(isinstance(alignment, int) and 0 < alignment <= mmap.PAGESIZE)
            data_start = -(-header.position // alignment) * alignment
            self._places = {entry[0]: self._find_tensor(*entry, data_start) for entry in entries}
            header.check(len(self.metadata) == num_keys and len(self._places) == num_tensors)  # no name twice
            for place in self._places.values():  # one after the other, as llama.cpp demands
                header.check(place.start == data_start)
                data_start = -(-(place.start + place.num_bytes) // alignment) * alignment
        except (ValueError, struct.error, RecursionError) as error:
            raise InvalidInputError(f"{name} is a damaged GGUF file: it ends too early or has wrong sizes") from error
        self.shapes = {tensor: place.shape for tensor, place in self._places.items()}
        """Shape of each tensor, as numpy has it: matrices are `[outputs, inputs]`."""

    def _find_tensor(
        self, tensor: str, shape: tuple[int, ...], type_code: int, offset: int, data_start: int
    ) -> _TensorPlace:
        import gguf

        try:
            type_ = gguf.GGMLQuantizationType(type_code)
            block_size, block_bytes = gguf.GGML_QUANT_SIZES[type_]
            dequantize = partial(gguf.quants.dequantize, qtype=type_)
            dequantize(np.zeros((1, block_bytes), np.uint8))
        except (ValueError, KeyError, NotImplementedError) as error:
            kind = type_.name if isinstance(error, NotImplementedError) else str(type_code)
            raise InvalidInputError(
                f"{self.name}: {printable(tensor)} has the type {kind}, which the package gguf cannot read; "
                "update gguf, or use a file of another type, such as Q8_0"
            ) from error
        if shape[-1] % block_size:
            raise ValueError("a row is no number of whole blocks")
        row_bytes = shape[-1] // block_size * block_bytes
        start = data_start + offset
        place = _TensorPlace(shape, row_bytes, start, dequantize)
        if start + place.num_bytes > len(self._content):
            raise ValueError("the file ends before the tensor")
        return place

    def read(self, tensor: str, rows: npt.NDArray[np.intp] | None = None) -> Float32Array:
        """Return a tensor in single precision: all of it, or the given rows (of a vector, its elements) in order."""
        place = self._places[tensor]
        data = np.frombuffer(self._content, np.uint8, place.num_bytes, place.start).reshape(
            *place.shape[:-1], place.row_bytes
        )
        if rows is not None and len(place.shape) > 1:
            return place.dequantize(data[rows])
        values = place.dequantize(data)
        return values if rows is None else values[rows]


def _map_file(path: Path, name: str) -> mmap.mmap:
    try:
        with os.fdopen(open_regular_file(path), "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise InvalidInputError(
                    f"{name} is not a GGUF file; give the path of one, or hf:FOLDER for safetensors"
                )
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InvalidInputError(f"{name} cannot be read: {error.strerror or error}") from error


class _HeaderReader:
    """Position in the header of a file. Damage raises a ValueError or a struct.error."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._limit = min(len(content), MAX_HEADER_BYTES)
        self.position = len(MAGIC)

    def check(self, is_valid: bool) -> None:
        if not is_valid:
            raise ValueError("damaged")

    def _take(self, num_bytes: int) -> int:
        """Return the position, and move it on by `num_bytes`."""
        start = self.position
        self.position += num_bytes
        self.check(self.position <= self._limit)
        return start

    def number(self, dtype: str) -> Any:
        """Return a number of a dtype of numpy."""
        return self._numbers(dtype, 1).item()

    def _numbers(self, dtype: str, count: int) -> npt.NDArray[Any]:
        self.check(count <= MAX_HEADER_BYTES)
        return np.frombuffer(self._content, dtype, count, self._take(count * np.dtype(dtype).itemsize))

    def text(self) -> str:
        """Return a text, which is stored with its length in bytes."""
        return self._texts(1)[0]

    def _texts(self, count: int) -> list[str]:
        content, position, limit, texts = self._content, self.position, self._limit, []
        unpack_length = struct.Struct("<Q").unpack_from  # a vocabulary has hundreds of thousands of texts
        for _ in range(count):
            (length,) = unpack_length(content, position)
            end = position + 8 + length
            self.check(end <= limit and length <= MAX_TEXT_BYTES)
            texts.append(content[position + 8 : end].decode())
            position = end
        self.position = position
        return texts

    def value(self, type_code: int) -> Any:
        """Return a value of metadata: a number, a text, or an array of one of both."""
        if type_code == _TEXT:
            return self.text()
        if type_code == _ARRAY:
            item_code, count = self.number("<u4"), self.number("<u8")
            self.check(count <= MAX_VOCABULARY_SIZE and (item_code == _TEXT or item_code in _DTYPES))
            return self._texts(count) if item_code == _TEXT else self._numbers(_DTYPES[item_code], count)
        self.check(type_code in _DTYPES)
        return self.number(_DTYPES[type_code])

    def tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return the name, the shape (as numpy has it), the code of the type and the offset of a tensor."""
        name, num_dimensions = self.text(), self.number("<u4")
        self.check(1 <= num_dimensions <= 4)
        shape = tuple(map(int, reversed(self._numbers("<u8", num_dimensions))))
        self.check(all(shape) and math.prod(shape) <= 2**48)
        return name, shape, self.number("<u4"), self.number("<u8")
