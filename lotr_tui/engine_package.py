"""Search for another package named `engine`, which hides or overwrites the one of lotr-tui; imports nothing of it."""

import importlib.util
import os
from contextlib import suppress
from pathlib import Path


def describe_engine_problem(error: Exception | None = None) -> str:
    """Return one line about another package `engine`, or one whose import has failed, and what to do, or ""."""
    expected, spec, problem = Path(__file__).resolve().parent.parent / "engine", None, ""
    with suppress(ImportError, ValueError):  # an entry of sys.modules without a spec
        spec = importlib.util.find_spec("engine")
    place = None if spec is None else next(iter(spec.submodule_search_locations or ()), spec.origin)
    if place is not None and (found := Path(place).resolve()) != expected:
        on_path = [Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        advice = "rename or remove it, or install lotr-tui in an environment of its own"
        if found.parent in on_path:
            advice = f"remove {found.parent} from PYTHONPATH"
        elif found.parent == Path.cwd().resolve():
            advice = "run lotr-tui in another folder, or as `lotr-tui` instead of `python -m lotr_tui`"
        problem = f"{found} is imported as engine instead of {expected}; {advice}"
    elif isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "engine":
        advice = "in an environment of its own, install it again: pip install --force-reinstall --no-deps lotr-tui"
        problem = f"{expected} is incomplete, or another package has overwritten it ({error}); {advice}"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in problem)
