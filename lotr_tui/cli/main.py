"""The commands, one thin function each. What a command does not need, it does not import."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.config import Config
from engine.errors import UnusableInput
from engine.storage.files import located
from lotr_tui.cli.options import (
    JsonOption,
    ModeOption,
    NoMouseOption,
    PrecisionOption,
    RunsDirOption,
    SpeakerColumnOption,
    SplitSeedOption,
    TextColumnOption,
    ThemeOption,
)
from lotr_tui.cli.runs import attach, runs_cli, status, stop
from lotr_tui.cli.train import ablate, train

if TYPE_CHECKING:
    from engine.runs.combine import Combination

cli = typer.Typer(
    name="lotr-tui",
    help="Train, play with and understand small language models in a terminal.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_cli = typer.Typer(help="Look at a corpus, or fetch the original one.", no_args_is_help=True)
cli.add_typer(data_cli, name="data")
cli.add_typer(runs_cli, name="runs")

RunsOption = Annotated[
    list[str] | None,
    typer.Option("--run", metavar="RUN", help="Name or path of a run, 'latest', or RUN@EPOCH. Several: an ensemble."),
]
MixtureOption = Annotated[
    bool, typer.Option("--mixture", help="Mix with Kneser-Ney, the weights chosen on validation.")
]
CacheOption = Annotated[bool, typer.Option("--cache", help="Words used lately become likelier: a continuous cache.")]
DynamicOption = Annotated[bool, typer.Option("--dynamic", help="The model goes on learning from what it reads.")]
WeightsOption = Annotated[
    str | None, typer.Option(metavar="W,W,…", help="Of the runs, and of Kneser-Ney last; instead of chosen ones.")
]
CacheWindowOption = Annotated[
    int | None, typer.Option(metavar="N", help="Words that the cache remembers; 500 if not given.")
]


def run_command() -> int:
    """Run the command that `sys.argv` names; returns its exit code.

    Raises:
        LotrError: what went wrong, for people to read.
    """
    try:
        result = cli(standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return 130
    return result if isinstance(result, int) else 0


@cli.callback(invoke_without_command=True)
def session(
    context: typer.Context,
    run: RunsOption = None,
    mixture: MixtureOption = False,
    cache: CacheOption = False,
    dynamic: DynamicOption = False,
    weights: WeightsOption = None,
    cache_window: CacheWindowOption = None,
    runs_dir: RunsDirOption = None,
    pace: Annotated[
        float | None, typer.Option(help="Words a second on the screen; 0: as fast as they come; else as last time.")
    ] = None,
    theme: ThemeOption = None,
    no_mouse: NoMouseOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Without a command: play with a model, in an interactive session."""
    if context.invoked_subcommand:
        return
    if version:
        from importlib.metadata import version as installed

        print(installed("lotr-tui"))
        return
    from lotr_tui.cli.launch import open_session

    options = _combination(mixture, cache, dynamic, weights, cache_window)
    open_session(run or [], runs_dir, options, pace, theme, mouse=not no_mouse)


for command in (train, attach, status, stop):
    cli.command()(command)


@cli.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to continue; - reads it from standard input.")] = "",
    run: RunsOption = None,
    mixture: MixtureOption = False,
    cache: CacheOption = False,
    dynamic: DynamicOption = False,
    weights: WeightsOption = None,
    cache_window: CacheWindowOption = None,
    precision: PrecisionOption = "fp32",
    runs_dir: RunsDirOption = None,
    temperature: Annotated[float, typer.Option(help="0 (greedy) to 2.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest words; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest words up to this probability.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Keep words at least this share as likely as the likeliest.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: used words become less likely.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes it repeatable; drawn and shown if not given.")] = None,
    max_tokens: Annotated[int, typer.Option(help="At most so many words.")] = 30,
    count: Annotated[int, typer.Option(min=1, help="So many texts, with seeds one after the other.")] = 1,
    reply: Annotated[
        bool, typer.Option("--reply", help="The prompt is a whole line; the model answers with the next.")
    ] = False,
    as_json: JsonOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a word.")] = False,
) -> None:
    """Continue a prompt; the text goes to stdout, all else to stderr."""
    from engine.generation.generate import encode_prompt
    from engine.generation.settings import SamplerSettings, check_seed, draw_seed
    from lotr_tui.cli.console import generate_on_console
    from lotr_tui.session.player import open_player

    chain = SamplerSettings(repetition_penalty, temperature, top_k, top_p, min_p, max_tokens)
    options = _combination(mixture, cache, dynamic, weights, cache_window)
    player = open_player(run or [], runs_dir, options, precision)
    text = sys.stdin.buffer.read().decode(errors="replace") if prompt == "-" else prompt
    read = encode_prompt(text, player.model.vocabulary)
    first = draw_seed() if seed is None else seed
    check_seed(first)
    check_seed(first + count - 1)
    seeds = range(first, first + count)
    generate_on_console(player, read, chain, seeds, reply=reply, as_json=as_json, jsonl=jsonl)


@cli.command("eval")
def evaluate(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Names, paths or RUN@EPOCH; several: an ensemble.")
    ] = None,
    more_runs: RunsOption = None,
    split: Annotated[str, typer.Option(help="valid, test or train.")] = "valid",
    text: Annotated[str | None, typer.Option(metavar="FILE|-", help="Score this text instead of a split.")] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also a unigram and a Kneser-Ney model of the same data.")
    ] = False,
    mixture: MixtureOption = False,
    cache: CacheOption = False,
    dynamic: DynamicOption = False,
    weights: WeightsOption = None,
    cache_window: CacheWindowOption = None,
    precision: PrecisionOption = "fp32",
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a token: id, text, logprob.")] = False,
) -> None:
    """Perplexity of a run: every token once, state carried, <unk> counted."""
    from engine.runs.combine import Combination, Combiner
    from engine.runs.store import load_named
    from lotr_tui.cli.evaluate import print_evaluation, print_token_scores

    names: list[str | None] = [*(run or []), *(more_runs or [])]
    combiner = Combiner([load_named(name, runs_dir, precision) for name in names or [None]])
    options = _combination(mixture, cache, dynamic, weights, cache_window) or Combination()
    if jsonl:
        print_token_scores(combiner, options, split, text)
    else:
        print_evaluation(combiner, options, split, text, baselines=baselines, as_json=as_json)


@data_cli.command("info")
def data_info(
    path: Annotated[Path, typer.Argument(help="A CSV, or plain text (.txt).")],
    plain: Annotated[bool, typer.Option("--plain", help="Plain text, whatever the name.")] = False,
    text_column: TextColumnOption = None,
    speaker_column: SpeakerColumnOption = None,
    mode: ModeOption = None,
    split_seed: SplitSeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a corpus holds, and what a training would make of it."""
    from lotr_tui.cli.reports import print_summary

    given = {"text_column": text_column, "speaker_column": speaker_column, "mode": mode, "split_seed": split_seed}
    config = Config().with_values(
        corpus=str(located(path)),  # absolute, so that no file is taken for the bundled corpus
        corpus_format="text" if plain or path.suffix == ".txt" else "csv",
        **{name: value for name, value in given.items() if value is not None},
    )
    print_summary(config.data, as_json=as_json)


@data_cli.command("fetch")
def data_fetch() -> None:
    """Download the Kaggle set of the film dialogues, and print where it is."""
    from lotr_tui.cli.kaggle import fetch

    print(fetch())


cli.command()(ablate)


@cli.command()
def bench(
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each measurement.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="train, quality, start, memory, generate, stream, bytes, keys, slider, idle, transcript, branch, "
            "dashboard, attach, scale-out, memorised or growth; repeatable.",
        ),
    ] = None,
    ptb: Annotated[
        Path | None, typer.Option("--ptb", metavar="FILE", help="Training text of the Penn Treebank, for memorised.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Dialogues to train on, for train and quality.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast it is on this machine, each figure beside the limit it is held to."""
    from lotr_tui.cli.reports import print_bench

    print_bench(repeat, only or [], ptb, csv, as_json=as_json)


@cli.command()
def locate() -> None:
    """Where runs, settings, prompts, sessions and the bundled files are."""
    from engine.storage.files import assets_folder, cache_folder, home, runs_folder
    from lotr_tui.session.history import history_file
    from lotr_tui.session.session_file import sessions_folder
    from lotr_tui.session.settings import settings_file

    places = {
        "home": home(),
        "runs": runs_folder(),
        "cache": cache_folder(),
        "settings": settings_file(),
        "history": history_file(),
        "sessions": sessions_folder(),
        "assets": assets_folder(),
    }
    for name, path in places.items():
        print(f"{name:8}  {path}")


def _combination(
    mixture: bool, cache: bool, dynamic: bool, weights: str | None, cache_window: int | None
) -> "Combination | None":
    """What these options ask for; None where they ask for nothing."""
    if not (mixture or cache or dynamic or weights is not None or cache_window is not None):
        return None
    from engine.runs.combine import Combination

    if cache_window is not None and not cache:
        raise UnusableInput(f"--cache-window {cache_window} is that of a cache; give --cache too")
    try:
        numbers = tuple(float(number) for number in weights.split(",")) if weights is not None else ()
    except ValueError:
        raise UnusableInput(f"--weights {weights} are no numbers with commas between, as 0.8,0.2") from None
    window = {} if cache_window is None else {"cache_window": cache_window}
    return Combination(mixture, cache, dynamic, numbers, **window)
