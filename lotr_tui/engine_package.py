"""Search for another package named `engine`, which hides or overwrites the one that lotr-tui installs.

This module imports nothing of `engine`, so that it works when the import of that package fails.
"""

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
    """Return one line that says why `engine` is not the package of lotr-tui, and what to do, or ""."""
    expected = Path(__file__).resolve().parent.parent / "engine"
    if not (expected / "__init__.py").is_file():
        return f"the package engine of {DISTRIBUTION} is missing in {expected}; {REINSTALL}"
    spec = None
    with suppress(ImportError, ValueError):  # an entry of sys.modules without a spec
        spec = importlib.util.find_spec("engine")
    place = None if spec is None else next(iter(spec.submodule_search_locations or ()), spec.origin)
    if place is None:
        return f"nothing is imported as engine instead of {expected}; {REINSTALL}"
    if (found := Path(place).resolve()) != expected:
        on_path = [Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        advice = "rename or remove it"
        if found.parent in on_path:
            advice = f"remove {found.parent} from PYTHONPATH"
        elif found.parent == Path.cwd().resolve():
            advice = "run lotr-tui in another folder, or as `lotr-tui` instead of `python -m lotr_tui`"
        elif owners := _other_owners(found):
            advice = f"install {DISTRIBUTION} in an environment of its own, or run: pip uninstall {owners[0]}"
        return f"{found} is imported as engine instead of {expected}; {advice}"
    if owners := _other_owners(expected):
        return (
            f"{' and '.join(owners)} and {DISTRIBUTION} both install a package engine in {expected}; install "
            f"{DISTRIBUTION} in an environment of its own, or run: pip uninstall {owners[0]}; {REINSTALL}"
        )
    for distribution in importlib.metadata.distributions(name=DISTRIBUTION, path=[str(expected.parent)]):
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if file.parts[0] == "engine" and not path.is_file():
                return f"{path} is missing; {REINSTALL}"
    return ""


def exit_on_engine_problem(error: Exception) -> NoReturn:
    """Print the problem with the package `engine` and exit, or raise `error` if there is none."""
    message = describe_engine_problem()
    if not message or os.environ.get("LOTR_TUI_DEBUG") == "1":
        raise error
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in message)
    print(f"{DISTRIBUTION}: {printable}", file=sys.stderr)
    sys.exit(1)


def _other_owners(folder: Path) -> list[str]:
    """Return the names of the distributions, other than lotr-tui, that install files in `folder`."""
    names = set()
    for distribution in importlib.metadata.distributions(path=[str(folder.parent)]):
        name, files = distribution.metadata["Name"] or "", distribution.files or ()
        if name.lower().replace("_", "-") != DISTRIBUTION and any(file.parts[0] == folder.name for file in files):
            names.add(name)
    return sorted(names)
