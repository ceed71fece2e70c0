"""Download or cleaning of the pre-training text, with progress bars."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.storage.files import absolute_path

if TYPE_CHECKING:
    from rich.progress import Progress

    from engine.data.tales.corpus import TalesSummary


def fetch_tales(output: Path | None, mirror: str | None, source: Path | None) -> "TalesSummary":
    """Write the pre-training text from the books in `source`, or from books that are downloaded. Describe it on stderr.

    Raises:
        InvalidInputError: If an option cannot be used, or a file or an answer of a server is not the book it should be.
        LotrError: If the download fails or a file cannot be written.
    """
    from engine.data.tales import corpus, download
    from engine.data.tales.books import BOOKS

    mirror = download.GUTENBERG if mirror is None else mirror
    download.book_url(mirror, BOOKS[0])  # refuses a wrong address before anything is written
    folder = absolute_path(source) if source else corpus.tales_dir() / "books"
    if source:
        corpus.check_source_folder(folder, BOOKS)
    output = absolute_path(output) if output else corpus.prepare_tales_dir() / "tales.txt"
    corpus.check_output(output, folder, BOOKS)
    with _progress() as progress:
        if not source:
            downloaded = progress.add_task("downloading", total=sum(book.size for book in BOOKS))
            download.download_books(BOOKS, mirror, folder, lambda done: progress.update(downloaded, completed=done))
        cleaned = progress.add_task("cleaning", total=sum(book.size for book in BOOKS))
        summary = corpus.write_tales(folder, output, BOOKS, lambda book: progress.advance(cleaned, book.size))
    _describe_tales(summary)
    return summary


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Show bars on standard error if it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<11}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        yield progress


def _describe_tales(summary: "TalesSummary") -> None:
    if summary.other_editions:
        ids = ", ".join(str(book.id) for book in summary.other_editions)
        print(
            f"{len(summary.other_editions)} of {summary.num_books} books are other editions than the listed ones, so "
            f"the text differs a little: {ids}",
            file=sys.stderr,
        )
    print(
        f"{summary.num_books} books, {summary.num_words:,} words, {summary.num_characters:,} characters, "
        f"SHA-256 {summary.sha256}",
        file=sys.stderr,
    )
