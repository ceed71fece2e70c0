"""The downloads of `lotr-tui fetch`, with progress on standard error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import InvalidInputError, LotrError
from engine.storage.files import absolute_path

if TYPE_CHECKING:
    from rich.progress import Progress

    from engine.models.pretrained.fetch import FetchProgress

KAGGLE_DATASET = "paultimothymooney/lord-of-the-rings-data"
KAGGLE_FILE = "lotr_scripts.csv"
LINE_BYTES = 20_000_000
"""Bytes after which a line reports a download where there is no terminal."""


def fetch_smollm2_with_progress(source: Path | None) -> Path:
    """Fetch and store SmolLM2, or take it from the file `source`. Return the folder in which it is stored.

    Raises:
        InvalidInputError: If there is no usable source, or no space.
    """
    from engine.models.pretrained.fetch import fetch_smollm2
    from engine.models.pretrained.names import SMOLLM2, base_folder

    with _progress() as progress:
        task = progress.add_task("", total=None)
        last_text, last_bytes = "", 0

        def report(step: "FetchProgress") -> None:
            nonlocal last_text, last_bytes
            progress.update(task, description=step.text, completed=step.done_bytes, total=step.total_bytes or None)
            if progress.disable and (step.text != last_text or step.done_bytes >= last_bytes + LINE_BYTES):
                last_text, last_bytes = step.text, step.done_bytes
                size = f": {step.done_bytes / 1e6:.0f} of {step.total_bytes / 1e6:.0f} MB" if step.total_bytes else ""
                print(f"{step.text}{size}", file=sys.stderr, flush=True)

        origin = fetch_smollm2(report, given=None if source is None else absolute_path(source))
    print(f"SmolLM2 is ready; it came from {origin}. `lotr-tui` now starts with it", file=sys.stderr)
    return base_folder(SMOLLM2)


def fetch_dialogues() -> Path:
    """Download the data set, or find it in the cache of kagglehub. Return the path of its CSV.

    Raises:
        InvalidInputError: If kagglehub is not installed.
        LotrError: If the download fails.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise InvalidInputError("fetch dialogues needs kagglehub; pip install 'lotr-tui[kaggle]'") from error
    try:
        path = Path(kagglehub.dataset_download(KAGGLE_DATASET)) / KAGGLE_FILE
    except Exception as error:  # kagglehub lets the exceptions of its HTTP client through
        raise LotrError(
            f"{KAGGLE_DATASET} could not be downloaded: {error}; check the network and try again"
        ) from error
    if not path.is_file():
        names = ", ".join(file.name for file in path.parent.iterdir())
        raise LotrError(f"{KAGGLE_DATASET} does not contain {KAGGLE_FILE} any more, but {names}; report this as a bug")
    return path


def fetch_tales(output: Path | None, mirror: str | None, source: Path | None) -> Path:
    """Write the pre-training text from the books in `source`, or from books that are downloaded, and return its path.

    Raises:
        InvalidInputError: If an option cannot be used, or books are missing.
        LotrError: If the download fails, a file is not a book, or a file cannot be written.
    """
    from engine.data import tales
    from engine.storage.files import check_output

    mirror = tales.GUTENBERG if mirror is None else mirror
    tales.book_url(mirror, tales.BOOKS[0])  # refuses a wrong address before anything is written
    folder = absolute_path(source) if source else tales.tales_dir() / "books"
    output = absolute_path(output) if output else tales.tales_dir() / "tales.txt"
    check_output(output)
    with _progress(unit="books") as progress:
        if not source:
            downloaded = progress.add_task("downloading", total=len(tales.BOOKS))
            tales.download_books(folder, mirror, tales.BOOKS, lambda: progress.advance(downloaded))
        cleaned = progress.add_task("cleaning", total=len(tales.BOOKS))
        summary = tales.write_tales(folder, output, tales.BOOKS, lambda: progress.advance(cleaned))
    if summary.other_editions:
        ids = ", ".join(str(book.id) for book in summary.other_editions)
        print(
            f"{len(summary.other_editions)} of {len(tales.BOOKS)} books are other editions than the listed ones, so "
            f"the text differs a little: {ids}",
            file=sys.stderr,
        )
    print(
        f"{len(tales.BOOKS)} books, {summary.num_words:,} words, {summary.num_characters:,} characters, "
        f"SHA-256 {summary.sha256}",
        file=sys.stderr,
    )
    return summary.path


@contextmanager
def _progress(unit: Literal["bytes", "books"] = "bytes") -> "Iterator[Progress]":
    """Show bars on standard error if it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        yield progress
