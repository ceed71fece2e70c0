"""Answer to a shell that asks what can be typed at the cursor."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from lotr_tui.completion.bash_line import parse_line, quote_text, replaced_start
from lotr_tui.completion.candidate import Candidate, ShellFiles
from lotr_tui.completion.command_tree import read_command_tree
from lotr_tui.completion.cursor import find_cursor
from lotr_tui.completion.values import Completer

SHELL_COMPLETES = 3
"""Exit code that asks bash or fish to complete a path itself, because the word has variables in it."""
MAX_ARGUMENTS = 10_000


def answer_shell(arguments: Sequence[str]) -> int:
    """Print the candidates for the word at the cursor, one per line, and return the exit code.

    Nothing else is printed, whatever happens: a message would appear in the middle of the line that is typed.

    Args:
        arguments: "bash", the line up to the cursor and `COMP_WORDBREAKS`; or "zsh" or "fish", the number of words
            before the cursor, and the words of the line without the program.
    """
    with suppress(Exception):
        if arguments[0] == "bash":
            lines, exit_code = complete_in_bash(arguments[1], arguments[2])
        elif arguments[0] == "zsh":
            lines, exit_code = complete_in_zsh(int(arguments[1]), arguments[2:MAX_ARGUMENTS]), 0
        else:
            lines, exit_code = complete_in_fish(int(arguments[1]), arguments[2:MAX_ARGUMENTS])
        output = b"".join(map(_encode_line, lines))
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), output)
        return exit_code
    return 1


def complete_in_bash(text: str, word_breaks: str) -> tuple[list[str], int]:
    """Return the texts that readline inserts in place of the last part of the word, and the exit code."""
    line = parse_line(text)
    if line.has_expansion or (line.current.value.startswith("~") and "/" not in line.current.value):
        return [], SHELL_COMPLETES
    quote, start = line.current.quote, replaced_start(line, word_breaks)
    kept = parse_line(text[line.current.start : line.current.quote_start if quote else start]).current.value
    candidates = _complete(line.words[1:], line.current.value, groups=True)
    assert not isinstance(candidates, ShellFiles)
    at_start = start == line.current.start
    return [
        quote_text(candidate.text[len(kept) :], quote, at_start=at_start)
        + (" " if candidate.is_complete and not quote else "")
        for candidate in candidates
    ], 0


def complete_in_zsh(num_before: int, words: Sequence[str]) -> list[str]:
    """Return lines for the function in zsh.

    `c` and `p` are followed by a complete or a partial word and its description, as `_describe` takes them; `f` by the
    length of the beginning of the word that is no path, and the arguments of `_files`.
    """
    answer = _complete(words[:num_before], _current(words, num_before), words[num_before + 1 :], for_zsh=True)
    if isinstance(answer, ShellFiles):
        endings = "|".join(extension.removeprefix(".") for extension in answer.extensions)
        pattern = "-/" if answer.only_folders else f"-g *.({endings})(-.)" if endings else ""
        return [f"f{len(answer.prefix)} {pattern}"]
    return [
        ("c" if candidate.is_complete else "p")
        + _escape_colons(candidate.text)
        + (f":{candidate.description}" if candidate.description else "")
        for candidate in answer
    ]


def complete_in_fish(num_before: int, words: Sequence[str]) -> tuple[list[str], int]:
    """Return lines for fish: each a word, a tab and a description. The word at the cursor is given as it is typed."""
    line = parse_line(_current(words, num_before))
    if line.has_expansion or (line.current.value.startswith("~") and "/" not in line.current.value):
        return [], SHELL_COMPLETES
    answer = _complete(words[:num_before], line.current.value, words[num_before + 1 :])
    assert not isinstance(answer, ShellFiles)
    return [f"{candidate.text}\t{candidate.description}" for candidate in answer], 0


def _complete(
    words: Sequence[str], current: str, following: Sequence[str] = (), *, groups: bool = False, for_zsh: bool = False
) -> list[Candidate] | ShellFiles:
    tree = read_command_tree()
    cursor = find_cursor(tree, words, current, following)
    if cursor is None:
        return []
    return Completer(tree, shell_completes_files=for_zsh, groups=groups or for_zsh).complete(cursor)


def _current(words: Sequence[str], index: int) -> str:
    return words[index] if index < len(words) else ""


def _escape_colons(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _encode_line(line: str) -> bytes:
    """Return a line in the encoding of the shell; a line that cannot be encoded, or would break, becomes empty."""
    try:
        return f"{line}\n".encode(sys.getfilesystemencoding()) if "\n" not in line else b""
    except UnicodeEncodeError:
        return b""
