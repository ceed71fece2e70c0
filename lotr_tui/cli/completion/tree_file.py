"""Description of the command line for completion: all commands and options, and the values of those with fixed ones."""

import json
import re
from typing import Any, Literal, get_args, get_origin

import typer.main

from engine.config import BASE, BUNDLED, LSTM, describe_settings
from engine.data.tokenizers.loading import CAST_FILE
from engine.models.pretrained.names import SMOLLM2
from engine.presets import PRESETS
from engine.runs.directory import BUNDLED_FOLDERS, CONFIG_FILE, EPOCHS_DIR, IMPORT_FILE, LATEST_RUN
from engine.training.ablation import ADDITIONS, FINE_TUNING_ADDITIONS, REMOVALS
from engine.training.search.search import SEARCH_FILE
from lotr_tui.completion.shell_scripts import SHELLS
from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.screens.dialogs.completing_input import setting_choices
from lotr_tui.theme import theme_names

MAX_HELP_LENGTH = 90
"""Maximum characters of a description beside a candidate."""
MAX_LINE_LENGTH = 180
"""Maximum characters of a line of the file, unless a single text is longer."""
KINDS_BY_NAME = {
    ("search", "--resume"): "search",
    ("", "--set"): "setting",
    ("", "--as"): "speaker",
    ("", "--to"): "speaker",
    ("", "--cast"): "cast",
    ("", "--init"): "model",
}
"""Kinds of the values of single options: of one command, or of all commands that have the option."""
KINDS_BY_METAVAR = {"RUN": "run", "OLD": "run", "FILE": "file", "DIR": "folder"}
EXTENSIONS = {"--csv": [".csv", ".tsv"], "--text": [".txt"], "--ptb": [".txt"]}
FREE_METAVARS = ("N", "X", "HOST", "NAME", "NEW", "TAG", "PROMPT", "TEXT", "[TEXT|-]", "URL", "N,N,...", "W,W,...")
"""Placeholders of values that nothing can be offered for."""


def describe_program() -> str:
    """Return the content of `commands.json`, mostly with one line per option, so that a change of it can be read."""
    from lotr_tui.cli.main import cli  # imports this module's package for the command `completion`

    content = {
        "settings": {
            name: {"help": _shorten(help), "choices": list(setting_choices(name))}
            for name, (_, help) in describe_settings().items()
        },
        "run_names": {
            LATEST_RUN: "the run that was started last",
            BUNDLED: "SmolLM2 with an adapter of the bundled dialogues",
            LSTM: "a small LSTM of the same dialogues, included",
            BASE: "the pre-trained LSTM, included",
            SMOLLM2: "SmolLM2 as it is; `lotr-tui fetch smollm2` brings it",
        },
        "bundled_folders": BUNDLED_FOLDERS,
        "run_files": {
            "config": CONFIG_FILE,
            "imported": IMPORT_FILE,
            "cast": CAST_FILE,
            "search": SEARCH_FILE,
            "epochs": EPOCHS_DIR,
        },
        "root": _describe_command(typer.main.get_command(cli), ""),
    }
    return _format_json(content, "") + "\n"


def _describe_command(command: Any, name: str) -> dict[str, Any]:
    context = typer.Context(command, info_name=name)
    params = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    subcommands = getattr(command, "commands", {}).items()
    return {
        "help": _shorten(command.help or ""),
        "options": [_describe_option(param, name) for param in params if param.param_type_name == "option"],
        "arguments": [
            {"value": _describe_value(param, name), "repeatable": param.nargs != 1}
            for param in params
            if param.param_type_name == "argument"
        ],
        "commands": {key: _describe_command(each, key) for key, each in subcommands if not each.hidden},
    }


def _describe_option(option: Any, command: str) -> dict[str, Any]:
    return {
        "names": sorted([*option.opts, *option.secondary_opts], key=len, reverse=True),
        "help": _shorten(option.help or ""),
        "value": None if option.is_flag else _describe_value(option, command),
        "repeatable": option.multiple,
    }


def _describe_value(param: Any, command: str) -> dict[str, Any]:
    """Return the kind of value of an option or argument, by its type, its name and its placeholder."""
    name = max(param.opts, key=len)
    if choices := _fixed_choices(param) or _named_choices(name, param.metavar):
        return {"kind": "choices", "choices": choices}
    kind = KINDS_BY_NAME.get((command, name)) or KINDS_BY_NAME.get(("", name))
    kind = kind or KINDS_BY_METAVAR.get(param.metavar, "")
    if kind == "run" and "@EPOCH" in (param.help or ""):
        kind = "model"
    if kind in ("run", "model") and "gguf:" in (param.help or ""):
        kind = "any_model"
    return {"kind": kind, **({"extensions": EXTENSIONS[name]} if kind == "file" and name in EXTENSIONS else {})}


def _fixed_choices(param: Any) -> dict[str, str]:
    """Return the values of a parameter whose type is a `Literal`; releases of Typer store the type in two ways."""
    descriptor = getattr(param, "type_descriptor", None)
    if descriptor is None:
        return dict.fromkeys(map(str, getattr(param.type, "choices", ())), "")
    return dict.fromkeys(map(str, _literal_values(descriptor.annotation)), "")


def _literal_values(annotation: Any) -> list[Any]:
    """Return the values of the `Literal` in a type such as `list[Literal["a", "b"]] | None`; [] without one."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in _literal_values(part)]


def _named_choices(name: str, metavar: str | None) -> dict[str, str]:
    """Return the values of a parameter that takes one of several names, with their descriptions."""
    if name == "--preset":
        return dict.fromkeys(PRESETS, "")
    if name == "--theme":
        return dict.fromkeys(theme_names(), "")
    if metavar == "VARIANT":
        removed = [f"without {technique}" for technique in REMOVALS]
        return dict.fromkeys([*removed, *(f"with {name}" for name in [*ADDITIONS, *FINE_TUNING_ADDITIONS])], "")
    if metavar == "CHAPTER":
        return {chapter.name: chapter.title for chapter in CHAPTERS}
    if metavar == "SHELL":
        return dict.fromkeys(SHELLS, "")
    if metavar and re.fullmatch(r"\w+(\|\w+)+", metavar):  # such as line|stream
        return dict.fromkeys(metavar.split("|"), "")
    return {}


def _shorten(text: str) -> str:
    """Return the first sentence of a description, on one line."""
    line = " ".join(text.split())
    sentence = line.partition(". ")[0].removesuffix(".")
    return sentence if len(sentence) <= MAX_HELP_LENGTH else f"{sentence[: MAX_HELP_LENGTH - 1].rstrip()}…"


def _format_json(value: Any, indent: str) -> str:
    """Return JSON in which an object or a list is on one line if it fits there."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= MAX_LINE_LENGTH or not isinstance(value, (dict, list)):
        return line
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_format_json(each, inner)}" for key, each in value.items()]
    else:
        items = [_format_json(each, inner) for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"
