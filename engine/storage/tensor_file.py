"""Tensors of models in safetensors files, with a checksum, in single or half precision or in 8 bits."""

import json
import math
import mmap
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import RunError, printable
from engine.storage.files import open_regular_file

MEMORY_CHECK_THRESHOLD = 300_000_000  # bytes for loading from which the free memory is checked before
MEMORY_FACTOR = 3  # peak memory of loading divided by the size of the weights: the file's copy, ours, and a temporary
SCALE_SUFFIX = ".scale"  # of the name of the tensor that contains the scale of each row of an 8-bit matrix
MAX_INT8 = 127
BLOCK_SIZE = 2**16  # numbers converted at once
MIN_PEAK = np.float32(1e-20)  # least peak of a row, so that a row of zeros has a scale
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DTYPES |= {"I64": "int64", "I32": "int32", "I8": "int8", "U8": "uint8"}
UNSEALED = {"crc32": "00000000"}  # metadata of a file whose checksum `seal` is to fill in
_CHECKSUM = re.compile(rb'"crc32":"([0-9a-f]{8})"')


class Int8Rows(NamedTuple):
    """A matrix `[rows, columns]`: each number is a value multiplied by the scale of its row."""

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]


StoredTensor = npt.NDArray[np.float32] | Int8Rows  # as it is used: half precision becomes single precision


def quantize_rows(matrix: npt.NDArray[np.float32]) -> Int8Rows:
    """Round a matrix `[rows, columns]` to 8 bits: the largest absolute value of each row becomes 127."""
    peaks = np.maximum(np.abs(matrix).max(axis=1), MIN_PEAK)
    scaled = matrix * (np.float32(MAX_INT8) / peaks)[:, None]
    return Int8Rows(np.rint(scaled, out=scaled).astype(np.int8), peaks * np.float32(1 / MAX_INT8))


def to_float32(tensor: StoredTensor) -> npt.NDArray[np.float32]:
    """Return a tensor in single precision, without a copy if it is stored so."""
    return np.asarray(tensor.values * tensor.scales[:, None]) if isinstance(tensor, Int8Rows) else tensor


def to_int8(tensor: StoredTensor) -> StoredTensor:
    """Return a matrix in 8 bits, and a vector as it is."""
    if isinstance(tensor, Int8Rows) or tensor.ndim == 1:
        return tensor
    rounded = Int8Rows(np.empty(tensor.shape, np.int8), np.empty(len(tensor), np.float32))
    with np.errstate(invalid="ignore"):  # a row with NaN gets a scale that is NaN, which is refused later
        for rows in row_blocks(tensor.shape):
            rounded.values[rows], rounded.scales[rows] = quantize_rows(tensor[rows])
    return rounded


def row_blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Yield consecutive rows of a matrix, as many at once as the processor's cache holds beside temporaries."""
    step = max(1, BLOCK_SIZE // max(1, math.prod(shape[1:])))
    return (slice(start, start + step) for start in range(0, shape[0], step))


class TensorFile:
    """A mapped safetensors file: unused tensors are never read, and processes share the others."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        with os.fdopen(open_regular_file(path), "rb") as file:
            try:
                with safe_open(path, "numpy"):
                    length = int.from_bytes(file.read(8), "little")
                self._entries: dict[str, Any] = json.loads(file.read(length))
            except (OSError, ValueError, MemoryError, SafetensorError) as error:  # a sparse file may have any size
                reason = str(error).removeprefix("Error while deserializing header: ")[:100]
                raise RunError(f"{path} is not a valid safetensors file: {printable(reason)}") from error
        self._start = 8 + length
        self.metadata: dict[str, str] = self._entries.pop("__metadata__", None) or {}
        dtypes = {name: DTYPES.get(each["dtype"], each["dtype"]) for name, each in self._entries.items()}
        self.tensors = {name: (dtypes[name], tuple(each["shape"])) for name, each in self._entries.items()}
        self.tensor_bytes = max((each["data_offsets"][1] for each in self._entries.values()), default=0)

    @cached_property
    def _content(self) -> mmap.mmap:
        try:
            with os.fdopen(open_regular_file(self.path), "rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # deleted or emptied meanwhile, or larger than the memory
            raise RunError(f"{self.path} cannot be read: {error}") from error

    def check_bytes(self) -> None:
        """Read the whole file, and raise a RunError unless it has the checksum that `seal` gave it."""
        match = _CHECKSUM.search(self._content, 0, self._start)
        if match is None or match[1] != _compute_checksum(self._content, match):
            raise RunError(f"{self.path} has changed since it was written; the run is damaged")

    def read_weight(self, name: str, rows: npt.NDArray[np.intp] | None = None) -> StoredTensor:
        """Return all or some rows of a tensor of a model as it is used: a part of the file, or a copy in float32."""
        dtype, shape = self.tensors[name]
        offset, count = self._start + self._entries[name]["data_offsets"][0], math.prod(shape)
        stored = np.frombuffer(self._content, "uint16" if dtype == "bfloat16" else dtype, count, offset)
        tensor = stored.reshape(shape)[... if rows is None else rows]
        if dtype == "int8":
            return Int8Rows(tensor, to_float32(self.read_weight(name + SCALE_SUFFIX, rows)))
        if dtype == "bfloat16":
            wide = tensor.astype(np.uint32)
            wide <<= 16
            tensor = wide.view(np.float32)
        return tensor.astype(np.float32, copy=False)

    def release_pages(self) -> None:
        """Give the memory of tensors back; they are read again when they are used, and changes of them are lost."""
        with suppress(OSError, AttributeError):  # not all systems can
            self._content.madvise(mmap.MADV_DONTNEED)


def serialize_weights(weights: Mapping[str, Any], metadata: Mapping[str, str] = UNSEALED) -> bytes:
    from safetensors.numpy import save

    tensors = {name: each.values if isinstance(each, Int8Rows) else each for name, each in weights.items()}
    tensors |= {name + SCALE_SUFFIX: each.scales for name, each in weights.items() if isinstance(each, Int8Rows)}
    return seal(save(tensors, {**metadata}))


def seal(content: bytes) -> bytes:
    """Return the content of a safetensors file whose metadata has an item `crc32`, with the checksum in that item."""
    match = _CHECKSUM.search(content)
    assert match is not None, "the metadata must have an item crc32"
    return b"".join((content[: match.start(1)], _compute_checksum(content, match), content[match.end(1) :]))


def _compute_checksum(content: bytes | mmap.mmap, item: re.Match[bytes]) -> bytes:
    view = memoryview(content)  # the CRC-32 is of everything but the item that has it
    return b"%08x" % zlib.crc32(view[item.end() :], zlib.crc32(view[: item.start()]))


def open_weights(path: Path, expected_shapes: Mapping[str, tuple[int, ...]]) -> TensorFile:
    """Open the file of a model; one that is missing, damaged, of another model or too large raises a RunError."""
    try:
        file = TensorFile(path)
        check_tensors(file.tensors, expected_shapes, ("float32", "float16"), f"{path}: ")
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = "is missing; the run has not saved a model yet" if is_missing else f"cannot be read: {error.strerror}"
        raise RunError(f"{path} {reason}") from error
    needed = MEMORY_FACTOR * 4 * sum(map(math.prod, expected_shapes.values()))
    if needed >= MEMORY_CHECK_THRESHOLD:  # a sparse file can have any size
        import psutil

        if needed > (free := psutil.virtual_memory().available):
            sizes = f"needs {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free"
            raise RunError(f"{path} {sizes}; use a larger machine")
    if "crc32" in file.metadata:  # files of other programs have none
        file.check_bytes()
    return file


def check_tensors(
    actual: Mapping[str, tuple[str, tuple[int, ...]]],
    expected_shapes: Mapping[str, tuple[int, ...]],
    float_dtypes: Sequence[str] = ("float32",),
    where: str = "",
) -> None:
    """Raise a RunError unless dtypes and shapes match; a matrix may be "int8", with a tensor `NAME.scale` `[rows]`."""
    expected = dict(expected_shapes)
    for name, shape in expected_shapes.items():
        if len(shape) == 2 and actual.get(name, ("",))[0] == "int8":
            expected[name + SCALE_SUFFIX] = shape[:1]
    check_names(actual, expected, where)
    for name, shape in expected.items():
        dtype, actual_shape = actual[name]
        dtypes = [*float_dtypes, "int8"] if len(shape) == 2 else float_dtypes
        if dtype not in dtypes or actual_shape != shape:
            wanted = f"{' or '.join(dtypes)} {list(shape)}"
            raise RunError(f"{where}{name} is {dtype} {list(actual_shape)[:9]}, not {wanted}; the run is damaged")


def check_names(actual: Iterable[str], expected: Iterable[str], where: str = "") -> None:
    if different := sorted(set(actual) ^ set(expected)):
        shown = ", ".join(name[:40] for name in different[:3])
        raise RunError(f"{where}the tensors do not match the configuration ({shown}); use the files of one model")
