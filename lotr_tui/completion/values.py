"""Values that a shell offers for options and arguments: runs, settings, speakers and other names.

It is imported with every command, so each function imports what lists its values.
"""

from collections.abc import Callable
from typing import Any, get_args

import typer

from engine.errors import LotrError, printable


def offer_runs(context: typer.Context) -> list[str]:
    from engine.models.pretrained.names import SMOLLM2
    from engine.runs.directory import BUNDLED_FOLDERS, LATEST_RUN, find_run_dirs
    from engine.storage.files import default_runs_dir

    folders = find_run_dirs(context.params.get("runs_dir") or default_runs_dir())
    names = sorted(printable(folder.name) for folder in folders if folder.name[0] not in "-.")
    return [LATEST_RUN, *BUNDLED_FOLDERS, SMOLLM2, *names, "hf:", "gguf:"]


def offer_settings(incomplete: str) -> list[str]:
    from engine.config import SETTINGS

    name, equals, _ = incomplete.partition("=")
    if not equals or name not in SETTINGS:
        return [] if equals else [f"{name}=" for name in SETTINGS]
    value_type = SETTINGS[name].type
    return [f"{name}={value}" for value in (("true", "false") if value_type is bool else get_args(value_type))]


def offer_speakers(context: typer.Context, incomplete: str) -> list[str]:
    """Return the speakers of a run, also after the ones that are typed, with commas between them."""
    from engine.data.speakers import CAST_FILE, cast_from_json
    from engine.runs.directory import MAX_FILE_BYTES, resolve_run
    from engine.storage.files import read_limited

    runs = context.params.get("run") or [None]
    before, comma, name = incomplete.rpartition(",")
    try:
        file = resolve_run(runs if isinstance(runs, str) else runs[-1], context.params.get("runs_dir")) / CAST_FILE
        cast = cast_from_json(read_limited(file, MAX_FILE_BYTES).decode(), str(file))
    except (LotrError, OSError, ValueError):  # a message would break the line that is typed
        return []
    others = [each for each in cast if each not in before.split(",") and each == printable(each)]
    return [f"{before}{comma}{each.lower() if name.islower() else each}" for each in others]


def offer_presets() -> list[str]:
    from engine.presets import PRESETS

    return list(PRESETS)


def offer_themes() -> list[str]:
    from lotr_tui.theme import THEME_NAMES

    return list(THEME_NAMES)


def offer_chapters() -> list[str]:
    from lotr_tui.learn.chapters import CHAPTERS

    return [chapter.name for chapter in CHAPTERS]


def offer_trackers() -> list[str]:
    from lotr_tui.trackers.libraries import TRACKER_NAMES

    return list(TRACKER_NAMES)


VALUES: dict[str, Callable[..., Any]] = {
    "RUN": offer_runs,
    "OLD": offer_runs,
    "RUN:X": offer_runs,
    "KEY=VALUE": offer_settings,
    "--as": offer_speakers,
    "--to": offer_speakers,
    "--cast": offer_speakers,
    "--steer": offer_speakers,
    "--preset": offer_presets,
    "--theme": offer_themes,
    "CHAPTER": offer_chapters,
    "--log": offer_trackers,
}
"""Functions by the name of an option, or by the placeholder of a value in the help; Typer itself offers a `Literal`."""
