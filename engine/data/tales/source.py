"""Books as Project Gutenberg publishes them: checks of a file, and removal of its header and licence."""

import re

from engine.data.tales.books import Book
from engine.errors import CorpusError

MAX_BOOK_BYTES = 8_000_000
"""Maximum size of a file; the longest book of the list has 1.4 MB."""
SIZE_TOLERANCE = 1.25
"""Factor by which an edition can be longer or shorter than the listed one; new licence texts are a tenth of a book."""

_START = re.compile(
    r"^\*{3} ?START OF TH(?:E|IS) PROJECT GUTENBERG E-?BOOK(?:[^*]{0,300}\*{3} *$|.*$)"
    r"|^\*END ?\*? ?THE SMALL PRINT!.*$",
    re.M,
)
_END = re.compile(
    r"^[^\w\n]*(?:END OF (?:THE |THIS )?PROJECT GUTENBERG|PROJECT GUTENBERG E-?TEXT OF)",
    re.M | re.I,
)
_HTML = re.compile(rb"\s*(?:<!doctype html|<\?xml|<html)", re.I)


def read_book(content: bytes, book: Book, name: str) -> str:
    """Return the text of a book without header and licence. `name` is the path or the address of the file.

    Another edition of the book is accepted: Project Gutenberg corrects its books from time to time.

    Raises:
        CorpusError: If the content is not text, is no complete book of Project Gutenberg, or has the length of another
            book.
    """
    if _HTML.match(content.removeprefix(b"\xef\xbb\xbf")):
        raise CorpusError(f"{name} is an HTML page, not the plain text of {book.title!r}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name} is not UTF-8 text (byte {error.start}), so it is not {book.title!r}") from error
    if "\0" in text:
        raise CorpusError(f"{name} contains NUL bytes, so it is not the text of {book.title!r}")
    body = book_body(text.replace("\r\n", "\n").replace("\r", "\n"), name)
    if not book.size / SIZE_TOLERANCE < len(content) < book.size * SIZE_TOLERANCE:
        raise CorpusError(f"{name} has {len(content):,} bytes, but {book.title!r} has about {book.size:,}")
    return body


def book_body(text: str, name: str) -> str:
    """Return the text between the header and the licence of a book.

    Raises:
        CorpusError: If one of the two is missing.
    """
    start = _START.search(text)
    if start is None:
        raise CorpusError(f"{name} is not a book of Project Gutenberg: it has no line that starts with '*** START OF'")
    end = _END.search(text, max(start.end(), len(text) // 2))
    if end is None:
        raise CorpusError(f"{name} is not a complete book: it has no line that starts with '*** END OF'")
    return text[start.end() : end.start()]
