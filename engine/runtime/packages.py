"""Packages that an installation for playing only leaves out: check that one is installed, or name the remedy."""

import importlib.util
import sys
from pathlib import Path

from engine.errors import InvalidInputError

NAMES = {"torch": "PyTorch"}
"""Names under which people know a package, where they differ from its own."""


def require_package(name: str, purpose: str) -> None:
    """Raise an InvalidInputError unless the package `name`, which `purpose` needs, is installed.

    The package is searched for and not imported.
    """
    if importlib.util.find_spec(name) is None:
        shown = NAMES.get(name, name)
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
