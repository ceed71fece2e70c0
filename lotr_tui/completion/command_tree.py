"""Commands, options and values that can be typed, read from the file that `lotr_tui.cli.completion` writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

TREE_FILE = Path(__file__).with_name("commands.json")
"""Description of the command line, written by `python -m lotr_tui.cli.completion`."""


class Value(NamedTuple):
    """Kind of value that an option or an argument takes."""

    kind: str
    """choices, run, model, any_model, search, speaker, cast, setting, file, folder, or "" if it is not completed."""
    choices: Mapping[str, str] = {}
    """Allowed values with their descriptions, for `choices`."""
    extensions: tuple[str, ...] = ()
    """Extensions of the files to prefer, such as ".csv", for `file`; empty for all files."""


class Option(NamedTuple):
    """An option of a command."""

    names: tuple[str, ...]
    help: str
    value: Value | None
    """Value that follows the option; None for a flag."""
    is_repeatable: bool


class Argument(NamedTuple):
    """A positional argument of a command."""

    value: Value
    is_repeatable: bool


class Command(NamedTuple):
    """A command, or a group of commands."""

    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: Mapping[str, Any]
    """Commands of a group by name, as the file describes them."""

    def find_option(self, name: str) -> Option | None:
        """Return the option that has this name, or None."""
        return next((option for option in self.options if name in option.names), None)


class Setting(NamedTuple):
    """A setting that `--set` changes."""

    help: str
    choices: tuple[str, ...]
    """Allowed values; empty for a number or a text."""


class CommandTree(NamedTuple):
    """Everything that completion knows about the program without running it."""

    root: Command
    settings: Mapping[str, Setting]
    run_names: Mapping[str, str]
    """Names that stand for a run, with their descriptions: first "latest", and then models that are no runs."""
    bundled_folders: Mapping[str, str]
    """Folders of the bundled models in the assets, by their names."""
    run_files: Mapping[str, str]
    """Names of files and folders in a run directory: config, cast, search, epochs."""


def read_command_tree() -> CommandTree:
    """Read the description of the command line."""
    content = json.loads(TREE_FILE.read_bytes())
    settings = {name: Setting(row["help"], tuple(row["choices"])) for name, row in content["settings"].items()}
    root = read_command(content["root"])
    return CommandTree(root, settings, content["run_names"], content["bundled_folders"], content["run_files"])


def read_command(row: Mapping[str, Any]) -> Command:
    """Return one command from its description in the file, without reading the commands below it."""
    options = (
        Option(tuple(option["names"]), option["help"], _read_value(option["value"]), option["repeatable"])
        for option in row["options"]
    )
    arguments = (
        Argument(_read_value(argument["value"]) or Value(""), argument["repeatable"]) for argument in row["arguments"]
    )
    return Command(tuple(options), tuple(arguments), row["commands"])


def _read_value(row: Mapping[str, Any] | None) -> Value | None:
    if row is None:
        return None
    return Value(row["kind"], row.get("choices", {}), tuple(row.get("extensions", ())))
