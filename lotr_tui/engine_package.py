"""Search for another package named `engine`, which hides or overwrites the one that lotr-tui installs.

This module imports nothing of `engine`, so that it works when the import of that package fails.
"""

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

DISTRIBUTION = "lotr-tui"
REINSTALL = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"


def describe_engine_problem() -> str:
    """Return one line that says why `engine` is not the package of lotr-tui, and what to do, or "".

    Checked are the folder of the package, other distributions that install files into it, and the files themselves.
    """
    expected = Path(__file__).resolve().parent.parent / "engine"
    found = _find_engine()
    if not (expected / "__init__.py").is_file():
        return f"the package engine of {DISTRIBUTION} is missing in {expected}; {REINSTALL}"
    if found != expected:
        return f"{found or 'nothing'} is imported as engine instead of {expected}; {_removal_hint(found)}"
    if others := _other_owners(expected):
        names = " and ".join(others)
        return (
            f"{names} and {DISTRIBUTION} both install a package engine in {expected}; install {DISTRIBUTION} in an "
            f"environment of its own, or run: pip uninstall {others[0]}; {REINSTALL}"
        )
    if damaged := _find_damaged_file(expected):
        return f"{damaged} is missing or was changed after the installation of {DISTRIBUTION}; {REINSTALL}"
    return ""


def exit_on_engine_problem(error: Exception) -> NoReturn:
    """Print the problem with the package `engine` and exit, or raise `error` if there is none."""
    message = describe_engine_problem()
    if not message:
        raise error
    if os.environ.get("LOTR_TUI_DEBUG") == "1":
        raise error
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in message)
    print(f"{DISTRIBUTION}: {printable}", file=sys.stderr)
    sys.exit(1)


def _find_engine() -> Path | None:
    """Return the folder, or for a module the file, that `import engine` takes; None if there is none."""
    spec = None
    with suppress(ImportError, ValueError):  # an entry of sys.modules without a spec
        spec = importlib.util.find_spec("engine")
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = folders[0] if folders else spec.origin
    return None if place is None else Path(place).resolve()


def _removal_hint(found: Path | None) -> str:
    if found is None:
        return REINSTALL
    parent = found.parent
    on_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if any(entry and Path(entry).resolve() == parent for entry in on_path):
        return f"remove {parent} from PYTHONPATH"
    if parent == Path.cwd().resolve():
        return "run lotr-tui in another folder, or as `lotr-tui` instead of `python -m lotr_tui`"
    if owners := _other_owners(found):
        return f"install {DISTRIBUTION} in an environment of its own, or run: pip uninstall {owners[0]}"
    return "rename or remove it"


def _other_owners(folder: Path) -> list[str]:
    """Return the names of the distributions, other than lotr-tui, that install files in `folder`."""
    names = set()
    for distribution in importlib.metadata.distributions(path=[str(folder.parent)]):
        name = distribution.metadata["Name"] or ""
        files = distribution.files or ()
        if name.lower().replace("_", "-") != DISTRIBUTION and any(file.parts[0] == folder.name for file in files):
            names.add(name)
    return sorted(names)


def _find_damaged_file(folder: Path) -> Path | None:
    """Return the first file of the package that is missing or differs from the installed one; None for a checkout."""
    for distribution in importlib.metadata.distributions(name=DISTRIBUTION, path=[str(folder.parent)]):
        for file in distribution.files or ():
            if file.parts[0] == folder.name and file.suffix == ".py" and file.hash is not None:
                path = Path(str(distribution.locate_file(file)))
                if not path.is_file() or _digest(path, file.hash.mode) != file.hash.value:
                    return path
    return None


def _digest(path: Path, algorithm: str) -> str:
    """Return the digest of a file as a RECORD has it: in URL-safe base 64 without padding."""
    digest = hashlib.new(algorithm, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
