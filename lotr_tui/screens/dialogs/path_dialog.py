"""Dialogs that ask for a path: of a text file to open, and of a file or folder to export to."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from engine.errors import CorpusError, InvalidInputError, LotrError, printable
from engine.storage.files import read_text_file
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.completing_input import CompletingInput, PathInput, format_completions
from lotr_tui.screens.dialogs.confirm import confirm
from lotr_tui.screens.dialogs.line_dialog import LineDialog
from lotr_tui.session.export import ExportTarget, abbreviate_home, current_folder, suggest_export_path
from lotr_tui.session.json_store import os_error_reason

ResultT = TypeVar("ResultT")

MAX_PATH_LENGTH = 4096
"""Characters of a path that can be typed, the limit of Linux."""


class PathDialog(LineDialog[ResultT]):
    """Dialog for a path, which is completed; a subclass implements `use`."""

    DEFAULT_CSS = """
    PathDialog #completions {
        height: 1;
        color: $muted;
        text-style: $muted-style;
        text-wrap: nowrap;
        text-overflow: ellipsis;
    }
    """

    def __init__(self, title: str, value: str = "", *, placeholder: str) -> None:
        super().__init__(title, value, placeholder=placeholder, max_length=MAX_PATH_LENGTH)

    def create_fields(self, value: str, *, placeholder: str, max_length: int) -> ComposeResult:
        """Create the input and the line of its completions."""
        yield PathInput(value, placeholder=placeholder, compact=True, max_length=max_length, select_on_focus=False)
        yield Static("", id="completions", markup=False)

    def submit(self, line: str) -> None:
        """Use the path. Its disk can be slow: the dialog can be cancelled, and another path replaces this one."""
        self._use_or_report(line)

    async def use(self, line: str) -> None:
        """Close the dialog with the result for a path.

        Raises:
            LotrError: If the path cannot be used. The dialog shows the error and stays open.
        """
        raise NotImplementedError

    @work(exclusive=True, group="path")
    async def _use_or_report(self, line: str) -> None:
        try:
            await self.use(line)
        except LotrError as error:
            if not is_closed(self):
                self.show_problem(str(error))

    @on(CompletingInput.CompletionsChanged)
    def _show_completions(self, event: CompletingInput.CompletionsChanged) -> None:
        self.query_one("#completions", Static).update(format_completions(event.control))


class OpenTextDialog(PathDialog[tuple[str, str]]):
    """Dialog for the path of a text file; it returns the path and the text, or None if cancelled."""

    KEYS = (("enter", "open", "submit"), ("tab", "complete", ""), ("esc", "cancel", "dismiss(None)"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="open-text.cancel", tooltip="Close without opening a file")
    ]

    def __init__(self) -> None:
        super().__init__("Open a text file", placeholder="path of a text file")

    async def use(self, line: str) -> None:
        """Close the dialog with the path and the text of its file.

        Raises:
            CorpusError: If there is no path, or the file cannot be read as text.
        """
        if not (path := line.strip()):
            raise CorpusError("type the path of a text file, or press esc")
        self.dismiss((path, await run_in_thread(read_text_file, Path(path))))


class ExportDialog(PathDialog[Path]):
    """Dialog for the path of an export, dismissed with the absolute path once the export is written.

    It asks before it replaces a file or creates a folder. After an error it stays open with the typed path.
    """

    KEYS = (("enter", "export", "submit"), ("tab", "complete", ""), ("esc", "cancel", "dismiss(None)"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="export.cancel", tooltip="Close without exporting")
    ]

    def __init__(
        self,
        title: str,
        suggestion: Path,
        check: Callable[[str], ExportTarget],
        write: Callable[[ExportTarget], object],
    ) -> None:
        """Suggest a path. `check` returns the target that a typed path names, and `write` writes it; both in a thread.

        Both raise a LotrError if the path cannot be used.
        """
        super().__init__(title, abbreviate_home(suggestion), placeholder="path of the export")
        self._suggestion = suggestion
        self._check = check
        self._write = write
        self._is_writing = False

    def on_mount(self) -> None:
        """Look for a name that is not taken."""
        self.run_worker(self._suggest_unused_path(), group="suggestion")

    async def _suggest_unused_path(self) -> None:
        path = await run_in_thread(suggest_export_path, self._suggestion.parent, self._suggestion.name)
        if is_closed(self):
            return
        path_input = self.query_one(Input)
        if path_input.value == self._value != abbreviate_home(path):
            path_input.value = abbreviate_home(path)
            path_input.cursor_position = len(path_input.value)

    async def use(self, line: str) -> None:
        """Write the export, or ask first if a file would be replaced or a folder created."""
        if self._is_writing:
            return
        target = await run_in_thread(self._check, line)
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

    def _start_writing(self, target: ExportTarget) -> None:
        self._is_writing = True
        self.show_problem(f"writing {target.path.name} …")
        self.app.run_worker(self._write_and_close(target), group="export")  # outlives the dialog

    async def _write_and_close(self, target: ExportTarget) -> None:
        problem = ""
        try:
            await asyncio.to_thread(_write_target, target, self._write)
        except LotrError as error:
            problem = str(error)
        self._is_writing = False
        if is_closed(self):  # the user did not wait for a slow disk
            self.app.notify(problem or f"Exported to {printable(str(target.path))}", markup=False)
        elif problem:
            self.show_problem(problem)
        else:
            self.dismiss(target.path)


def _write_target(target: ExportTarget, write: Callable[[ExportTarget], object]) -> None:
    try:
        if target.missing_folder is not None:
            target.missing_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"cannot create {target.missing_folder}: {os_error_reason(error)}; choose another folder"
        ) from error
    write(target)


def ask_to_export(
    screen: AppScreen[Any],
    title: str,
    name: str,
    check: Callable[[str], ExportTarget],
    write: Callable[[ExportTarget], object],
    on_exported: Callable[[str], None],
) -> None:
    """Ask for a path and write an export there; `on_exported` gets a message with the full path.

    The suggestion is `name` in the folder of the last export, which the settings keep, or in the current folder.
    `check` and `write` are passed on to `ExportDialog`.
    """

    def exported(path: Path | None) -> None:
        if path is not None:
            if str(path).isprintable():
                screen.app.update_settings(export_folder=str(path.parent))
            on_exported(f"Exported to {printable(str(path))}")

    last_folder = screen.app.settings_store.current.export_folder
    folder = Path(last_folder) if last_folder else current_folder()
    screen.app.push_screen(ExportDialog(title, folder / name, check, write), exported)
