"""`lotr-tui data`: description of a corpus, and the download of the film dialogues from Kaggle."""

from pathlib import Path
from typing import Annotated

import typer

from engine.config import Config
from engine.errors import InvalidInputError, LotrError, printable
from engine.storage.files import absolute_path
from lotr_tui.cli import options
from lotr_tui.cli.parser import add_command, make_group

DATASET = "paultimothymooney/lord-of-the-rings-data"
DATASET_FILE = "lotr_scripts.csv"

data_cli = make_group("Describe a corpus, or download the film dialogues.")


@data_cli.callback()
def data(context: typer.Context) -> None:
    """Describe a corpus, or download the film dialogues."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@add_command(data_cli, "info", "lotr-tui data info dialogues.csv --text-column line", "lotr-tui data info novel.txt")
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
    mode: options.ModeOption = None,
    split_seed: options.SplitSeedOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Describe a corpus and the splits that a training would make of it."""
    from lotr_tui.cli.reports import print_data_summary

    has_columns = text_column is not None or speaker_column is not None
    if plain and has_columns:
        raise InvalidInputError("--plain reads lines without columns; leave out --text-column and --speaker-column")
    choices = {"text_column": text_column, "speaker_column": speaker_column, "mode": mode, "split_seed": split_seed}
    config = Config().with_values(
        corpus=str(absolute_path(path)),  # absolute, so that no file name means the bundled corpus
        corpus_format="text" if plain or (path.suffix == ".txt" and not has_columns) else "csv",
        **{name: value for name, value in choices.items() if value is not None},
    )
    print_data_summary(config.data, as_json=as_json)


@add_command(data_cli, "fetch", "lotr-tui train --csv $(lotr-tui data fetch)")
def data_fetch() -> None:
    """Download the film dialogues from Kaggle, and print the path of the file."""
    print(printable(str(fetch_dataset())))


def fetch_dataset() -> Path:
    """Download the data set, or find it in the cache of kagglehub. Return the path of its CSV.

    Raises:
        InvalidInputError: If kagglehub is not installed.
        LotrError: If the download fails.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise InvalidInputError("data fetch needs kagglehub; pip install 'lotr-tui[kaggle]'") from error
    try:
        path = Path(kagglehub.dataset_download(DATASET)) / DATASET_FILE
    except Exception as error:  # kagglehub lets the exceptions of its HTTP client through
        raise LotrError(f"{DATASET} could not be downloaded: {error}; check the network and try again") from error
    if not path.is_file():
        names = ", ".join(file.name for file in path.parent.iterdir())
        raise LotrError(f"{DATASET} does not contain {DATASET_FILE} any more, but {names}; report this as a bug")
    return path
