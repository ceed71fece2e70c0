"""The command line: one thin function per command, importing only the modules that the command needs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import InvalidInputError
from lotr_tui.cli import options
from lotr_tui.cli.data.commands import data_cli
from lotr_tui.cli.data.tokenize import tokenize
from lotr_tui.cli.dialogue.options import AnswerOptions, SceneOptions, parse_dialogue
from lotr_tui.cli.dialogue.who import who
from lotr_tui.cli.evaluation.command import evaluate
from lotr_tui.cli.parser import add_command, float_option, int_option, make_group
from lotr_tui.cli.runs import attach, runs_cli, status, stop
from lotr_tui.cli.standard_input import read_standard_input
from lotr_tui.cli.train import ablate, train

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions
    from lotr_tui.cli.dialogue.options import DialogueOptions

SAMPLING = "Sampling"
"""Section of the help text of `generate`."""
MAX_PROMPT_BYTES = 100_000
"""Maximum size of a prompt on standard input; a large model reads it in a minute or two."""

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
    try:
        result = cli(prog_name="lotr-tui", standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return 130
    return result if isinstance(result, int) else 0


@cli.callback()
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
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int:
    """Open the interactive session, unless a command is given."""
    if context.invoked_subcommand:
        return 0
    if version:
        from importlib.metadata import version as installed_version

        print(installed_version("lotr-tui"))
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
add_command(cli, "attach")(attach)
add_command(cli, "status")(status)
add_command(cli, "stop")(stop)


@add_command(
    cli,
    "generate",
    'lotr-tui generate "Where is Frodo"',
    'lotr-tui generate "The lamp" --count 3 --temperature 1.2',
    "cat prompt.txt | lotr-tui generate --json",
    'lotr-tui generate "Where is the Ring?" --as GANDALF --to FRODO --best-of 8',
    "lotr-tui generate --scene --cast FRODO,SAM,GOLLUM --turns 8",
)
@options.with_combination
@options.merge_options("dialogue", parse_dialogue)
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Text to continue; - or nothing: read it from standard input."),
    ] = None,
    run: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    combination: "CombinationOptions | None" = None,
    precision: options.PrecisionOption = "auto",
    temperature: Annotated[
        float, float_option("--temperature", help="From 0 (always the likeliest word) to 2.", rich_help_panel=SAMPLING)
    ] = 0.8,
    top_k: Annotated[
        int, int_option("--top-k", help="Sample from the N likeliest words; 0: from all.", rich_help_panel=SAMPLING)
    ] = 0,
    top_p: Annotated[
        float,
        float_option(
            "--top-p", help="Sample from the likeliest words up to this total probability.", rich_help_panel=SAMPLING
        ),
    ] = 1.0,
    min_p: Annotated[
        float,
        float_option(
            "--min-p",
            help="Sample from words at least this probable, relative to the likeliest.",
            rich_help_panel=SAMPLING,
        ),
    ] = 0.0,
    repetition_penalty: Annotated[
        float,
        float_option(
            "--repetition-penalty", help="Above 1: words already used become less likely.", rich_help_panel=SAMPLING
        ),
    ] = 1.0,
    seed: Annotated[
        int | None,
        int_option("--seed", help="Random seed. Default: a new one, which is printed.", rich_help_panel=SAMPLING),
    ] = None,
    max_tokens: Annotated[
        int, int_option("--max-tokens", help="Maximum words per text, or tokens.", rich_help_panel=SAMPLING)
    ] = 30,
    count: Annotated[
        int, int_option("--count", minimum=1, maximum=1_000_000, help="Number of texts, with consecutive seeds.")
    ] = 1,
    reply: Annotated[bool, typer.Option("--reply", help="Answer the prompt instead of continuing it.")] = False,
    dialogue: "DialogueOptions | None" = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per text.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per token.")] = False,
) -> None:
    """Continue or answer a prompt, or write a scene. The text goes to stdout, everything else to stderr."""
    from engine.generation.settings import SamplerSettings, check_seed, random_seed

    settings = SamplerSettings(
        repetition_penalty=repetition_penalty,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        max_tokens=max_tokens,
    )
    first_seed = random_seed() if seed is None else seed
    check_seed(first_seed)
    check_seed(first_seed + count - 1)
    seeds = range(first_seed, first_seed + count)
    if isinstance(dialogue, SceneOptions) and reply:
        raise InvalidInputError("--reply belongs to an answer, not to a scene; leave out --reply or --scene")
    # A speaker opens a conversation or a scene without a prompt.
    text = None if prompt is None and dialogue is not None else _read_prompt(prompt)
    from lotr_tui.session.session_model import load_session_model

    session_model = load_session_model(run or [], runs_dir, combination, precision)
    tokenizer = session_model.model.tokenizer
    if text is not None and not tokenizer.is_open:  # reports bytes that are not UTF-8 like other symbols that it skips
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    if reply and tokenizer.cast:
        dialogue = dialogue or AnswerOptions()
    if isinstance(dialogue, SceneOptions):
        from lotr_tui.cli.dialogue.scenes import generate_scenes_on_console

        generate_scenes_on_console(session_model, text, dialogue, settings, seeds, as_json=as_json, jsonl=jsonl)
    elif dialogue is not None:
        from lotr_tui.cli.dialogue.answers import generate_answers_on_console

        generate_answers_on_console(session_model, text, dialogue, settings, seeds, as_json=as_json, jsonl=jsonl)
    else:
        from engine.generation.prompt import encode_prompt
        from lotr_tui.cli.generate_console import generate_on_console

        encoded = encode_prompt(text or "", tokenizer)
        generate_on_console(session_model, encoded, settings, seeds, reply=reply, as_json=as_json, jsonl=jsonl)


def _read_prompt(prompt: str | None) -> str:
    """Return the prompt, or standard input where it is "-" or missing."""
    if prompt is None and sys.stdin.isatty():
        raise InvalidInputError('PROMPT is missing; give a text, such as `lotr-tui generate "Where is Frodo"`')
    return read_standard_input(MAX_PROMPT_BYTES) if prompt is None or prompt == "-" else prompt


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
cli.add_typer(runs_cli, name="runs")
cli.add_typer(data_cli, name="data")
add_command(
    cli,
    "tokenize",
    'lotr-tui tokenize "Where is Frodo"',
    'lotr-tui tokenize "my precious" --tokenizer bpe',
)(tokenize)
add_command(
    cli, "ablate", "lotr-tui ablate --preset tiny --seeds 2", "lotr-tui ablate --only weight_drop --set epochs=20"
)(ablate)


@add_command(cli, "bench", "lotr-tui bench --only generate --repeat 3")
def bench(
    repeat: Annotated[int, int_option("--repeat", minimum=1, maximum=1_000, help="Runs of each measurement.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="GROUP",
            help="Group to measure; repeatable: train, quality, start, memory, generate, stream, bytes, keys, slider, "
            "idle, transcript, branch, dashboard, attach, scale-out, memorization, growth or byte-pairs.",
        ),
    ] = None,
    ptb: Annotated[
        Path | None, typer.Option("--ptb", metavar="FILE", help="Penn Treebank training text, for memorization.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Dialogues to train on, for train and quality.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per measurement.")] = False,
) -> None:
    """Measure the speed on this machine, and compare it with limits and baselines."""
    from lotr_tui.cli.reports import print_bench

    print_bench(repeat, only or [], ptb, csv, as_json=as_json)


@add_command(cli, "locate")
def locate() -> None:
    """Print the paths of runs, settings, history, sessions and bundled files."""
    from engine.storage.files import app_home, assets_dir, cache_dir, default_runs_dir
    from lotr_tui.session.history import history_file
    from lotr_tui.session.session_file import sessions_folder
    from lotr_tui.session.settings import settings_file

    paths = {
        "home": app_home(),
        "runs": default_runs_dir(),
        "cache": cache_dir(),
        "settings": settings_file(),
        "history": history_file(),
        "sessions": sessions_folder(),
        "assets": assets_dir(),
    }
    for name, path in paths.items():
        print(f"{name:8}  {path}")
