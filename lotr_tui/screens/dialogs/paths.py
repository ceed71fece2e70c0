"""Dialogs that ask for a path: of a text file to open, and of a file or folder to export to."""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from textual.suggester import Suggester
from textual.widgets import Input

from engine.data.corpus import read_whole_text
from engine.errors import CorpusError, LotrError, printable
from engine.storage.files import absolute_path
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.dialog import Dialog, Field
from lotr_tui.screens.dialogs.questions import confirm
from lotr_tui.session import export
from lotr_tui.session.settings import os_error_reason

MAX_PATH_LENGTH = 4096  # the limit of Linux
MAX_TEXT_BYTES = 4_000_000  # about 800,000 words; a model reads them in a minute or two
MAX_FOLDER_ENTRIES = 5_000  # that are read for completion


class PathSuggester(Suggester):
    """Completion of a path with the first fitting name in its folder; hidden names are completed after a full stop."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._folder = ""
        self._names: asyncio.Task[list[str]] | None = None  # of `_folder`, read once per folder

    async def get_suggestion(self, value: str) -> str | None:
        if value in ("", "~"):
            return "~/" if value else None
        head, slash, prefix = value.rpartition("/")
        if self._names is None or self._folder != head + slash:
            self._folder = head + slash
            self._names = asyncio.create_task(run_in_thread(list_names, self._folder))
        names = await asyncio.shield(self._names)
        for name in names if prefix not in names else ():
            is_longer = name.casefold().startswith(prefix.casefold()) and len(name) > len(prefix)
            if is_longer and (prefix.startswith(".") or not name.startswith(".")):
                return head + slash + name
        return None


def list_names(folder: str) -> list[str]:
    """Return the sorted names in a folder, folders with a slash at the end. An unreadable folder has none."""
    names = []
    try:
        with os.scandir(Path(folder).expanduser()) as entries:
            for entry in entries:
                if entry.name.isprintable():
                    names.append(f"{entry.name}/" if entry.is_dir() else entry.name)
                if len(names) == MAX_FOLDER_ENTRIES:
                    break
    except (OSError, RuntimeError, ValueError):  # RuntimeError: an unknown user; ValueError: a zero byte
        pass
    return sorted(names, key=str.casefold)


def _path_field(value: str = "", placeholder: str = "path") -> Field:
    return Field("path", value, placeholder, max_length=MAX_PATH_LENGTH, suggester=PathSuggester())


class OpenTextDialog(Dialog[tuple[str, str]]):
    """Dialog for the path of a text file; it returns the path and the text, or None if cancelled."""

    def __init__(self) -> None:
        super().__init__("Open a text file", fields=[_path_field(placeholder="path of a text file")], verb="open")

    async def use(self, texts: Mapping[str, str]) -> None:
        if not (path := texts["path"].strip()):
            raise CorpusError("type the path of a text file, or press esc")
        self.dismiss((path, await run_in_thread(read_whole_text, absolute_path(Path(path)), MAX_TEXT_BYTES)))


class ExportDialog(Dialog[Path]):
    """Dialog for the path of an export, dismissed with the absolute path once the export is written.

    It asks before it replaces a file or creates a folder. After an error it stays open with the typed path.
    """

    def __init__(
        self,
        title: str,
        suggestion: Path,
        check: Callable[[str], export.ExportTarget],
        write: Callable[[export.ExportTarget], object],
    ) -> None:
        """Suggest a path. `check` returns the target that a typed path names, and `write` writes it; both in a thread.

        Both raise a LotrError if the path cannot be used.
        """
        super().__init__(title, fields=[_path_field(export.abbreviate_home(suggestion))], verb="export")
        self._suggestion, self._check, self._write = suggestion, check, write
        self._is_writing = False

    def on_mount(self) -> None:
        self.run_worker(self._suggest_unused_path(), group="suggestion")

    async def _suggest_unused_path(self) -> None:
        path = await run_in_thread(export.suggest_export_path, self._suggestion.parent, self._suggestion.name)
        if is_closed(self):
            return
        field, unused = self.query_one(Input), export.abbreviate_home(path)
        if field.value == export.abbreviate_home(self._suggestion) != unused:
            field.value = unused
            field.action_end()

    async def use(self, texts: Mapping[str, str]) -> None:
        """Write the export, or ask first if a file would be replaced or a folder created."""
        if self._is_writing:
            return
        target = await run_in_thread(self._check, texts["path"])
        if is_closed(self):  # cancelled while a slow disk was asked
            return
        self.show_problem("")
        if target.missing_folder is not None:
            question = f"The folder {printable(str(target.missing_folder))} does not exist. Create it?"
        elif target.exists:
            question = f"{printable(str(target.path))} exists. Replace it?"
        else:
            self._start_writing(target)
            return
        confirm(self.app, question, lambda: self._start_writing(target))

    def _start_writing(self, target: export.ExportTarget) -> None:
        self._is_writing = True
        self.show_problem(f"writing {target.path.name} …")
        self.app.run_worker(self._write_and_close(target), group="export")  # outlives the dialog

    async def _write_and_close(self, target: export.ExportTarget) -> None:
        problem, folder = "", target.missing_folder
        try:
            if folder is not None:
                await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await asyncio.to_thread(self._write, target)
        except OSError as error:
            problem = f"cannot create {folder or target.path}: {os_error_reason(error)}; choose another folder"
        except LotrError as error:
            problem = str(error)
        self._is_writing = False
        if is_closed(self):  # the user did not wait for a slow disk
            self.app.notify(problem or f"Exported to {printable(str(target.path))}", markup=False)
        elif problem:
            self.show_problem(problem)
        else:
            self.dismiss(target.path)


def ask_to_export(
    screen: AppScreen[Any],
    title: str,
    name: str,
    check: Callable[[str], export.ExportTarget],
    write: Callable[[export.ExportTarget], object],
    on_exported: Callable[[str], None],
) -> None:
    """Ask for a path and write an export there; `on_exported` gets a message with the full path.

    The suggestion is `name` in the folder of the last export, which the settings keep, or in the current folder.
    `check` and `write` are passed on to `ExportDialog`.
    """

    def exported(path: Path | None) -> None:
        if path is not None:
            if str(path).isprintable():
                screen.state.update_settings(export_folder=str(path.parent))
            on_exported(f"Exported to {printable(str(path))}")

    last_folder = screen.state.settings.current.export_folder
    folder = Path(last_folder) if last_folder else export.current_folder()
    screen.app.push_screen(ExportDialog(title, folder / name, check, write), exported)


def ask_to_export_csv(screen: AppScreen[Any], run: Path, name: str, on_exported: Callable[[str], None]) -> None:
    """Ask for a new folder, and write the metrics of a run there as CSV files."""
    from lotr_tui.monitor.export import export_csv  # with the trackers, which other exports do not need

    check = partial(export.check_export_target, is_folder=True)
    title = f"Export {printable(name)} to a new folder"
    ask_to_export(screen, title, f"{name}-csv", check, lambda target: export_csv(run, target.path), on_exported)
