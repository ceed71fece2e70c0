"""Names of runs, of their epochs and of their speakers, found without reading more files than needed."""

import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from engine.errors import LotrError, printable
from engine.storage.files import assets_dir, default_runs_dir, read_limited
from lotr_tui.completion.candidate import Candidate
from lotr_tui.completion.command_tree import CommandTree

MAX_RUNS = 200
"""Maximum runs to offer one by one; shells ask before they show more than a hundred names."""
MAX_CAST_BYTES = 1_000_000


class RunFolder(NamedTuple):
    """Folder with runs."""

    path: Path
    tree: CommandTree

    def complete_names(self, word: str, *, groups: bool) -> list[Candidate]:
        """Return the runs whose names begin with `word`, latest first.

        If there are more than `MAX_RUNS`, return common beginnings of their names with the number of runs, or without
        `groups` some of the runs, so that their common beginning is still the common beginning of all.
        """
        folders = self._list_folders(word)
        if len(folders) <= MAX_RUNS:
            return self._describe_runs(folders)
        names = sorted(name for name in folders if name not in self.tree.run_names)
        if groups:
            return group_names(names)
        step = -(-len(names) // (MAX_RUNS - 1))
        return self._describe_runs({name: folders[name] for name in [*names[:-1:step], names[-1]]})

    def complete_searches(self, word: str) -> list[Candidate]:
        """Return the searches whose names begin with `word`."""
        file = self.tree.run_files["search"]
        folders = sorted(self._list_folders(word).items())
        return [Candidate(name) for name, folder in folders if _modified_at(self.path / folder / file)]

    def complete_epochs(self, run: str, word: str) -> list[Candidate]:
        """Return RUN@EPOCH for the epochs whose weights a run keeps, earliest first."""
        folder = self.find(run)
        if folder is None:
            return []
        with suppress(OSError):
            stems = (path.stem for path in (folder / self.tree.run_files["epochs"]).glob("*.safetensors"))
            epochs = sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit() and len(stem) < 10)
            return [
                Candidate(f"{run}@{epoch}", f"after epoch {epoch}") for epoch in epochs if f"{epoch}".startswith(word)
            ]
        return []

    def read_cast(self, run: str | None) -> list[str]:
        """Return the names of the speakers that a run knows, or the bundled model; [] if there are none."""
        folder = self.find(run or next(iter(self.tree.bundled_folders)))
        if folder is None:
            return []
        with suppress(OSError, ValueError, RecursionError):
            content = json.loads(read_limited(folder / self.tree.run_files["cast"], MAX_CAST_BYTES))
            names = content.get("cast") if isinstance(content, dict) else None
            if isinstance(names, list):
                return [name for name in names if isinstance(name, str) and name and name == printable(name)]
        return []

    def find(self, run: str) -> Path | None:
        """Return the folder of a run by name or path, or None."""
        if run in self.tree.bundled_folders:
            return assets_dir() / self.tree.bundled_folders[run]
        if run in self.tree.run_names:
            paths = [self.path / folder for folder in self._list_folders("").values()]
            # The latest run is one with a configuration: an imported run has no model.
            dated = [
                (started, path) for path in paths if (started := _modified_at(path / self.tree.run_files["config"]))
            ]
            return max(dated)[1] if dated else None
        with suppress(OSError, ValueError, RuntimeError):
            for folder in (self.path / run, Path(run).expanduser()):
                if self._started_at(folder):
                    return folder
        return None

    def _list_folders(self, word: str) -> dict[str, str]:
        """Return the folders whose names begin with `word`, by the names that a list of runs prints for them.

        A file among many runs may be returned too: looking at 10,000 names would take too long.
        """
        try:
            shown = {_shown_name(name): name for name in os.listdir(self.path)}  # noqa: PTH208 - ten times as fast
        except (OSError, ValueError):
            return {}
        # A command takes a name that begins with a hyphen for an option.
        return {name: shown[name] for name in shown if name.startswith(word) and name[:1] not in (".", "-")}

    def _describe_runs(self, folders: Mapping[str, str]) -> list[Candidate]:
        """Return the folders that are runs, latest first."""
        return [
            Candidate(name, time.strftime("started %Y-%m-%d %H:%M", time.localtime(started)))
            for started, name in sorted(self._date_runs(folders), reverse=True)
        ]

    def _started_at(self, folder: Path) -> float:
        """Return when a run was started, in seconds since 1970; 0 for a folder that is no run."""
        files = self.tree.run_files
        return _modified_at(folder / files["config"]) or _modified_at(folder / files["imported"])

    def _date_runs(self, folders: Mapping[str, str]) -> list[tuple[float, str]]:
        """Return when each run was started, in seconds since 1970, and its name, for those folders that are runs."""
        names = [name for name in folders if name not in self.tree.run_names]
        return [(started, name) for name in names if (started := self._started_at(self.path / folders[name]))]


def open_run_folder(tree: CommandTree, runs_dir: str | None) -> RunFolder | None:
    """Return the folder that `--runs-dir` names, or the default one; None if it cannot be determined."""
    try:
        path = Path(os.path.expandvars(runs_dir)).expanduser() if runs_dir else default_runs_dir()
    except (LotrError, RuntimeError, ValueError):  # the home folder of an unknown user
        return None
    return RunFolder(path, tree)


def group_names(names: Sequence[str]) -> list[Candidate]:
    """Return the next branches of sorted names: the common beginnings of groups, and names that are in none.

    The groups differ in the first character after the beginning that all names have.
    """
    shared = len(common_beginning(names[0], names[-1]))
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name[: shared + 1], []).append(name)
    return [
        Candidate(group[0])
        if len(group) == 1
        else Candidate(common_beginning(group[0], group[-1]), f"{len(group):,} runs", is_complete=False)
        for group in groups.values()
    ]


def common_beginning(first: str, second: str) -> str:
    """Return the longest text with which both texts begin."""
    length = min(len(first), len(second))
    return first[: next((index for index in range(length) if first[index] != second[index]), length)]


def _shown_name(name: str) -> str:
    """Return the name that a list of runs prints for a folder: see `printable`, which is slow for 10,000 names."""
    return name if name.isprintable() and " " not in name else printable(name)


def _modified_at(path: Path) -> float:
    """Return the time at which a regular file was modified, in seconds since 1970; 0 if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0.0
    return status.st_mtime if stat.S_ISREG(status.st_mode) else 0.0
