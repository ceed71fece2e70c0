"""`lotr-tui who`: which speaker would say a text."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.errors import InvalidInputError
from engine.storage.files import read_text_file
from lotr_tui.cli import options
from lotr_tui.cli.standard_input import read_standard_input

MAX_CONTEXT_BYTES = 100_000
"""Maximum size of the lines before the text, as for a prompt."""
MAX_TEXT_BYTES = 10_000
"""Maximum size of a text in UTF-8. The model reads it as every speaker."""


def who(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Text; - or nothing: standard input.", show_default=False)
    ] = "-",
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Name or path of a run, latest, RUN@EPOCH, hf:FOLDER, hf:owner/name or gguf:FILE. Default: "
            "bundled where SmolLM2 was fetched, else lstm.",
            show_default=False,
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    runs_dir: options.RunsDirOption = None,
    precision: options.PrecisionOption = "auto",
    context: Annotated[
        Path | None,
        typer.Option("--context", metavar="FILE", help="Lines before the text, each as NAME: text."),
    ] = None,
    cast: Annotated[
        str | None,
        typer.Option(
            "--cast",
            metavar="A,B,...",
            help="Speakers to choose from, for a model that knows none. Default: those in the context.",
        ),
    ] = None,
    by: Annotated[
        Literal["text", "lm"] | None,
        typer.Option(
            "--by",
            metavar="text|lm",
            help="Judge of the text: the run's text model, or the language model itself, by Bayes' rule: prior times "
            "likelihood, which is not calibrated. Default: text, or lm without a text model.",
            show_default=False,
        ),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show which speaker would say a text, and which words gave the speaker away.

    A speaker's probability is proportional to how likely the speaker is to speak after the context (without one, how
    often the speaker speaks), times the likelihood of the words and letters by the run's text model, each to a power
    that was fitted on validation lines, so that about 60 % of the guesses with 60 % are right.
    """
    if text == "-" and sys.stdin.isatty():
        raise InvalidInputError('TEXT is missing; give one, such as `lotr-tui who "we wants it"`')
    content = read_standard_input(MAX_TEXT_BYTES) if text == "-" else text
    if not content.strip():
        raise InvalidInputError("the text is empty; give at least one word")
    if (size := len(content.encode(errors="surrogateescape"))) > MAX_TEXT_BYTES:
        raise InvalidInputError(f"the text has {size:,} bytes; use at most {MAX_TEXT_BYTES:,} of it")
    script = "" if context is None else _read_context(context)
    from engine.runs.loading import load_model_by_name
    from lotr_tui.cli.dialogue.who_report import guess_speaker, print_guess, print_guess_as_json

    loaded = load_model_by_name(run, runs_dir, precision)
    names = None if cast is None else cast.split(",")
    report = guess_speaker(loaded, content, script, names, f"--context {context}", by)
    if as_json:
        print_guess_as_json(report)
    else:
        print_guess(report)


def _read_context(path: Path) -> str:
    """Read the lines before the text from a file; a file that is too large raises an InvalidInputError."""
    script = read_text_file(path)
    if (size := len(script.encode())) > MAX_CONTEXT_BYTES:
        raise InvalidInputError(f"--context {path} has {size:,} bytes; use at most {MAX_CONTEXT_BYTES:,}, from its end")
    return script
