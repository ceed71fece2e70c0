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

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions

RunsDirOption = Annotated[Path | None, typer.Option("--runs-dir", help="Directory of the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ThemeOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Theme for this session: shire-light, ansi-dark, any Textual theme.")
]
NoMouseOption = Annotated[bool, typer.Option("--no-mouse", help="Do not capture the mouse.")]

SplitSeedOption = Annotated[int | None, typer.Option("--split-seed", help="Seed of the shuffle before the split.")]
ModeOption = Annotated[
    Literal["line", "stream"] | None,
    typer.Option("--mode", help="line: every line ends in <eos>; stream: every split does."),
]
TextColumnOption = Annotated[str | None, typer.Option("--text-column", help="CSV column of the utterances.")]
SpeakerColumnOption = Annotated[str | None, typer.Option("--speaker-column", help="CSV column of the speakers.")]

RunsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--run", metavar="RUN", help="Name or path of a run, 'latest', or RUN@EPOCH. Repeat it for an ensemble."
    ),
]
MixtureOption = Annotated[
    bool, typer.Option("--mixture", help="Mix with Kneser-Ney; the weights are chosen on validation.")
]
CacheOption = Annotated[bool, typer.Option("--cache", help="Raise the probability of recent words (continuous cache).")]
DynamicOption = Annotated[
    bool, typer.Option("--dynamic", help="Keep training the model while it reads (dynamic evaluation).")
]
WeightsOption = Annotated[
    str | None, typer.Option(metavar="W,W,…", help="Mixture weights: one for each run, Kneser-Ney last.")
]
CacheWindowOption = Annotated[int | None, typer.Option(metavar="N", help="Words in the cache; default 500.")]
PrecisionOption = Annotated[
    Literal["fp32", "int8"], typer.Option("--precision", help="int8 is faster for large models, and less exact.")
]


def has_terminal() -> bool:
    """Return True if a screen can be drawn: stdin and stdout are a terminal that is not dumb, and CI is not set."""
    is_plain = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("CI", "") not in ("", "0", "false")
    return sys.stdin.isatty() and sys.stdout.isatty() and not is_plain


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


def with_combination(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command that has a parameter `combination`: it gets the options of `parse_combination` instead."""
    combination_options = signature(parse_combination).parameters

    @wraps(command)
    def run_command(**arguments: Any) -> None:
        combination = parse_combination(**{name: arguments.pop(name) for name in combination_options})
        command(**arguments, combination=combination)

    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        parameters += combination_options.values() if parameter.name == "combination" else [parameter]
    keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    run_command.__signature__ = Signature(keywords)  # type: ignore[attr-defined]
    run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run_command
