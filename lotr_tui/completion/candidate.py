"""Texts that a shell offers for the word at the cursor."""

from collections.abc import Iterable
from typing import NamedTuple


class Candidate(NamedTuple):
    """A text that can replace the word at the cursor."""

    text: str
    description: str = ""
    is_complete: bool = True
    """False if the word continues, as after a folder; a shell then adds no space."""


class ShellFiles(NamedTuple):
    """Request that the shell completes a path itself, which it can do better where it expands variables."""

    prefix: str = ""
    """Beginning of the word that is not part of the path, such as "gguf:"."""
    extensions: tuple[str, ...] = ()
    only_folders: bool = False


def matching(candidates: Iterable[Candidate], word: str) -> list[Candidate]:
    """Return the candidates that continue `word`, or if none does, the ones that continue the word in another case."""
    every = list(candidates)
    exact = [candidate for candidate in every if candidate.text.startswith(word)]
    folded = word.casefold()
    return exact or [candidate for candidate in every if candidate.text.casefold().startswith(folded)]


def with_prefix(prefix: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates as continuations of `prefix`, such as "--device="."""
    return [candidate._replace(text=prefix + candidate.text) for candidate in candidates]
