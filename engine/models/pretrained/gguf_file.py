"""One reading of a GGUF file for all that transformers needs from it."""

import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

LOADING_FACTOR = 2.0
"""Peak memory of loading, relative to the weights in single precision: all tensors are converted before they are used.
"""
_patch_lock = threading.Lock()


def open_gguf(path: Path) -> Any:
    """Return a `GGUFReader` of a file that `GGUFFile` has checked.

    It sees the file as a plain array, which is several times faster than as a `memmap`.
    """
    from gguf import GGUFReader

    def set_data(reader: Any, content: Any) -> None:
        reader.array = content.view(np.ndarray)

    array_property = property(lambda reader: reader.array, set_data)
    return type("ArrayReader", (GGUFReader,), {"data": array_property})(str(path))


def required_bytes(reader: Any) -> int:
    """Return the peak memory in bytes of loading a GGUF file in single precision."""
    return int(LOADING_FACTOR * 4 * sum(math.prod(map(int, tensor.shape)) for tensor in reader.tensors))


@contextmanager
def shared_reader(reader: Any, on_tensor: Callable[[int, int], None]) -> Iterator[None]:
    """Let transformers use `reader` instead of reading the file again for settings, tokenizer and weights.

    Reading takes seconds each time. `on_tensor` is called with the number of converted tensors and of all, instead of
    the progress bar that transformers prints.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as module

    def report(tensors: Any, **_: Any) -> Iterator[Any]:
        for index, tensor in enumerate(tensors):
            on_tensor(index, len(tensors))
            yield tensor

    replacements = [
        (gguf, "GGUFReader", lambda *_, **__: reader),
        (gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),  # called for every layer
        (module, "tqdm", report),
    ]
    with _patch_lock:
        originals = [getattr(owner, attribute) for owner, attribute, _ in replacements]
        try:
            for owner, attribute, replacement in replacements:
                setattr(owner, attribute, replacement)
            yield
        finally:
            for (owner, attribute, _), original in zip(replacements, originals, strict=True):
                setattr(owner, attribute, original)
