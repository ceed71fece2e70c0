"""Files and folders that continue a path."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.errors import printable
from lotr_tui.completion.candidate import Candidate

MAX_FILES = 1_000


def complete_path(word: str, extensions: Sequence[str] = (), *, only_folders: bool = False) -> list[Candidate]:
    """Return the folders and files that continue `word`, in alphabetical order.

    Files with one of the `extensions` come alone if there are any. A name that cannot be shown, because of a line break
    for example, is left out, and one that begins with a full stop comes only after a full stop.
    """
    parent, slash, beginning = word.rpartition("/")
    if word.startswith("~") and not slash:  # the name of a user, which a shell completes
        return []
    folders, files = [], []
    with suppress(OSError, ValueError, RuntimeError), os.scandir(Path(parent + slash or ".").expanduser()) as entries:
        for entry in entries:
            name = entry.name
            if not name.startswith(beginning) or (name.startswith(".") and not beginning) or name != printable(name):
                continue
            if is_folder(entry):
                folders.append(Candidate(f"{parent}{slash}{name}/", is_complete=False))
            elif not only_folders:
                files.append(Candidate(f"{parent}{slash}{name}"))
    preferred = [file for file in files if file.text.casefold().endswith(tuple(extensions))]
    return sorted(folders + (preferred or files))[:MAX_FILES]


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return True for a folder, and for a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
