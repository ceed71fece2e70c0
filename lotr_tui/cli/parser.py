"""Declaration of options and commands, and the form of help texts and errors, on top of Typer."""

import difflib
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from engine.config import setting_type
from engine.errors import InvalidInputError, suggest_nearest
from lotr_tui.completion.values import VALUES

Function = Callable[..., Any]
MAX_HELP_WIDTH, MAX_TERM_WIDTH = 100, 30
SIMILARITY = 0.7  # of a suggested command or option, as difflib measures it
REWORDED = (
    (r"Missing (?:argument|option) '([^']*)'.*", r"\1 is missing"),
    (r"Option '([^']*)' requires .*", r"\1 needs a value"),
    (r"Option '([^']*)' does not take a value", r"\1 takes no value"),
    (r"No such option:? '?([^\s']+).*", r"unknown option \1"),
    (r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", r"unexpected argument '\1'"),
    (r"Invalid value for '([^']*)': \w+ '(.*)' is a file", r"\1 \2 is a file; name a folder"),
)
"""Errors of the parser, and how we say them."""


def option(name: str, metavar: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """Return an option that takes a value, under the heading `panel` of the help."""
    values = more.pop("values", None) or VALUES.get(name) or VALUES.get(metavar)
    return typer.Option(name, metavar=metavar, help=help, rich_help_panel=panel, autocompletion=values, **more)


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """Return an option without a value."""
    return typer.Option(name, help=help, rich_help_panel=panel)


def number(
    name: str, kind: type[int | float], help: str, panel: str | None = None, low: float | None = None, high: float = 1e6
) -> Any:
    """Return an option for a number from `low` to `high`; without `low`, the engine checks the range."""

    def parse(text: object) -> int | float:
        with suppress(ValueError):
            value = kind(str(text))
            if low is None or low <= value <= high:
                return value
        limits = "" if low is None else f" from {low} to {high:,.0f}"
        raise InvalidInputError(f"{name} {text} is not {'a whole' if kind is int else 'a'} number{limits}")

    return option(name, "N" if kind is int else "X", help, panel, parser=parse)


def setting(name: str, panel: str | None = None) -> Any:
    """Return an option for a setting of `Config`, which has its type, range and description."""
    kind, meta = setting_type(name)
    option_name, help = f"--{name.replace('_', '-')}", str(meta.description)
    if choices := getattr(kind, "__args__", ()):
        return option(option_name, "|".join(choices), help, panel, values=lambda: list(choices))
    help = f"{help[:1].upper()}{help[1:]}."
    return number(option_name, int, help, panel) if kind is int else option(option_name, "NAME", help, panel)


def argument(metavar: str, help: str, **more: Any) -> Any:
    """Return an argument."""
    return typer.Argument(metavar=metavar, help=help, autocompletion=VALUES.get(metavar), **more)


def make_group(*examples: str, **more: Any) -> typer.Typer:
    """Return a group of commands, to which `add_command` adds them, with examples for its help text."""
    return typer.Typer(
        cls=more.pop("cls", CommandGroup),
        epilog="\n".join(examples),
        add_completion=False,
        invoke_without_command=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_HELP_WIDTH},
        **more,
    )


def add_command(group: typer.Typer, name: str, *examples: str) -> Callable[[Function], Function]:
    """Return a decorator that adds a function (see `expand_options`) as a command, with examples for its help."""

    def add(function: Function) -> Function:
        group.command(name, cls=Command, epilog="\n".join(examples))(expand_options(function))
        return function

    return add


def expand_options(function: Function) -> Function:
    """Return a function with the fields of dataclasses in place of the parameters of these classes."""
    given = signature(function).parameters
    classes: dict[str, Function] = {
        name: each.annotation for name, each in given.items() if hasattr(each.annotation, "__dataclass_fields__")
    }
    fields = {name: signature(options).parameters for name, options in classes.items()}

    @wraps(function)
    def run_command(**arguments: Any) -> Any:
        for name, options in classes.items():
            arguments[name] = options(**{field: arguments.pop(field) for field in fields[name]})
        return function(**arguments)

    options = [each for name, own in given.items() for each in fields.get(name, {name: own}).values()]
    options = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in options]
    run_command.__signature__ = Signature(options)  # type: ignore[attr-defined]
    run_command.__annotations__ = {each.name: each.annotation for each in options}
    return run_command


class HelpForm:
    """Help text of a command: its sections, and its examples as they are typed. Errors know their command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc, no-any-return]
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:  # so that the message names the command
                error.ctx = ctx  # type: ignore[attr-defined]
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = ["[OPTIONS]"]
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            if param.param_type_name == "argument":
                name = param.metavar + ("..." if param.nargs != 1 else "")
                pieces.append(name if param.required else f"[{name}]")
        return [*pieces, *(["[COMMAND]"] if hasattr(self, "commands") else [])]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Commands": []}
        for name, command in getattr(self, "commands", {}).items():
            sections["Commands"].append((name, command.get_short_help_str(limit=MAX_HELP_WIDTH)))
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            if param.param_type_name == "argument":
                sections["Arguments"].append((param.metavar, param.help or ""))
            else:
                title = getattr(param, "rich_help_panel", None) or "Options"
                sections.setdefault(title, []).append(param.get_help_record(ctx))
        sections["Options"] = sections.pop("Options")  # the general ones come last
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=MAX_TERM_WIDTH)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:  # type: ignore[attr-defined]
            examples = self.epilog.splitlines()  # type: ignore[attr-defined]
            formatter.write("\nExamples:\n" + "".join(f"  {line}\n" for line in examples))


class Command(HelpForm, TyperCommand):
    """Command with our form of help."""


class CommandGroup(HelpForm, TyperGroup):
    """Group of commands. Options before a command are passed on to it, which refuses those that it does not have."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise InvalidInputError(_describe_unknown_command(args[0], list(self.commands), ctx.command_path))
        before = ctx.meta["arguments"][: -len(args)]
        options = before[:-1] if before[-1:] == ["--"] else before
        return super().resolve_command(ctx, [args[0], *options, *args[1:]])


def describe_usage_error(error: Any) -> str:
    """Return the message of an error of the parser in our words, with the command whose help explains it."""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "lotr-tui"
    for pattern, words in REWORDED:
        if re.fullmatch(pattern, message, re.DOTALL):
            message = re.sub(pattern, words, message, flags=re.DOTALL)
            break
    if message.startswith("unknown option") and error.ctx:
        names = [name for param in error.ctx.command.get_params(error.ctx) for name in param.opts]
        near = difflib.get_close_matches(message.split()[-1], names, 1, SIMILARITY)
        message += f"; did you mean {near[0]}?" if near else ""
    elif message.startswith("unexpected argument") and command.endswith(" generate"):
        message += "; put a prompt of several words in quotes"
    elif match := re.fullmatch(r"Invalid value for '([^']*)': '(.*)' is not one of (.*)", message, re.DOTALL):
        choices = re.findall(r"'([^']*)'", match[3])
        message = f"{match[1]} {match[2]} is not one of {', '.join(choices)}{suggest_nearest(match[2], choices)}"
    message = message.removesuffix(".")
    return f"{message} See `{command} --help`" if message.endswith("?") else f"{message}; see `{command} --help`"


def _describe_unknown_command(name: str, names: list[str], group: str) -> str:
    near = [f"--{name}"] if name in ("help", "version") else []
    near += [command for command in names if len(name) > 1 and (command.startswith(name) or name.startswith(command))]
    near += difflib.get_close_matches(name, names, cutoff=SIMILARITY)
    if near:
        return f"unknown command {name!r}; did you mean `{group} {near[0]}`?"
    if " " in name.strip():
        return f"unknown command {name!r}; to continue a text, use: lotr-tui generate {shlex.quote(name)}"
    return f"unknown command {name!r}; the commands are {', '.join(names)}. See `{group} --help`"
