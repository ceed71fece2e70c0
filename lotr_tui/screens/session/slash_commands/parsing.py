"""Recognition and completion of slash commands in the text of a prompt."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.errors import InvalidInputError, printable, suggest_nearest
from lotr_tui.screens.session.slash_commands.table import SLASH_COMMANDS, SlashCommand
from lotr_tui.widgets.prompt.completion import Completion

CAST_COMMANDS = ("as", "to", "again", "scene")
"""Commands whose argument is a name in the cast, in any case."""
ArgumentChoices = Callable[[SlashCommand], Sequence[str]]
"""Function that returns the values that are offered for the argument of a command."""


class CommandLine(NamedTuple):
    """Command and its argument, as they were typed."""

    command: SlashCommand
    argument: str
    """Typed argument; empty if there is none."""


def is_command(text: str) -> bool:
    """Return True if a typed text is a command and not a prompt; a second slash makes it a prompt."""
    return text.startswith("/") and not text.startswith("//")


def unescape_prompt(text: str) -> str:
    """Return a typed prompt without the slash that says that it is no command."""
    return text[1:] if text.startswith("//") else text


def parse_command(text: str) -> CommandLine:
    """Parse a typed command.

    Raises:
        InvalidInputError: If there is no such command, or its argument is missing or not expected.
    """
    name, _, argument = text.removeprefix("/").strip().partition(" ")
    argument = argument.strip()
    command = SLASH_COMMANDS.get(name.lower())
    if command is None:
        nearest = suggest_nearest(f"/{name}", [f"/{other}" for other in SLASH_COMMANDS])
        raise InvalidInputError(f"/{printable(name)} is not a command{nearest} Begin with // to send it as text.")
    if argument and not command.argument:
        raise InvalidInputError(f"/{command.name} takes no argument")
    if not argument and not command.action:
        raise InvalidInputError(f"type {command.usage}: {command.help}")
    return CommandLine(command, argument)


def matching_commands(text: str) -> list[SlashCommand]:
    """Return the commands that a typed text may become; only one once its argument is being typed."""
    name, space, _ = text.removeprefix("/").partition(" ")
    if space:
        return [SLASH_COMMANDS[name.lower()]] if name.lower() in SLASH_COMMANDS else []
    commands = [command for command in SLASH_COMMANDS.values() if command.name.startswith(name.lower())]
    return sorted(commands, key=lambda command: command.name != name.lower())  # /mode before /model


def complete_command(text: str, choices: ArgumentChoices) -> Completion:
    """Return the rest of the first command, or of its first argument, that begins with a typed text, and a hint."""
    commands = matching_commands(text)
    if not commands:
        return Completion(hint="No such command; begin with // to send it as text")
    first = commands[0]
    name, space, argument = text.removeprefix("/").partition(" ")
    if space:
        rest = _complete_argument(first, argument, choices(first)) if argument else ""
        return Completion(rest, f"{first.usage}   {first.help}")
    rest = first.name[len(name) :] if name else ""
    if rest and first.argument:
        rest += " "
    if len(commands) == 1:
        return Completion(rest, f"{first.usage}   {first.help}")
    return Completion(rest, "Tab completes the command; esc clears it")


def _complete_argument(command: SlashCommand, argument: str, values: Sequence[str]) -> str:
    """Return the rest of the first value that begins with a typed argument, or with the last name of several."""
    typed = argument.replace(",", " ").rpartition(" ")[2] if command.name == "scene" else argument
    ignores_case = command.name in CAST_COMMANDS
    for value in values:
        beginning = value[: len(typed)]
        is_match = beginning.casefold() == typed.casefold() if ignores_case else beginning == typed
        if typed and is_match and len(value) > len(typed):
            return value[len(typed) :]
    return ""
