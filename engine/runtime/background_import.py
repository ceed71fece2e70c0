"""Loading of large libraries in a thread, without long stops of the other threads of the process."""

import ctypes
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Collect no garbage while the context is open, and never search the objects created in it for garbage.

    With the objects of torch and transformers, which stay until the end, each search of all objects would stop all
    threads for a third of a second.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def preload_torch() -> None:
    """Map the largest library of torch into memory, in a call that does not hold Python's lock; do nothing elsewhere.

    An import would hold the lock, and stop all threads, for up to half a second.
    """
    spec = importlib.util.find_spec("torch")
    if "torch" in sys.modules or not sys.platform.startswith("linux") or spec is None or spec.origin is None:
        return
    library = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    if library.is_file():
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        dlopen(os.fsencode(library), os.RTLD_NOW)  # a failure is reported by the import
