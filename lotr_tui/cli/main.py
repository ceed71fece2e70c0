"""The command line: one thin function per command, importing only the modules that the command needs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.config import Config
from engine.storage.files import absolute_path
from lotr_tui.cli import options
from lotr_tui.cli.runs import attach, runs_cli, status, stop
from lotr_tui.cli.train import ablate, train

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions

cli = typer.Typer(
    name="lotr-tui",
    help="Train, play with and understand small language models in a terminal.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_cli = typer.Typer(help="Show a corpus, or download the film dialogues.", no_args_is_help=True)
cli.add_typer(data_cli, name="data")
cli.add_typer(runs_cli, name="runs")


def run_command() -> int:
    """Run the command that `sys.argv` names, and return its exit code.

    Raises:
        LotrError: If the command fails.
    """
    try:
        result = cli(standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return 130
    return result if isinstance(result, int) else 0


@cli.callback(invoke_without_command=True)
@options.with_combination
def session(
    context: typer.Context,
    run: options.RunsOption = None,
    combination: "CombinationOptions | None" = None,
    runs_dir: options.RunsDirOption = None,
    pace: Annotated[
        float | None, typer.Option(help="Words per second on the screen; 0: no delay. Default: the last one used.")
    ] = None,
    theme: options.ThemeOption = None,
    no_mouse: options.NoMouseOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Open the interactive session, unless a command is given."""
    if context.invoked_subcommand:
        return
    if version:
        from importlib.metadata import version as installed_version

        print(installed_version("lotr-tui"))
        return
    from lotr_tui.cli.launch import open_session

    open_session(run or [], runs_dir, combination, pace, theme, mouse=not no_mouse)


for command in (train, attach, status, stop):
    cli.command()(command)


@cli.command()
@options.with_combination
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads it from standard input.")] = "",
    run: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    combination: "CombinationOptions | None" = None,
    precision: options.PrecisionOption = "fp32",
    temperature: Annotated[float, typer.Option(help="From 0 (greedy) to 2.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k most likely words; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the most likely words up to this total probability.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Minimum probability relative to the most likely word.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: words already used become less likely.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Random seed; drawn and printed if not given.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Maximum words.")] = 30,
    count: Annotated[int, typer.Option(min=1, help="Number of texts, with consecutive seeds.")] = 1,
    reply: Annotated[bool, typer.Option("--reply", help="Answer the prompt as a whole line.")] = False,
    as_json: options.JsonOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per word.")] = False,
) -> None:
    """Continue a prompt. The text goes to stdout, everything else to stderr."""
    from engine.generation.generate import encode_prompt
    from engine.generation.settings import SamplerSettings, check_seed, random_seed
    from lotr_tui.cli.generate_console import generate_on_console
    from lotr_tui.session.session_model import load_session_model

    settings = SamplerSettings(
        repetition_penalty=repetition_penalty,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        max_tokens=max_tokens,
    )
    session_model = load_session_model(run or [], runs_dir, combination, precision)
    text = sys.stdin.buffer.read().decode(errors="replace") if prompt == "-" else prompt
    encoded = encode_prompt(text, session_model.model.vocabulary)
    first_seed = random_seed() if seed is None else seed
    check_seed(first_seed)
    check_seed(first_seed + count - 1)
    generate_on_console(
        session_model,
        encoded,
        settings,
        seeds=range(first_seed, first_seed + count),
        reply=reply,
        as_json=as_json,
        jsonl=jsonl,
    )


@cli.command("eval")
@options.with_combination
def evaluate(
    run: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Names, paths or RUN@EPOCH; several are an ensemble."),
    ] = None,
    more_runs: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    precision: options.PrecisionOption = "fp32",
    split: Annotated[Literal["valid", "test", "train"], typer.Option(help="Split to score.")] = "valid",
    text: Annotated[str | None, typer.Option(metavar="FILE|-", help="Score this text instead of a split.")] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add a unigram and a Kneser-Ney model of the same data.")
    ] = False,
    combination: "CombinationOptions | None" = None,
    as_json: options.JsonOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per token: id, text, logprob.")] = False,
) -> None:
    """Print the perplexity of a run: every token once, state carried, <unk> counted."""
    from engine.runs.combine import CombinationOptions, ModelCombiner
    from engine.runs.loading import load_model_by_name
    from lotr_tui.cli.evaluate import print_evaluation, print_token_scores

    names: list[str | None] = [*(run or []), *(more_runs or [])]
    combiner = ModelCombiner([load_model_by_name(name, runs_dir, precision) for name in names or [None]])
    combination = combination or CombinationOptions()
    if jsonl:
        print_token_scores(combiner, combination, split, text)
    else:
        print_evaluation(combiner, combination, split, text, baselines=baselines, as_json=as_json)


@data_cli.command("info")
def data_info(
    path: Annotated[Path, typer.Argument(help="A CSV, or plain text (.txt).")],
    plain: Annotated[bool, typer.Option("--plain", help="Read as plain text, whatever the file name.")] = False,
    text_column: options.TextColumnOption = None,
    speaker_column: options.SpeakerColumnOption = None,
    mode: options.ModeOption = None,
    split_seed: options.SplitSeedOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Describe a corpus and the splits that a training would make of it."""
    from lotr_tui.cli.reports import print_data_summary

    choices = {"text_column": text_column, "speaker_column": speaker_column, "mode": mode, "split_seed": split_seed}
    config = Config().with_values(
        corpus=str(absolute_path(path)),  # absolute, so that no file name means the bundled corpus
        corpus_format="text" if plain or path.suffix == ".txt" else "csv",
        **{name: value for name, value in choices.items() if value is not None},
    )
    print_data_summary(config.data, as_json=as_json)


@data_cli.command("fetch")
def data_fetch() -> None:
    """Download the film dialogues from Kaggle, and print their path."""
    from lotr_tui.cli.kaggle import fetch_dataset

    print(fetch_dataset())


cli.command()(ablate)


@cli.command()
def bench(
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each measurement.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="train, quality, start, memory, generate, stream, bytes, keys, slider, idle, transcript, branch, "
            "dashboard, attach, scale-out, memorization or growth; repeatable.",
        ),
    ] = None,
    ptb: Annotated[
        Path | None, typer.Option("--ptb", metavar="FILE", help="Penn Treebank training text, for memorization.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Dialogues to train on, for train and quality.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure the speed on this machine, and compare it with limits and baselines."""
    from lotr_tui.cli.reports import print_bench

    print_bench(repeat, only or [], ptb, csv, as_json=as_json)


@cli.command()
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
