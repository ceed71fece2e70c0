"""The dialog that asks for the path of a file or folder to export to."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from textual import events, on, work
from textual.suggester import Suggester
from textual.widgets import Input

from engine.errors import LotrError, printable
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.dialog import Dialog, Field, confirm
from lotr_tui.session import export
from lotr_tui.session.settings import os_error_reason

MAX_PATH_LENGTH = 4096  # the limit of Linux
MAX_FOLDER_ENTRIES = 5_000  # that are read for completion


class PathSuggester(Suggester):
    """Completion of a path with the first fitting name in its folder; hidden names are completed after a full stop."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        if value in ("", "~"):
            return "~/" if value else None
        head, slash, prefix = value.rpartition("/")
        names = await run_in_thread(list_names, head + slash)
        for name in names if prefix not in names else ():
            is_longer = name.casefold().startswith(prefix.casefold()) and len(name) > len(prefix)
            if is_longer and (prefix.startswith(".") or not name.startswith(".")):
                return head + slash + name
        return None


def list_names(folder: str) -> list[str]:
    """Return the sorted names in a folder, folders with a slash at the end. An unreadable folder has none."""
    names = []
    with suppress(OSError, RuntimeError, ValueError), os.scandir(Path(folder).expanduser()) as entries:
        for entry in islice(entries, MAX_FOLDER_ENTRIES):
            names += [f"{entry.name}/" if entry.is_dir() else entry.name] if entry.name.isprintable() else []
    return sorted(names, key=str.casefold)


class ExportDialog(Dialog[Path]):
    """Dialog for the path of an export, dismissed with the absolute path once the export is written.

    It asks before it replaces a file or creates a folder. After an error it stays open with the typed path.
    """

    def __init__(
        self,
        screen: AppScreen[Any],
        title: str,
        name: str,
        check: Callable[[str], export.ExportTarget],
        write: Callable[[export.ExportTarget], object],
        on_exported: Callable[[str], object],
    ) -> None:
        """Suggest `name` in the folder of the last export, which the settings keep, or in the current folder.

        `check` returns the target that a typed path names, and `write` writes it; both in a thread, and both raise a
        LotrError if the path cannot be used. `on_exported` gets a message with the full path.
        """
        last_folder = screen.state.settings.current.export_folder
        suggestion = (Path(last_folder) if last_folder else export.current_folder()) / name
        path = abbreviate_home(suggestion)
        field = Field("path", path, "path", max_length=MAX_PATH_LENGTH, suggester=PathSuggester())
        super().__init__(title, fields=[field], verb="export")
        self._app_state, self._suggestion, self._is_writing = screen.state, suggestion, False
        self._check, self._write, self._on_exported = check, write, on_exported

    @on(events.Mount)
    @work(group="suggestion")
    async def _suggest_unused_name(self) -> None:
        path = await run_in_thread(export.suggest_export_path, self._suggestion.parent, self._suggestion.name)
        if not is_closed(self):
            field, unused = self.query_one(Input), abbreviate_home(path)
            if field.value == abbreviate_home(self._suggestion) != unused:
                field.value = unused
                field.action_end()

    async def use(self, texts: Mapping[str, str]) -> None:
        """Write the export, or ask first if a file would be replaced or a folder created."""
        target = await run_in_thread(self._check, texts["path"])
        if self._is_writing or is_closed(self):  # cancelled while a slow disk was asked
            return
        question = f"{printable(str(target.path))} exists. Replace it?" if target.exists else ""
        if target.missing_folder is not None:
            question = f"The folder {printable(str(target.missing_folder))} does not exist. Create it?"

        def start() -> None:
            self._is_writing = True
            self.show_problem(f"writing {target.path.name} …")
            self.app.run_worker(self._write_to(target), group="export")  # outlives the dialog

        if question:
            confirm(self.app, question, start)
        else:
            start()

    async def _write_to(self, target: export.ExportTarget) -> None:
        problem, folder = "", target.missing_folder
        try:
            if folder is not None:
                await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await asyncio.to_thread(self._write, target)
        except OSError as error:
            problem = f"cannot create {folder or target.path}: {os_error_reason(error)}; choose another folder"
        except LotrError as error:
            problem = str(error)
        self._is_writing, path, message = False, str(target.path), f"Exported to {printable(str(target.path))}"
        if not problem and path.isprintable():
            self._app_state.update_settings(export_folder=str(target.path.parent))
        if is_closed(self):  # the user did not wait for a slow disk
            self.app.notify(problem or message, markup=False)
        elif problem:
            self.show_problem(problem)
        else:
            self.dismiss(target.path)
            self._on_exported(message)


def ask_to_export_csv(screen: AppScreen[Any], run: Path, name: str, on_exported: Callable[[str], None]) -> None:
    """Ask for a new folder, and write the metrics of a run there as CSV files."""
    from lotr_tui.monitor.export import export_csv  # with the trackers, which other exports do not need

    check = partial(export.check_export_target, is_folder=True)
    title, write = f"Export {printable(name)} to a new folder", lambda target: export_csv(run, target.path)
    screen.app.push_screen(ExportDialog(screen, title, f"{name}-csv", check, write, on_exported))


def abbreviate_home(path: Path) -> str:
    """Return a path for an input, with "~" for the user's home folder."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises an error without one
    return f"~{os.sep}{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
