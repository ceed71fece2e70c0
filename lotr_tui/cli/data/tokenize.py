"""`lotr-tui tokenize`: how a tokenizer splits a text."""

import sys
from typing import Annotated

import typer

from engine.errors import InvalidInputError
from lotr_tui.cli import options
from lotr_tui.cli.standard_input import read_standard_input

MAX_TEXT_BYTES = 1_000_000
"""Maximum size of a text on standard input."""


def tokenize(
    text: Annotated[str, typer.Argument(metavar="[TEXT|-]", help="Text; - or nothing: standard input.")] = "-",
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Model whose tokenizer is used: a run, hf:FOLDER, hf:owner/name or gguf:FILE. Default: the bundled "
            "model.",
            show_default=False,
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    runs_dir: options.RunsDirOption = None,
    tokenizer: options.TokenizerOption = None,
    vocabulary_size: options.VocabularySizeOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show how a text is split: by the tokenizer of a run, or by one that is learned from the bundled dialogues."""
    if run is not None and tokenizer is not None:
        raise InvalidInputError("--run has its own tokenizer; leave out --run or --tokenizer")
    options.check_vocabulary_size(vocabulary_size, tokenizer)
    if text == "-" and sys.stdin.isatty():
        raise InvalidInputError('TEXT is missing; give one, such as `lotr-tui tokenize "Where is Frodo"`')
    content = read_standard_input(MAX_TEXT_BYTES) if text == "-" else text
    content = content.removesuffix("\n")
    if not content:
        raise InvalidInputError("the text is empty; give at least one character")
    from lotr_tui.cli.data.token_report import find_tokenizer, print_tokens, print_tokens_as_json

    splitter, source = find_tokenizer(run, runs_dir, tokenizer, vocabulary_size)
    if as_json:
        print_tokens_as_json(content, splitter)
    else:
        print_tokens(content, splitter, source)
