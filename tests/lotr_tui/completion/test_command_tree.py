"""The description of the command line that completion reads is that of the real commands."""

import json

import typer.main

from lotr_tui.cli.completion.tree_file import FREE_METAVARS, describe_program
from lotr_tui.cli.main import cli
from lotr_tui.completion.command_tree import TREE_FILE, read_command, read_command_tree


def commands(command, row, path="lotr-tui"):
    """Yield each real command with its description and its path."""
    yield command, read_command(row), path
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from commands(subcommand, row["commands"][name], f"{path} {name}")


def all_commands():
    return commands(typer.main.get_command(cli), json.loads(TREE_FILE.read_text())["root"])


def test_the_file_is_that_of_the_commands():
    assert TREE_FILE.read_text(encoding="utf-8") == describe_program(), (
        "a command or setting changed; run `python -m lotr_tui.cli.completion`"
    )


def test_all_options_that_help_shows_are_there():
    for command, described, path in all_commands():
        context = typer.Context(command, info_name=path)
        options = [param for param in command.get_params(context) if param.param_type_name == "option"]
        expected = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        assert {name for option in described.options for name in option.names} == expected, path
        assert "--help" in expected


def test_every_value_is_completed_unless_its_placeholder_says_that_it_is_free():
    for command, described, path in all_commands():
        for param in command.params:
            if getattr(param, "is_flag", False) or param.metavar in FREE_METAVARS:
                continue
            if param.param_type_name == "option":
                option = described.find_option(param.opts[0])
                assert option.value.kind, f"{path} {param.opts[0]}"
            else:
                assert any(argument.value.kind for argument in described.arguments), f"{path} {param.name}"


def test_settings_have_their_fixed_values():
    settings = read_command_tree().settings
    assert settings["optimizer"].choices == ("adamw", "adam", "sgd")
    assert settings["tie_weights"].choices == ("true", "false")
    assert settings["lr"].choices == ()
