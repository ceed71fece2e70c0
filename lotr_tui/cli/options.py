"""Options that several commands share, and detection of a terminal to draw on."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.errors import InvalidInputError
from lotr_tui.cli.parser import int_option
from lotr_tui.textual_fixes import is_served

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions

DATA, MODEL, SCREEN = "Data", "Model", "Screen"
"""Sections of the help texts."""

RunsDirOption = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", file_okay=False, help="Folder of the runs; see `lotr-tui locate`."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ThemeOption = Annotated[
    str | None,
    typer.Option(
        "--theme",
        metavar="NAME",
        help="Theme for this session: shire, shire-light, ansi-dark or any Textual theme.",
        rich_help_panel=SCREEN,
    ),
]
NoMouseOption = Annotated[
    bool,
    typer.Option("--no-mouse", help="Leave the mouse to the terminal, to select text with it.", rich_help_panel=SCREEN),
]

SplitSeedOption = Annotated[
    int | None, int_option("--split-seed", help="Seed of the shuffle before the split.", rich_help_panel=DATA)
]
ModeOption = Annotated[
    Literal["line", "stream", "dialogue"] | None,
    typer.Option(
        "--mode",
        metavar="line|stream|dialogue",
        help="line: every line ends with an end-of-line token; stream: each split is one long text; dialogue: lines "
        "in order, with their speakers.",
        rich_help_panel=DATA,
    ),
]
SplitOption = Annotated[
    Literal["lines", "scenes"] | None,
    typer.Option(
        "--split",
        metavar="lines|scenes",
        help="lines: hold out single lines for validation and test; scenes: blocks of 20 lines, in file order.",
        rich_help_panel=DATA,
    ),
]
TokenizerOption = Annotated[
    Literal["words", "whitespace", "characters", "bpe"] | None,
    typer.Option(
        "--tokenizer",
        metavar="NAME",
        help="words, whitespace, characters or bpe; the last two read and write any text as it is written.",
        rich_help_panel=DATA,
    ),
]
VocabularySizeOption = Annotated[
    int | None, int_option("--vocabulary-size", help="Tokens of a bpe vocabulary to learn.", rich_help_panel=DATA)
]
TextColumnOption = Annotated[
    str | None,
    typer.Option("--text-column", metavar="NAME", help="CSV column of the utterances.", rich_help_panel=DATA),
]
SpeakerColumnOption = Annotated[
    str | None,
    typer.Option("--speaker-column", metavar="NAME", help="CSV column of the speakers.", rich_help_panel=DATA),
]

RunsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="Model to use: name or path of a run, latest, RUN@EPOCH, hf:FOLDER, hf:owner/name or gguf:FILE; repeat "
        "it for an ensemble of runs. Default: bundled where SmolLM2 was fetched, else lstm.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
MixtureOption = Annotated[
    bool,
    typer.Option(
        "--mixture",
        help="Mix with a Kneser-Ney model, with weights chosen on validation.",
        rich_help_panel=MODEL,
    ),
]
CacheOption = Annotated[
    bool,
    typer.Option("--cache", help="Make recently used words more likely (continuous cache).", rich_help_panel=MODEL),
]
DynamicOption = Annotated[
    bool,
    typer.Option("--dynamic", help="Keep training while reading (dynamic evaluation).", rich_help_panel=MODEL),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="W,W,...",
        help="Weights of the models, such as 0.8,0.2; Kneser-Ney comes last.",
        rich_help_panel=MODEL,
    ),
]
CacheWindowOption = Annotated[
    int | None,
    int_option(
        "--cache-window",
        minimum=1,
        maximum=10_000_000,
        help="Words in the cache. Default: 500.",
        rich_help_panel=MODEL,
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "int8"],
    typer.Option(
        "--precision",
        metavar="auto|fp32|int8",
        help="int8 is faster for large models, and less exact; auto computes as the model is stored.",
        rich_help_panel=MODEL,
    ),
]


def check_output_format(*, as_json: bool, jsonl: bool) -> None:
    """Refuse two output formats at once."""
    if as_json and jsonl:
        raise InvalidInputError("--json and --jsonl exclude each other; give one of them")


def check_vocabulary_size(vocabulary_size: int | None, tokenizer: str | None) -> None:
    """Refuse a vocabulary size for a tokenizer that does not learn one of a given size."""
    if vocabulary_size is not None and tokenizer != "bpe":
        raise InvalidInputError("--vocabulary-size belongs to --tokenizer bpe; add that option")


def has_terminal() -> bool:
    """Return True if a screen can be drawn: in a browser, or on a terminal that is not dumb while CI is not set."""
    if is_served():
        return True
    is_plain = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("CI", "") not in ("", "0", "false")
    # The screen is drawn on standard error.
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)) and not is_plain


def check_theme(name: str | None) -> None:
    """Raise a ConfigError if no theme has this name; None is the saved theme."""
    if name is not None:
        from lotr_tui.theme import check_theme_name  # imports Textual, which most commands do not need

        check_theme_name(name)


def parse_combination(
    *,
    mixture: MixtureOption = False,
    cache: CacheOption = False,
    dynamic: DynamicOption = False,
    weights: WeightsOption = None,
    cache_window: CacheWindowOption = None,
) -> "CombinationOptions | None":
    """Return the combination of models that the options describe, or None if none of them is given.

    Raises:
        InvalidInputError: If the weights are not numbers, or a cache window is given without a cache.
    """
    if not (mixture or cache or dynamic or weights is not None or cache_window is not None):
        return None
    from engine.runs.combine import CombinationOptions

    if cache_window is not None and not cache:
        raise InvalidInputError(f"--cache-window {cache_window} has no effect without --cache; give both")
    try:
        numbers = tuple(float(number) for number in weights.split(",")) if weights is not None else ()
    except ValueError:
        raise InvalidInputError(f"--weights {weights} must be numbers separated by commas, such as 0.8,0.2") from None
    window = {} if cache_window is None else {"cache_window": cache_window}
    return CombinationOptions(mixture=mixture, cache=cache, dynamic=dynamic, weights=numbers, **window)


def merge_options(
    name: str, parse: Callable[..., Any]
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Return a decorator of a command that has a parameter `name`.

    The command gets the options that are the parameters of `parse` instead of this one, which becomes their result.
    """
    parsed_options = signature(parse).parameters

    def decorate(command: Callable[..., int | None]) -> Callable[..., int | None]:
        @wraps(command)
        def run_command(**arguments: Any) -> int | None:
            value = parse(**{option: arguments.pop(option) for option in parsed_options})
            return command(**arguments, **{name: value})

        parameters: list[Parameter] = []
        for parameter in signature(command).parameters.values():
            parameters += parsed_options.values() if parameter.name == name else [parameter]
        keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
        run_command.__signature__ = Signature(keywords)  # type: ignore[attr-defined]
        run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run_command

    return decorate


with_combination = merge_options("combination", parse_combination)
"""Decorator of a command that has a parameter `combination`: it gets the options of `parse_combination` instead."""
