"""The table of commands, and the command without a name, which opens the session.

A command's module is imported when the command is called: this is where numpy, rich and the engine are loaded. Modules
of commands import PyTorch and Textual only where a training or a screen begins.
"""

import os
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.completion import get_completion_inspect_parameters

from lotr_tui.cli import options
from lotr_tui.cli.parser import Command, CommandGroup, expand_options, flag, make_group, number
from lotr_tui.completion import COMPLETE_VARIABLE

COMMANDS = {
    "train": ("train", "Train a model from scratch, in a live dashboard or with plain lines."),
    "finetune": ("train", "Teach SmolLM2 to converse like the speakers of a corpus."),
    "attach": ("watch", "Show the dashboard of a running or finished run."),
    "status": ("watch", "Print the progress of a run on one screen of text."),
    "stop": ("watch", "Ask a running training to save and stop."),
    "generate": ("generate", "Continue or answer a prompt, or write a scene."),
    "eval": ("evaluate", "Print the perplexity and bits per character of models on a text."),
    "who": ("who", "Show which speaker would say a text, and which words gave the speaker away."),
    "serve": ("serve", "Show the session, or the dashboard of a run, in a browser."),
    "learn": ("learn", "Learn what a language model is: eight short chapters with something to move."),
    "runs": ("runs", "List or compare runs, or show, rename, delete, export or copy one."),
    "data": ("data", "Describe a corpus, or find the speech in it."),
    "fetch": ("fetch", "Download files that are too large to be included: a model, dialogues, or books."),
    "tokenize": ("tokenize", "Show how a text is split into tokens."),
    "ablate": ("train", "Measure the effect of each technique of a training."),
    "search": ("search", "Search hyperparameters within a budget."),
    "locate": ("machine", "Print where runs, models, settings and bundled files are."),
    "completion": ("machine", "Print the completion for bash, zsh or fish."),
    "doctor": ("machine", "Show what works on this machine, and what to do about the rest."),
}
"""Module and summary of each command, in the order of the help."""


class RootGroup(CommandGroup):
    """Group of all commands, which imports the module of the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, arguments = super().resolve_command(ctx, args)
        group = typer.main.get_group(import_module(f"lotr_tui.cli.{COMMANDS[name][0]}").commands)
        return name, group if group.name == name else group.commands[name], arguments


app = make_group("lotr-tui --run latest", 'lotr-tui generate "Where is Frodo"', cls=RootGroup)
PACE = "Words per second on the screen; 0: no delay. Default: the last one used."


@app.callback()
@expand_options
def session(
    context: typer.Context,
    *,
    run: options.RunsOption = None,
    combination: options.Combination,
    runs_dir: options.RunsDirOption = None,
    pace: Annotated[float | None, number("--pace", float, PACE, options.SCREEN)] = None,
    theme: options.ThemeOption = None,
    no_mouse: options.NoMouseOption = False,
    version: Annotated[bool, flag("--version", "Print the versions that matter.")] = False,
) -> int:
    """Train, play with and understand small language models in a terminal.

    Without a command, this opens the interactive session.
    """
    if context.invoked_subcommand:
        return 0
    if version:
        from lotr_tui.doctor.checks import list_versions

        for name, value in list_versions().items():
            print(f"{name} {value}")
        return 0
    if pace is not None:
        from lotr_tui.session.settings import check_pace

        check_pace(pace)
    options.check_theme(theme)
    from lotr_tui.cli.launch import open_session  # imports Textual

    return open_session(run or [], runs_dir, combination.parse(), pace, theme, mouse=not no_mouse)


def run_command(arguments: list[str] | None = None) -> int:
    """Run the command that `arguments`, by default those of the process, name, and return its exit code."""
    if COMPLETE_VARIABLE in os.environ:
        get_completion_inspect_parameters()  # also registers the shells
    root = typer.main.get_group(app)
    root.commands = {name: Command(name, help=summary) for name, (_, summary) in COMMANDS.items()}
    try:
        result = root.main(arguments, prog_name="lotr-tui", standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return 130
    return result if isinstance(result, int) else 0
