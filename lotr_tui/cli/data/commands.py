"""`lotr-tui data`: description of a corpus, and speech of a book."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.config import Config
from engine.errors import InvalidInputError, printable
from engine.storage.files import absolute_path
from lotr_tui.cli import options
from lotr_tui.cli.parser import add_command, make_group

data_cli = make_group("Describe a corpus, or find the speech in it.")


@data_cli.callback()
def data(context: typer.Context) -> None:
    """Describe a corpus, or find the speech in it."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@add_command(
    data_cli,
    "info",
    "lotr-tui data info dialogues.csv --text-column line",
    "lotr-tui data info novel.txt --tokenizer bpe",
    "lotr-tui data info play.txt --mode dialogue",
)
def data_info(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="CSV; or plain text, if the name ends in .txt and no column is named."),
    ],
    plain: Annotated[
        bool, typer.Option("--plain", help="Read as plain text, whatever the file name.", rich_help_panel=options.DATA)
    ] = False,
    text_column: options.TextColumnOption = None,
    speaker_column: options.SpeakerColumnOption = None,
    tokenizer: options.TokenizerOption = None,
    vocabulary_size: options.VocabularySizeOption = None,
    mode: options.ModeOption = None,
    split: options.SplitOption = None,
    split_seed: options.SplitSeedOption = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change any setting of the data, such as scene_lines; repeatable.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Describe a corpus, its speakers, and the splits that a training would make of it."""
    from engine.training.initial_run import configure
    from lotr_tui.cli.data.summary import print_data_summary

    has_columns = text_column is not None or speaker_column is not None
    if plain and has_columns:
        raise InvalidInputError("--plain reads lines without columns; leave out --text-column and --speaker-column")
    options.check_vocabulary_size(vocabulary_size, tokenizer)
    choices = {
        "text_column": text_column,
        "speaker_column": speaker_column,
        "tokenizer": tokenizer,
        "vocabulary_size": vocabulary_size,
        "mode": mode,
        "split": split,
        "split_seed": split_seed,
    }

    def apply_options(config: Config) -> Config:
        return config.with_values(
            corpus=str(absolute_path(path)),  # absolute, so that no file name means the bundled corpus
            corpus_format="text" if plain or (path.suffix == ".txt" and not has_columns) else "csv",
            **{name: value for name, value in choices.items() if value is not None},
        ).with_overrides(assignments or [])

    print_data_summary(configure(Config(), apply_options).data, as_json=as_json)


@add_command(
    data_cli,
    "speech",
    "lotr-tui data speech novel.txt",
    'lotr-tui train --text "$(lotr-tui data speech novel.txt)"',
)
def data_speech(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Plain text with one paragraph per line.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="File of the speech. Default: NAME-speech.txt beside the text."),
    ] = None,
) -> None:
    """Write the text between quotation marks, one quotation per line. Print the path of the file."""
    from engine.data.tales import MIN_WORDS, write_speech  # imports numpy, and this module is read at every start

    source = absolute_path(path)
    target = absolute_path(output) if output else source.with_name(f"{source.stem}-speech.txt")
    number = write_speech(source, target)
    print(f"quotations of {MIN_WORDS} words or more: {number:,}", file=sys.stderr)
    print(printable(str(target)))
