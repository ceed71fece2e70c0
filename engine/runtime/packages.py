"""Large packages: whether one is installed, and loading it in a thread without long stops of the others."""

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import InvalidInputError


def require_package(name: str, purpose: str) -> None:
    """Raise an InvalidInputError unless the package `name`, which `purpose` needs, is installed."""
    if importlib.util.find_spec(name) is None:
        shown = "PyTorch" if name == "torch" else name
        raise InvalidInputError(f"{purpose} needs {shown}; {install_command(name)}")


def require_torch(purpose: str = "training") -> None:
    """Raise an InvalidInputError unless PyTorch, which `purpose` needs, is installed."""
    require_package("torch", purpose)


def install_command(name: str) -> str:
    """Return the command that adds a package to this installation of lotr-tui."""
    if (Path(sys.prefix) / "uv-receipt.toml").is_file():  # the environment has no pip
        return "uv tool install --reinstall lotr-tui"
    if (Path(sys.prefix) / "pipx_metadata.json").is_file():
        return f"pipx inject lotr-tui {name}"
    return f"pip install {name}"


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Collect no garbage while the context is open, and never search the objects created in it for garbage.

    Each search of the objects of torch and transformers stops all threads: for up to 1.1 s, and 0.1 s with this.
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

    An import would hold the lock, and stop all threads, for up to 1.4 s.
    """
    spec = importlib.util.find_spec("torch")
    if "torch" in sys.modules or not sys.platform.startswith("linux") or spec is None or spec.origin is None:
        return
    library = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    if library.is_file():
        import ctypes  # the session starts without ctypes

        dlopen = ctypes.CDLL(None).dlopen
        dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        dlopen(os.fsencode(library), os.RTLD_NOW)  # a failure is reported by the import
