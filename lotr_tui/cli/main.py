"""The command line: one thin function per command, importing only the modules that the command needs."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer.completion import get_completion_inspect_parameters

from lotr_tui.cli import options
from lotr_tui.cli.data.commands import data_cli
from lotr_tui.cli.data.tokenize import tokenize
from lotr_tui.cli.dialogue.who import who
from lotr_tui.cli.doctor import doctor
from lotr_tui.cli.evaluation.command import evaluate
from lotr_tui.cli.fetch.commands import fetch_cli
from lotr_tui.cli.generate import generate
from lotr_tui.cli.learn import learn
from lotr_tui.cli.parser import add_command, float_option, make_group
from lotr_tui.cli.runs import attach, runs_cli, status, stop
from lotr_tui.cli.search import search
from lotr_tui.cli.serve import serve
from lotr_tui.cli.train import ablate, finetune, train
from lotr_tui.completion import COMPLETE_VARIABLE
from lotr_tui.completion.values import shell_script, with_completion

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions


cli = make_group(
    "Train, play with and understand small language models in a terminal. Without a command, this opens the "
    "interactive session.",
    "lotr-tui",
    "lotr-tui --run latest",
    'lotr-tui generate "Where is Frodo"',
    "lotr-tui train --csv dialogues.csv",
    name="lotr-tui",
)


def run_command() -> int:
    """Run the command that `sys.argv` names, and return its exit code.

    Raises:
        LotrError: If the command fails.
    """
    if COMPLETE_VARIABLE in os.environ:
        get_completion_inspect_parameters()  # also registers the shells
    try:
        result = cli(prog_name="lotr-tui", standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return 130
    return result if isinstance(result, int) else 0


@cli.callback()
@with_completion
@options.with_combination
def session(
    context: typer.Context,
    run: options.RunsOption = None,
    combination: "CombinationOptions | None" = None,
    runs_dir: options.RunsDirOption = None,
    pace: Annotated[
        float | None,
        float_option(
            "--pace",
            help="Words per second on the screen; 0: no delay. Default: the last one used.",
            rich_help_panel=options.SCREEN,
        ),
    ] = None,
    theme: options.ThemeOption = None,
    no_mouse: options.NoMouseOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print the versions that matter.")] = False,
) -> int:
    """Open the interactive session, unless a command is given."""
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
    from lotr_tui.cli.launch import open_session

    return open_session(run or [], runs_dir, combination, pace, theme, mouse=not no_mouse)


add_command(
    cli,
    "train",
    "lotr-tui train",
    "lotr-tui train --text novel.txt --epochs 20 --run novel",
    "lotr-tui train --resume novel",
    "lotr-tui train --init base",
    "lotr-tui train --preset tiny --set hidden_size=100",
)(train)
add_command(
    cli,
    "finetune",
    "lotr-tui finetune",
    "lotr-tui finetune --csv dialogues.csv --run film",
    "lotr-tui finetune --text shakespeare.txt --run romeo",
    "lotr-tui finetune --init gguf:llama.gguf --csv dialogues.csv --set lora_rank=32",
)(finetune)
add_command(cli, "attach")(attach)
add_command(cli, "status")(status)
add_command(cli, "stop")(stop)


add_command(
    cli,
    "generate",
    'lotr-tui generate "Where is Frodo"',
    'lotr-tui generate "The lamp" --count 3 --temperature 1.2',
    "cat prompt.txt | lotr-tui generate --json",
    'lotr-tui generate "Where is the Ring?" --as FRODO --to GANDALF --best-of 8',
    "lotr-tui generate --scene --cast FRODO,SAM,GOLLUM --turns 8",
    'lotr-tui generate "Who are you?" --run gguf:smollm2.gguf --reply',
)(generate)
add_command(
    cli,
    "eval",
    "lotr-tui eval latest",
    "lotr-tui eval --text my.txt",
    "lotr-tui eval first second third --split test",
    "lotr-tui eval --run first --run second --mixture --cache",
    "lotr-tui eval dialogues --by-speaker",
)(evaluate)
add_command(
    cli,
    "who",
    'lotr-tui who "we wants it"',
    "lotr-tui who --run dialogues --context scene.txt < line.txt",
)(who)
add_command(
    cli,
    "serve",
    "lotr-tui serve",
    "lotr-tui serve --run latest --port 0",
    "lotr-tui serve --attach latest",
)(serve)
add_command(cli, "learn", "lotr-tui learn", "lotr-tui learn perplexity", "lotr-tui learn --csv dialogues.csv")(learn)
cli.add_typer(runs_cli, name="runs")
cli.add_typer(data_cli, name="data")
cli.add_typer(fetch_cli, name="fetch")
add_command(
    cli,
    "tokenize",
    'lotr-tui tokenize "Where is Frodo"',
    'lotr-tui tokenize "my precious" --tokenizer bpe',
)(tokenize)
add_command(
    cli, "ablate", "lotr-tui ablate --preset tiny --seeds 2", "lotr-tui ablate --only weight_drop --set epochs=20"
)(ablate)
add_command(
    cli,
    "search",
    "lotr-tui search --minutes 20 --set lr=0.002..0.02 --set input_dropout=0.3..0.7",
    "lotr-tui search --trials 30 --preset tiny --set optimizer=adamw,sgd",
    "lotr-tui search --resume search-20250131-120000 --minutes 60",
)(search)


@add_command(cli, "locate")
def locate() -> None:
    """Print the paths of runs, models, settings, history, sessions, the progress in the class, and bundled files."""
    from engine.models.pretrained.names import SMOLLM2, base_folder
    from engine.storage.files import app_home, assets_dir, default_runs_dir
    from lotr_tui.learn.progress import progress_file
    from lotr_tui.session.history import history_file
    from lotr_tui.session.session_file import sessions_folder
    from lotr_tui.session.settings import settings_file

    paths = {
        "home": app_home(),
        "runs": default_runs_dir(),
        "models": base_folder(SMOLLM2).parent,
        "settings": settings_file(),
        "history": history_file(),
        "sessions": sessions_folder(),
        "progress": progress_file(),
        "assets": assets_dir(),
    }
    for name, path in paths.items():
        print(f"{name:8}  {path}")


@add_command(
    cli,
    "completion",
    'eval "$(lotr-tui completion bash)"',
    "lotr-tui completion fish > ~/.config/fish/completions/lotr-tui.fish",
)
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the completion for a shell: commands, options, runs, presets, settings and speakers.

    bash: add `eval "$(lotr-tui completion bash)"` to ~/.bashrc. zsh: add `eval "$(lotr-tui completion zsh)"` to
    ~/.zshrc, after compinit. fish: run `lotr-tui completion fish > ~/.config/fish/completions/lotr-tui.fish` once.
    """
    print(shell_script(shell), end="")


add_command(cli, "doctor", "lotr-tui doctor", "lotr-tui doctor --json > report.json")(doctor)
