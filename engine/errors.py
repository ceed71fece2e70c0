"""Errors that a user can act on: one printable line that names the problem, the value and the remedy."""

import shlex
import unicodedata
from collections.abc import Iterable, Sequence

MAX_MESSAGE_LENGTH = 2_000  # maximum characters of an error message, which may quote a value from a file

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Cn", "Co"}  # controls, marks that can reverse the text, surrogates, unassigned
# Packages that lotr-tui requires, of which an installation may lack some. Each is imported by its own name.
_DEPENDENCIES = (
    "gguf", "jinja2", "msgspec", "numkong", "numpy", "pandas", "platformdirs", "psutil", "rich", "safetensors",
    "textual", "tokenizers", "torch", "typer",
)  # fmt: skip


def printable(text: str) -> str:
    """Return `text` as one line without control characters, which any terminal can display."""
    line = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNPRINTABLE else c for c in line)


def shell_word(name: str) -> str:
    """Return `name` as one printable word of a shell command, quoted where it needs quotes."""
    return shlex.quote(printable(name))


def suggest_nearest(name: str, names: Iterable[str], cutoff: float = 0.65) -> str:
    """Return the end of a sentence: "; did you mean X?" with the closest of `names`, or "." if none is close.

    A name that begins with `name` is closest.
    """
    import difflib

    known = list(names)
    matches = [each for each in known if name and each.startswith(name)]
    matches = matches or difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {matches[0]}?" if matches else "."


def install_command(extra: str) -> str:
    """Return the command that installs an extra of lotr-tui from where lotr-tui itself came, such as a checkout."""
    import json
    from importlib import metadata
    from pathlib import Path
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:  # https://packaging.python.org/en/latest/specifications/direct-url/
        origin = metadata.distribution("lotr-tui").read_text("direct_url.json") or "{}"
        address = urlsplit(json.loads(origin).get("url"))
        source = url2pathname(address.path) if address.scheme == "file" else "lotr-tui"
    except metadata.PackageNotFoundError:
        source = str(Path(__file__).parents[1])
    return f"pip install {shlex.quote(f'{source}[{extra}]')}"


class LotrError(Exception):
    """Base class of errors that are shown to the user; something failed while running (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        """Store `message` as one printable line, shortened in the middle if it is too long."""
        if len(message) > MAX_MESSAGE_LENGTH:  # the start names the problem, the end the remedy
            message = f"{message[: 3 * MAX_MESSAGE_LENGTH // 4 - 3]} … {message[-MAX_MESSAGE_LENGTH // 4 :]}"
        super().__init__(printable(message))


def describe_error(error: BaseException) -> str:
    """Return the error as one printable line, with the exception type unless it is a `LotrError`."""
    if isinstance(error, ModuleNotFoundError) and error.name in _DEPENDENCIES:
        return f"the package {error.name} is not installed; pip install {error.name}"
    return str(error) if isinstance(error, LotrError) else printable(f"{type(error).__name__}: {error}")


class InvalidInputError(LotrError):
    """Error in an option, a file or a value that the user provided (exit code 2)."""

    exit_code = 2


class CorpusError(InvalidInputError):
    """Error for a text that cannot be read, or is too small to train on."""


class ColumnError(CorpusError):
    """Error for a table of which several columns, or none, may have the texts or the speakers."""

    def __init__(self, message: str, setting: str, answers: Sequence[tuple[str, str]]) -> None:
        """Keep the setting that would choose a column, and each column as it is shown, and its name."""
        super().__init__(message)
        self.setting = setting
        self.answers = answers
        self.question = f"Which is the {setting.replace('_', ' ')}?"


class ConfigError(InvalidInputError):
    """Error for an unknown preset or setting, or a value out of range."""


class PromptError(InvalidInputError):
    """Error for a prompt that the model cannot read."""


class RunError(InvalidInputError):
    """Error for a run that does not exist, cannot be written, or has damaged files."""


class TrainingError(LotrError):
    """Error for a training that failed."""


class OutputError(LotrError):
    """Error for a standard output that cannot be written; a closed pipe is a `BrokenPipeError` instead."""
