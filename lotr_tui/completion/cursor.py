"""Kind of word at the cursor: an option, the value of an option, a command or an argument."""

from collections.abc import Sequence
from typing import NamedTuple

from lotr_tui.completion.command_tree import Command, CommandTree, Option, Value, read_command


class TypedOptions(NamedTuple):
    """Values of options that decide about the values of others, from the whole line."""

    runs_dir: str | None
    """Value of `--runs-dir`; None if it is not given."""
    run: str | None
    """Last value of `--run`; None if it is not given."""


class Cursor(NamedTuple):
    """Place in a command line where a word is typed."""

    command: Command
    word: str
    """Text to complete; of "--device=c" only the value."""
    prefix: str
    """Beginning of the typed word that is not completed, such as "--device="."""
    value: Value | None
    """Value of an option or an argument that is typed here; None for a command or an option."""
    offers_options: bool
    offers_commands: bool
    used_options: frozenset[str]
    """Names of options that are typed already."""
    typed: TypedOptions


def find_cursor(tree: CommandTree, words: Sequence[str], current: str, following: Sequence[str] = ()) -> Cursor | None:
    """Return the place of the word at the cursor, or None after an unknown command.

    Args:
        tree: Description of the command line.
        words: Words before the cursor, after the name of the program.
        current: Word at the cursor, up to the cursor.
        following: Words after the cursor.
    """
    command, used = tree.root, set[str]()
    pending: Option | None = None
    has_ended, num_arguments = False, 0
    for word in words:
        if pending:
            pending = None
        elif word == "--" and not has_ended:
            has_ended = True
        elif word.startswith("-") and word != "-" and not has_ended:
            name, equals, _ = word.partition("=")
            option = command.find_option(name)
            used.update(option.names if option else [name])
            pending = option if option and option.value and not equals else None
        elif command.commands:
            if word not in command.commands:
                return None
            command, used, num_arguments = read_command(command.commands[word]), set(), 0
        else:
            num_arguments += 1
    typed = TypedOptions(*(_find_value([*words, *following], name) for name in ("--runs-dir", "--run")))
    prefix, value = "", None
    offers_options = offers_commands = False
    if pending:
        value = pending.value
    elif not has_ended and current.startswith("--") and "=" in current:
        name, _, current = current.partition("=")
        option = command.find_option(name)
        prefix, value = f"{name}=", (option.value if option else None) or Value("")
    elif not has_ended and current.startswith("-") and current != "-":
        offers_options = True
    elif command.commands:
        offers_commands = True
    elif arguments := command.arguments:
        argument = arguments[min(num_arguments, len(arguments) - 1)]
        value = argument.value if num_arguments < len(arguments) or argument.is_repeatable else Value("")
    has_nothing_else = not current and not offers_commands and not (value and value.kind)
    if not has_ended and not prefix and not pending and (current == "-" or has_nothing_else):
        offers_options = True
    used.update(word.partition("=")[0] for word in following)
    return Cursor(command, current, prefix, value, offers_options, offers_commands, frozenset(used), typed)


def _find_value(words: Sequence[str], name: str) -> str | None:
    """Return the last value of an option in a list of words, or None if it has none."""
    found = None
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            found = words[index + 1]
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found
