"""Weights from a safetensors file: what it says that it holds is read by itself, before anything is made room for."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import RunError, printable
from engine.storage.files import open_file

MOST_OF_HEADER = 8_000_000
"""Bytes; that of a resume has the validation perplexities of 100,000 epochs in it."""
MOST_TENSORS = 10_000
ALWAYS_ROOM = 100_000_000
"""Bytes of weights from which on it is asked whether there is room."""
TIMES_IN_MEMORY = 3
"""Weights as they are in the file, as they are arranged for playing, and while that is done."""
KINDS = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "I64": ("int64", 8), "I32": ("int32", 4), "U8": ("uint8", 1),
}  # fmt: skip
"""What is written here, or may be taken for it: its usual name, and the bytes of a number."""


@dataclass(frozen=True)
class TensorFile:
    """The header of a file that is as long as it says."""

    shapes: dict[str, tuple[str, tuple[int, ...]]]
    """Kind, as "float32", and shape of each tensor by its name."""
    metadata: dict[str, str]
    bytes: int
    """Of all tensors."""


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """The weights in a file; they are read once its header says that they are those of a model of these shapes.

    Raises:
        RunError: they are not, the file is missing or damaged, or they are too large for this machine.
    """
    if not path.is_file():
        raise RunError(f"{path} is missing; the run has not saved a model yet")
    if (kind := kind_of_file(path)) != "a file":
        raise RunError(f"{path} is {kind}, not safetensors")
    try:
        header = read_header(path)
        check_shapes(header.shapes, shapes)
    except FileNotFoundError as error:
        raise RunError(f"{path} is gone") from error
    except RunError as error:
        raise error if str(path) in str(error) else RunError(f"{path}: {error}") from error
    check_room(path, header.bytes)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is no safetensors file or a damaged one: {error}") from error


def kind_of_file(path: Path) -> str:
    """How a file that was offered as weights is to be spoken of."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return "a file that cannot be read"
    if start[8:] == b"{":  # safetensors: a number, which can look like the start of a pickle, and then JSON
        return "a file"
    pickled = start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or start[:4] == b"PK\x03\x04"
    return "a pickle, which can run code and is never loaded" if pickled else "a file"


def read_header(path: Path) -> TensorFile:
    """Read the header alone, and see that the tensors fill the rest of the file.

    Raises:
        FileNotFoundError: there is no file.
        RunError: it cannot be read, is no such file, or is damaged.
    """
    try:
        with os.fdopen(open_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("it is shorter than its header")
            if length > MOST_OF_HEADER:
                raise ValueError(f"its header has more than {MOST_OF_HEADER:,} bytes")
            header = file.read(length)
        return _checked(header, size - 8 - length)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RunError(f"{path} is no safetensors file or a damaged one: {_short(str(reason))}") from error


def check_shapes(there: Mapping[str, tuple[str, tuple[int, ...]]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """See that tensors of these kinds ("float32") and shapes are those of a model.

    Raises:
        RunError: one is missing, unknown, or of another kind or shape.
    """
    if missing := sorted(shapes.keys() - there.keys()):
        raise RunError(f"the model lacks {', '.join(missing[:3])}; it is none of this configuration")
    if unknown := sorted(there.keys() - shapes.keys()):
        names = ", ".join(name[:40] for name in unknown[:3])
        raise RunError(f"the model holds unknown {names}; it is none of this configuration")
    for name, shape in shapes.items():
        if there[name] != ("float32", shape):
            kind, found = there[name]
            raise RunError(f"{name} is {kind} {list(found)[:9]}, not float32 {list(shape)}; the run is damaged")


def check_room(path: Path, bytes_needed: int) -> None:
    """See that weights of a file fit into this machine: their configuration may be a stranger's too.

    Raises:
        RunError: they do not.
    """
    if bytes_needed < ALWAYS_ROOM:
        return
    import psutil

    needed, free = TIMES_IN_MEMORY * bytes_needed, psutil.virtual_memory().available
    if needed > free:
        raise RunError(
            f"{path} needs {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free; use a larger machine"
        )


def _checked(header: bytes, bytes_there: int) -> TensorFile:
    """Raises: ValueError: damaged."""
    if header.count(b"{") > 2 * MOST_TENSORS:  # before it is parsed, which takes many times the memory
        raise ValueError(f"it has more than {MOST_TENSORS:,} tensors")
    try:
        entries = json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is no JSON, or has a name twice") from error
    metadata = entries.pop("__metadata__", {}) if isinstance(entries, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its header is none")
    shapes, ends = {}, []
    for name, entry in entries.items():
        kind, shape, begin, end = _entry(name, entry)
        shapes[name] = kind, shape
        ends.append((begin, end))
    place = 0
    for begin, end in sorted(ends):  # one after the other, without a gap
        if begin != place:
            raise ValueError("its tensors overlap, or there are gaps between them")
        place = end
    if place != bytes_there:
        raise ValueError(f"its tensors have {place:,} bytes, and {bytes_there:,} are there")
    return TensorFile(shapes, metadata, place)


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [begin, end], **rest} if not rest:
            numbers = (*shape, begin, end)
            if all(type(number) is int and 0 <= number < 2**63 for number in numbers):
                if kind not in KINDS:
                    raise ValueError(f"{_short(name)} is of an unknown kind, {_short(kind)}")
                usual, size = KINDS[kind]
                if len(shape) <= 8 and math.prod(shape) * size == end - begin:
                    return usual, tuple(shape), begin, end
    raise ValueError(f"what it says of {_short(name)} is damaged")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _short(text: str) -> str:
    return printable(text[:100])
