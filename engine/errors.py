"""Errors a user can act on. Each is one printable line that names the thing, its value and the remedy."""

import difflib
import unicodedata
from collections.abc import Iterable


def printable(text: str) -> str:
    """Return `text` as one line without control characters, so that it can be shown in any terminal."""
    spaced = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNPRINTABLE else c for c in spaced)


# Controls, formatting marks (they can reverse the text around them), lone surrogates, unassigned.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Cn", "Co"}


def nearest(name: str, names: Iterable[str]) -> str:
    """End a sentence with "; did you mean X?" for the name closest to `name`, or with a full stop."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else "."


MOST_SAID = 2_000
"""Characters of an error; one that names a value of a stranger's file could be as long as that."""


class LotrError(Exception):
    """Something failed while running (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        if len(message) > MOST_SAID:  # its beginning says what it is about, its end what to do
            message = f"{message[: 3 * MOST_SAID // 4 - 3]} … {message[-MOST_SAID // 4 :]}"
        super().__init__(printable(message))


def reason_of(failure: BaseException) -> str:
    """Why something broke, as one printable line; of an error that is none of ours its kind too."""
    return str(failure) if isinstance(failure, LotrError) else printable(f"{type(failure).__name__}: {failure}")


class UnusableInput(LotrError):
    """What was asked for cannot be used: wrong option, file or value (exit code 2)."""

    exit_code = 2


class CorpusError(UnusableInput):
    """The text cannot be read, or is too small to learn from."""


class ConfigError(UnusableInput):
    """An unknown preset or field, or a value outside its range."""


class PromptError(UnusableInput):
    """A prompt the model cannot read."""


class RunError(UnusableInput):
    """A run that does not exist, cannot be written, or holds damaged files."""


class TrainingError(LotrError):
    """Training went wrong."""
