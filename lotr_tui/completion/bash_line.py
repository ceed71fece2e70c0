"""Words of a line that is being typed in bash, and quoting of the inserted text."""

from typing import NamedTuple

UNCERTAIN = "$`"
"""Characters that bash expands, so that the value of a word is not known here."""
_SPECIAL = frozenset(" \t\"'\\$`!&;|<>()*?[]{}")
_SEPARATORS = " \t\n"


class TypedWord(NamedTuple):
    """A word of a command line."""

    value: str
    """Text without quotes and backslashes."""
    start: int
    """Index of its first character in the line."""
    quote: str = ""
    """Quotation mark that is still open at its end, or ""."""
    quote_start: int = 0
    """Index of the open quotation mark in the line."""


class BashLine(NamedTuple):
    """The part of a command line before the cursor."""

    text: str
    words: tuple[str, ...]
    """Words before the cursor, without the word at the cursor."""
    current: TypedWord
    """Word at the cursor; empty after a space."""

    @property
    def has_expansion(self) -> bool:
        """True if bash would replace a part of the word at the cursor, such as $HOME."""
        return self.current.quote != "'" and any(mark in self.text[self.current.start :] for mark in UNCERTAIN)


def parse_line(text: str) -> BashLine:
    """Split the text before the cursor as a shell does. A quotation mark may be open at its end."""
    words: list[TypedWord] = []
    index = end = 0
    while index < len(text):
        if text[index] in _SEPARATORS:
            index += 1
            continue
        word, index = _read_word(text, index)
        words.append(word)
        end = index
    current = words.pop() if words and end == len(text) else TypedWord("", len(text))
    return BashLine(text, tuple(word.value for word in words), current)


def _read_word(text: str, start: int) -> tuple[TypedWord, int]:
    """Return the word that begins at `start`, and the index of the character after the word."""
    value: list[str] = []
    quote, quote_start, index = "", 0, start
    while index < len(text):
        character = text[index]
        following = text[index + 1 : index + 2]
        if quote:
            if character == quote:
                quote = ""
            elif character == "\\" and quote == '"' and following and following in '\\"$`':
                value.append(following)
                index += 1
            else:
                value.append(character)
        elif character in _SEPARATORS:
            break
        elif character in "\"'":
            quote, quote_start = character, index
        elif character == "\\":
            value.append(following)
            index += 1
        else:
            value.append(character)
        index += 1
    return TypedWord("".join(value), start, quote, quote_start), min(index, len(text))


def replaced_start(line: BashLine, word_breaks: str) -> int:
    """Return where the text begins that readline replaces.

    It follows the open quotation mark, or else the last character of `word_breaks` (`COMP_WORDBREAKS`) in the word that
    is neither in quotes nor behind a backslash.
    """
    word, text = line.current, line.text
    if word.quote:
        return word.quote_start + 1
    start, index, quote = word.start, word.start, ""
    while index < len(text):
        character = text[index]
        if quote:
            quote = "" if character == quote else quote
        elif character == "\\":
            index += 1
        elif character in "\"'":
            quote = character
        elif character in word_breaks:
            start = index + 1
        index += 1
    return start


def quote_text(text: str, quote: str, *, at_start: bool) -> str:
    """Return `text` as it is typed after an open quotation mark, or with backslashes where no quote is open.

    A tilde and a number sign are special at the start of a word only. A tilde there belongs to a path and is kept.
    """
    if quote == "'":
        return text.replace("'", "'\\''")
    if quote:
        return "".join(f"\\{character}" if character in '"\\$`' else character for character in text)
    escaped = "".join(f"\\{character}" if character in _SPECIAL else character for character in text)
    return f"\\{escaped}" if at_start and escaped.startswith("#") else escaped
