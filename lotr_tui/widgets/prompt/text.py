"""Removal of control characters from typed and pasted text."""

import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]"
)
_LINE_BREAK = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_JOINERS = "\u200c\u200d"
"""Zero-width joiners, which Persian, Hindi and some emoji need."""
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Cn", "Co"}
"""Unicode categories of controls, formatting marks, lone surrogates, unassigned and private characters."""


def sanitize_prompt(text: str) -> tuple[str, int]:
    """Return the text without escape sequences and control characters, and the number of both that were removed.

    Line breaks become newlines and tabs become spaces. If the text has more than one character, newlines at its end
    are removed.
    """
    text, removed = _ESCAPE_SEQUENCE.subn("", text)
    text = _LINE_BREAK.sub("\n", text).replace("\t", " ")
    if len(text) > 1:
        text = text.rstrip("\n")
    kept = text if text.isprintable() else "".join(c for c in text if c == "\n" or _is_displayable(c))
    return kept, removed + len(text) - len(kept)


def _is_displayable(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _HIDDEN_CATEGORIES
