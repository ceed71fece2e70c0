"""Values that a shell offers for options and arguments: runs, settings, speakers and other names.

It is imported with every command, so each function imports what lists its values.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import get_args

import typer

from engine.errors import LotrError, printable

ListValues = Callable[[typer.Context, str], Iterable[str]]
"""Function that lists values for the options typed before, and for the beginning of a word."""


def _runs(context: typer.Context, incomplete: str) -> list[str]:
    from engine.models.pretrained.names import SMOLLM2
    from engine.runs.directory import BUNDLED_FOLDERS, LATEST_RUN, find_run_dirs
    from engine.storage.files import default_runs_dir

    folders = find_run_dirs(context.params.get("runs_dir") or default_runs_dir())
    names = sorted(printable(folder.name) for folder in folders if folder.name[0] not in "-.")
    return [LATEST_RUN, *BUNDLED_FOLDERS, SMOLLM2, *names, "hf:", "gguf:"]


def _settings(context: typer.Context, incomplete: str) -> list[str]:
    from engine.config import describe_settings, setting_type

    name, equals, _ = incomplete.partition("=")
    if not equals:
        return [f"{name}=" for name in describe_settings()]
    value_type, _ = setting_type(name)
    return [f"{name}={value}" for value in (("true", "false") if value_type is bool else get_args(value_type))]


def _speakers(context: typer.Context, incomplete: str) -> list[str]:
    from engine.data.speakers import CAST_FILE, cast_from_json
    from engine.runs.directory import MAX_CONFIG_BYTES, resolve_run
    from engine.storage.files import read_limited

    runs = context.params.get("run") or [None]
    file = resolve_run(runs if isinstance(runs, str) else runs[-1], context.params.get("runs_dir")) / CAST_FILE
    cast = cast_from_json(read_limited(file, MAX_CONFIG_BYTES).decode(), str(file))
    return [name.lower() for name in cast] if incomplete.islower() else list(cast)


def _several_speakers(context: typer.Context, incomplete: str) -> list[str]:
    before, comma, name = incomplete.rpartition(",")
    return [f"{before}{comma}{each}" for each in _speakers(context, name) if each not in before.split(",")]


def _presets(context: typer.Context, incomplete: str) -> Iterable[str]:
    from engine.presets import PRESETS

    return PRESETS


def _themes(context: typer.Context, incomplete: str) -> list[str]:
    from lotr_tui.theme import theme_names

    return theme_names()


def _chapters(context: typer.Context, incomplete: str) -> list[str]:
    from lotr_tui.learn.chapters import CHAPTERS

    return [chapter.name for chapter in CHAPTERS]


def _trackers(context: typer.Context, incomplete: str) -> Iterable[str]:
    from lotr_tui.trackers.libraries import TRACKER_NAMES

    return TRACKER_NAMES


def _offer(list_values: ListValues) -> Callable[..., list[str]]:
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        with suppress(LotrError, OSError, ValueError):  # a message would break the line that is typed
            return [value for value in list_values(context, incomplete) if value == printable(value)]
        return []

    return complete


VALUES = {
    "RUN": _offer(_runs),
    "OLD": _offer(_runs),
    "KEY=VALUE": _offer(_settings),
    "--as": _offer(_speakers),
    "--to": _offer(_speakers),
    "--cast": _offer(_several_speakers),
    "--preset": _offer(_presets),
    "--theme": _offer(_themes),
    "CHAPTER": _offer(_chapters),
    "--log": _offer(_trackers),
}
"""Functions by the name of an option, or by the placeholder of a value in the help; Typer itself offers a `Literal`."""
