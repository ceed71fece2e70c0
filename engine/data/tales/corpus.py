"""The pre-training text: cleaned books in one file."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.tales.books import Book
from engine.data.tales.cleaning import clean_body
from engine.data.tales.source import MAX_BOOK_BYTES, read_book
from engine.errors import CorpusError, InvalidInputError, LotrError
from engine.storage import files
from engine.storage.files import app_home, read_limited


@dataclass(frozen=True)
class TalesSummary:
    """Description of a pre-training text."""

    path: Path
    num_books: int
    num_characters: int
    """Number of characters, line ends included."""
    num_words: int
    """Number of words between spaces."""
    sha256: str
    """Checksum of the file."""
    other_editions: tuple[Book, ...]
    """Books whose file is not the listed edition."""


def tales_dir() -> Path:
    """Return the folder of the pre-training text and, in `books`, of the downloaded books."""
    return app_home() / "tales"


def prepare_tales_dir() -> Path:
    """Create the folder of the pre-training text and return it.

    Raises:
        LotrError: If the folder cannot be created.
    """
    folder = tales_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LotrError(f"{folder} cannot be created: {error.strerror}; set LOTR_TUI_HOME to another folder") from error
    return folder


def check_source_folder(folder: Path, books: Sequence[Book]) -> None:
    """Raise an InvalidInputError unless `folder` contains a file for each of `books`."""
    if not folder.is_dir():
        raise InvalidInputError(f"--from {folder} is not a folder; name the folder of the books, such as 11.txt")
    missing = [book.file_name for book in books if not (folder / book.file_name).is_file()]
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InvalidInputError(f"--from {folder} lacks {len(missing)} of {len(books)} books: {names}")


def check_output(output: Path, folder: Path, books: Sequence[Book]) -> None:
    """Raise an InvalidInputError if `output` cannot be written, or is the file of a book."""
    files.check_output(output)
    if any(output == folder / book.file_name for book in books):
        raise InvalidInputError(f"--output {output} would replace a book; name another file")


def write_tales(folder: Path, output: Path, books: Sequence[Book], on_book: Callable[[Book], None]) -> TalesSummary:
    """Clean the books in `folder` and write them to `output`, one paragraph a line and an empty line between books.

    Args:
        folder: Folder of the books as Project Gutenberg publishes them.
        output: File of the text; it appears when all books are cleaned.
        books: The books, in the order of the text.
        on_book: Function that is called after each book.

    Raises:
        CorpusError: If a file is not the book that its name says.
        LotrError: If the text cannot be written.
    """
    texts: list[str] = []
    other_editions: list[Book] = []
    for book in books:
        path = folder / book.file_name
        try:
            content = read_limited(path, MAX_BOOK_BYTES)
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != book.sha256:
            other_editions.append(book)
        try:
            body = read_book(content, book, str(path))
        except CorpusError as error:
            raise CorpusError(f"{error}; replace the file by the book as plain text") from error
        texts.append("".join(f"{paragraph}\n" for paragraph in clean_body(body)))
        on_book(book)
    text = "\n".join(texts)
    encoded = text.encode()
    files.write_output(output, encoded)
    return TalesSummary(
        path=output,
        num_books=len(books),
        num_characters=len(text),
        num_words=len(text.split()),
        sha256=hashlib.sha256(encoded).hexdigest(),
        other_editions=tuple(other_editions),
    )
