"""Input line with completion, for paths and for the settings of a training."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

from textual import work
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestionReady

from engine.config import Config, describe_settings
from lotr_tui.background_task import run_in_thread
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.line_input import LineInput

MAX_FOLDER_ENTRIES = 5_000
"""Entries of a folder that are read for completion."""
COMPLETION_TIMEOUT = 0.5
"""Seconds that the tab key waits for completions, which a network disk may delay, before it leaves the field."""


class CompletingInput(LineInput):
    """Input that shows a completion as ghost text; a subclass implements `find_completions`.

    The tab key takes the completion. Without one it moves to the next field.
    """

    BINDING_GROUP_TITLE = "Completion"
    SEPARATOR: ClassVar[str]
    """Character before the part of the text that is completed."""
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "completion",
        """
        accept   | tab  | accept_completion   | complete | Take the completion, or go to the next field
        next     | down | cycle_completion(1)  | next     | Show the next completion
        previous | up   | cycle_completion(-1) | previous | Show the previous completion
        """,
    )

    class CompletionsChanged(Message):
        """Posted when the completions of the text, or the selected one, have changed."""

        def __init__(self, completing_input: "CompletingInput") -> None:
            super().__init__()
            self.input = completing_input
            """The input with the new completions."""

        @property
        def control(self) -> "CompletingInput":
            """The input, for the selectors of `textual.on`."""
            return self.input

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Create the input with the arguments of `LineInput`."""
        super().__init__(*args, **kwargs)
        self.completions: Sequence[str] = ()
        """Whole texts that the typed text can become, the best first."""
        self.completion_index = 0
        """Index of the completion that is shown."""

    async def find_completions(self, text: str) -> list[str]:
        """Return the texts that begin with `text`, without regard to case."""
        raise NotImplementedError

    def watch_value(self, text: str) -> None:
        """Look for the completions of a changed text; an older search is abandoned."""
        self._show_completions([])
        self._complete(text)

    def action_accept_completion(self) -> None:
        """Take the completion that is shown, or focus the next field if there is none."""
        self._accept_completion(self.value)

    def action_cycle_completion(self, offset: int) -> None:
        """Show another completion."""
        if self.completions:
            self.completion_index = (self.completion_index + offset) % len(self.completions)
            self._show_completion()

    @work(exclusive=True, group="completions")
    async def _accept_completion(self, text: str) -> None:
        if text and not self.completions:
            with suppress(asyncio.TimeoutError):
                self._show_completions(await asyncio.wait_for(self.find_completions(text), COMPLETION_TIMEOUT))
        if self.completions and self.value == text:
            self.value = self.completions[self.completion_index]
            self.cursor_position = len(self.value)
        elif self.has_focus:
            self.screen.focus_next()

    @work(exclusive=True, group="completions")
    async def _complete(self, text: str) -> None:
        completions = await self.find_completions(text) if text else []
        if self.value == text:
            self._show_completions(completions)

    def _show_completions(self, completions: Sequence[str]) -> None:
        self.completions, self.completion_index = completions, 0
        self._show_completion()

    def _show_completion(self) -> None:
        if self.completions:
            self.post_message(SuggestionReady(self.value, self.completions[self.completion_index]))
        self.post_message(self.CompletionsChanged(self))


def format_completions(completing_input: CompletingInput) -> Content:
    """Return the last parts of several completions in one line, from the shown one on; "" for a single one."""
    completions, index = completing_input.completions, completing_input.completion_index
    if len(completions) < 2:
        return Content("")
    separator = completing_input.SEPARATOR
    names = [f"{text[:-1].rpartition(separator)[2]}{text[-1]}" for text in (*completions[index:], *completions[:index])]
    return Content.assemble((names[0], "bold"), "  ", "  ".join(names[1:]))


class PathInput(CompletingInput):
    """Input for a path, completed with the names in its folder. Hidden names are completed after a full stop."""

    SEPARATOR = "/"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Create the input with the arguments of `LineInput`."""
        super().__init__(*args, **kwargs)
        self._folder = ""
        self._names: asyncio.Task[list[str]] | None = None
        """Reading of the names in `_folder`, which happens once per folder."""

    async def find_completions(self, text: str) -> list[str]:
        """Return the paths that a typed path can become, folders with a slash at the end."""
        if text == "~":
            return ["~/"]
        head, slash, prefix = text.rpartition("/")
        if self._names is None or self._folder != head + slash:
            self._folder = head + slash
            self._names = asyncio.create_task(run_in_thread(list_names, self._folder))
        names = await asyncio.shield(self._names)
        return [head + slash + name for name in match_names(names, prefix)]


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


def match_names(names: Sequence[str], prefix: str) -> list[str]:
    """Return the longer names that begin with `prefix`; none if `prefix` is the name of a file."""
    if prefix in names:
        return []
    matches = [name for name in names if name.casefold().startswith(prefix.casefold()) and len(name) > len(prefix)]
    return matches if prefix.startswith(".") else [name for name in matches if not name.startswith(".")]


class SettingsInput(CompletingInput):
    """Input for settings of a training, written as `lr=0.01 epochs=20`; names and fixed values are completed."""

    SEPARATOR = " "

    async def find_completions(self, text: str) -> list[str]:
        """Return the text with its last word completed."""
        head, space, word = text.rpartition(" ")
        name, equals, _ = word.partition("=")
        if equals:
            choices = [f"{name}={choice}" for choice in setting_choices(name)]
        else:
            choices = [f"{setting}=" for setting in describe_settings()]
        if not word or word in choices:
            return []
        return [head + space + choice for choice in choices if choice.startswith(word.casefold())]

    @property
    def setting(self) -> str:
        """Name of the setting that is typed, completed if a completion is shown; "" if none is."""
        text = self.completions[self.completion_index] if self.completions else self.value
        name = text.rpartition(" ")[2].partition("=")[0]
        return name if name in describe_settings() else ""


def setting_choices(name: str) -> Sequence[str]:
    """Return the values of a setting with fixed values, and none for a number or a text."""
    if name not in describe_settings():
        return ()
    section, _ = describe_settings()[name]
    value_type = get_type_hints(type(getattr(Config(), section)))[name]
    return ("true", "false") if value_type is bool else tuple(map(str, get_args(value_type)))
