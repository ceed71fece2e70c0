"""The command-line parser: help texts, number options, and the words of its errors."""

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from engine.errors import InvalidInputError, suggest_nearest
from lotr_tui.completion.values import with_completion

MAX_HELP_WIDTH = 100
"""Widest help text in cells; longer lines are hard to read."""
MAX_TERM_WIDTH = 30
"""Widest first column of a help text in cells."""
SIMILARITY = 0.7
"""Minimum similarity of a suggested command or option, as difflib measures it."""
OTHER_WORDS = {"help": "--help", "version": "--version"}
"""Options that people try as commands."""


class _CommandMixin:
    """Help text in our own form, and errors that know their command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text."""
        formatter.write(_render_help(self, ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command; an error of the parser gets the context, which may be missing."""
        try:
            parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise
        return parsed


class Command(_CommandMixin, TyperCommand):
    """Command with its own help text and errors."""


class CommandGroup(_CommandMixin, TyperGroup):
    """Group of commands with its own help text and errors, and suggestions for an unknown command.

    Options before a command are passed on to it, which refuses those that it does not have.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options of the group."""
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that `args` names, and its arguments; an unknown one raises an InvalidInputError."""
        if args[0] not in self.commands:
            raise InvalidInputError(_describe_unknown_command(args[0], self.commands, ctx.command_path))
        before = ctx.meta["arguments"][: -len(args)]
        options = before[:-1] if before[-1:] == ["--"] else before
        return super().resolve_command(ctx, [args[0], *options, *args[1:]])


def int_option(*names: str, help: str, minimum: int | None = None, maximum: int | None = None, **options: Any) -> Any:
    """Return an option for a whole number with an inclusive range; the engine checks a range that is left out."""
    allowed = "" if minimum is None else f" from {minimum}" + ("" if maximum is None else f" to {maximum:,}")

    def parse(text: object) -> int:
        with suppress(ValueError):
            number = int(str(text))
            if (minimum is None or number >= minimum) and (maximum is None or number <= maximum):
                return number
        raise InvalidInputError(f"{names[-1]} {text} is not a whole number{allowed}")

    return typer.Option(*names, metavar="N", parser=parse, help=help, **options)


def float_option(*names: str, help: str, **options: Any) -> Any:
    """Return an option for a number, whose range the engine checks."""

    def parse(text: object) -> float:
        try:
            return float(str(text))
        except ValueError:
            raise InvalidInputError(f"{names[-1]} {text} is not a number") from None

    return typer.Option(*names, metavar="X", parser=parse, help=help, **options)


def add_command(group: typer.Typer, name: str, *examples: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds a function as a command to `group`, with examples for its help text."""
    add = group.command(name, cls=Command, epilog="\n".join(examples))
    return lambda function: add(with_completion(function))


def make_group(help: str, *examples: str, **options: Any) -> typer.Typer:
    """Return a group of commands, to which `add_command` adds them, with examples for its help text."""
    return typer.Typer(
        help=help,
        cls=CommandGroup,
        epilog="\n".join(examples),
        add_completion=False,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


def describe_usage_error(error: Any) -> str:
    """Return the message of an error of the parser in our words, with the command whose help explains it."""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    command = "lotr-tui" if context is None else context.command_path
    if match := re.fullmatch(r"Missing (?:argument|option) '([^']*)'", message):
        message = f"{match[1]} is missing"
    elif match := re.fullmatch(r"Option '([^']*)' requires .*", message):
        message = f"{match[1]} needs a value"
    elif match := re.fullmatch(r"Option '([^']*)' does not take a value", message):
        message = f"{match[1]} takes no value"
    elif match := re.match(r"No such option:? '?([^\s']+)", message):
        options = [name for param in (context.command.get_params(context) if context else []) for name in param.opts]
        near = difflib.get_close_matches(match[1], options, 1, SIMILARITY)
        message = f"unknown option {match[1]}" + (f"; did you mean {near[0]}?" if near else "")
    elif match := re.fullmatch(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", message, re.DOTALL):
        hint = "; put a prompt of several words in quotes" if command.endswith(" generate") else ""
        message = f"unexpected argument {match[1]!r}{hint}"
    elif match := re.fullmatch(r"Invalid value for '([^']*)': \w+ '(.*)' is a file", message, re.DOTALL):
        message = f"{match[1]} {match[2]} is a file; name a folder"
    elif match := re.fullmatch(r"Invalid value for '([^']*)': '(.*)' is not one of (.*)", message, re.DOTALL):
        choices = re.findall(r"'([^']*)'", match[3])
        message = f"{match[1]} {match[2]} is not one of {', '.join(choices)}{suggest_nearest(match[2], choices)}"
    message = message.removesuffix(".")
    return f"{message} See `{command} --help`" if message.endswith("?") else f"{message}; see `{command} --help`"


def _describe_unknown_command(name: str, commands: Iterable[str], group: str) -> str:
    names = list(commands)
    near = [OTHER_WORDS[name]] if name in OTHER_WORDS else []
    near += [command for command in names if len(name) > 1 and (command.startswith(name) or name.startswith(command))]
    near += difflib.get_close_matches(name, names, cutoff=SIMILARITY)
    if near:
        return f"unknown command {name!r}; did you mean `{group} {near[0]}`?"
    if " " in name.strip():
        return f"unknown command {name!r}; to continue a text, use: lotr-tui generate {shlex.quote(name)}"
    return f"unknown command {name!r}; the commands are {', '.join(names)}. See `{group} --help`"


def _render_help(command: Any, context: Any) -> str:
    """Return the help text of a command or group, as wide as the terminal allows."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from lotr_tui.cli.console import make_console, terminal_width

    commands: Mapping[str, Any] = getattr(command, "commands", {})
    params = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    arguments = [param for param in params if param.param_type_name == "argument"]
    sections: dict[str, list[tuple[str, str]]] = {}
    for argument in arguments:
        sections.setdefault("Arguments", []).append((_argument_name(argument), _describe_parameter(argument)))
    for name, subcommand in commands.items():
        sections.setdefault("Commands", []).append((name, subcommand.get_short_help_str(limit=MAX_HELP_WIDTH)))
    for option in params:
        if option.param_type_name == "option":
            title = "Options" if option.name == "help" else getattr(option, "rich_help_panel", None) or "Options"
            sections.setdefault(title, []).append((_option_term(option), _describe_parameter(option)))
    if "Options" in sections:  # the general ones last
        sections["Options"] = sections.pop("Options")

    usage = [context.command_path, "[OPTIONS]", *(_argument_usage(argument) for argument in arguments)]
    if commands:
        usage.append("[COMMAND]" if command.invoke_without_command else "COMMAND")
    console = make_console()
    console.width = min(terminal_width(), MAX_HELP_WIDTH)
    terms = [term for rows in sections.values() for term, _ in rows]
    width = min(max(map(len, terms)), MAX_TERM_WIDTH, console.width // 2)
    with console.capture() as capture:
        console.print(Text.assemble(("Usage: ", "bold"), " ".join(usage)))
        console.print(Text(f"\n{' '.join((command.help or '').split())}"))
        for title, rows in sections.items():
            console.print(Text(f"\n{title}:", "bold"))
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(width=width, overflow="fold", style="cyan")
            grid.add_column()
            for term, description in rows:
                grid.add_row(Text(term), Text(description))
            console.print(Padding(grid, (0, 0, 0, 2)))
        if command.epilog:
            console.print(Text("\nExamples:", "bold"))
            for line in command.epilog.splitlines():
                console.print(Text(f"  {line}"), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _argument_name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _argument_usage(argument: Any) -> str:
    name = _argument_name(argument) + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def _option_term(option: Any) -> str:
    """Return the names of an option, short ones first, and the placeholder of its value."""
    names = ", ".join(sorted(option.opts, key=len))
    return names if option.is_flag else f"{names} {option.metavar or option.name.upper()}"


def _describe_parameter(param: Any) -> str:
    """Return the help of an argument or option with its default value, if there is one to show."""
    shown = param.show_default if isinstance(param.show_default, str) else param.default
    has_default = param.show_default and isinstance(shown, (str, int, float)) and not isinstance(shown, bool)
    return f"{param.help or ''} [default: {shown}]" if has_default else param.help or ""
