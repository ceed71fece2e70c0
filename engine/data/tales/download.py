"""Download of books: one at a time, resumed where a connection broke off, and checked before use."""

import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from engine.data.tales.books import Book
from engine.data.tales.source import MAX_BOOK_BYTES, read_book
from engine.errors import CorpusError, InvalidInputError, LotrError
from engine.storage.lock import FileLock

GUTENBERG = "https://www.gutenberg.org"
BOOK_PATH = "/cache/epub/{id}/pg{id}.txt"
"""Path of the UTF-8 text of a book, on the site of Project Gutenberg and on its mirrors."""

ATTEMPTS = 4
"""Attempts at a book before the download fails."""
FIRST_BACKOFF = 1.0
"""Seconds before the second attempt; each further attempt waits twice as long."""
MAX_BACKOFF = 60.0
"""Maximum seconds to wait when a server asks for it."""
PAUSE = 2.0
"""Seconds between two books, which Project Gutenberg asks of programs."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
CHUNK_BYTES = 1 << 16

_BUSY = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that another attempt may not have."""

OnBytes = Callable[[int], None]
"""Function that is called with a number of bytes on the disk."""


class DownloadError(LotrError):
    """Error of a server, or of the connection to it."""


class _TemporaryError(Exception):
    """Failure that another attempt may not have."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        """Store the reason and the waiting time."""
        super().__init__(reason)
        self.wait = wait
        """Seconds to wait before the next attempt, if the server named them, or 0."""


class _IncompleteError(_TemporaryError):
    """Content that ended before its announced length."""


class _Partial(NamedTuple):
    """Files of an incomplete download."""

    content: Path
    """Path of the bytes so far."""
    validator: Path
    """Path of the ETag or the date of the file on the server, which must not change between two parts."""

    def size(self) -> int:
        """Return the number of bytes that another request can continue."""
        return self.content.stat().st_size if self.content.is_file() and self.validator.is_file() else 0

    def discard(self) -> None:
        """Delete the files."""
        self.content.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)


def book_url(mirror: str, book: Book) -> str:
    """Return the address of a book: `mirror` with `{id}` replaced, or followed by the usual path of a book.

    Raises:
        InvalidInputError: If `mirror` is not the address of a web server.
    """
    try:
        parts = urllib.parse.urlsplit(mirror)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[^!-~]", mirror):
        raise InvalidInputError(
            f"--mirror {mirror!r} is not the address of a web server; name one such as {GUTENBERG} or "
            "https://example.org/books/{id}.txt"
        )
    template = mirror if "{id}" in mirror else mirror.rstrip("/") + BOOK_PATH
    return template.replace("{id}", str(book.id))


def download_books(books: Sequence[Book], mirror: str, folder: Path, on_bytes: OnBytes) -> None:
    """Download the books that `folder` does not contain, one after the other with a pause.

    Args:
        books: The books.
        mirror: Address of a server; see `book_url`.
        folder: Folder of the files; it is created.
        on_bytes: Function that is called with the bytes of all books so far, counted with their listed sizes.

    Raises:
        InvalidInputError: If the server has no such book, or its answer is not the book.
        DownloadError: If the server fails or cannot be reached, the folder cannot be written, or another process
            downloads into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            done = 0
            requested = False
            for book in books:
                if not is_downloaded(book, folder):
                    if requested:
                        time.sleep(PAUSE)
                    requested = True

                    def report(num_bytes: int, before: int = done) -> None:
                        on_bytes(before + num_bytes)

                    download_book(book, mirror, folder, report)
                done += book.size
                on_bytes(done)
    except BlockingIOError as error:
        raise DownloadError(f"another process downloads into {folder}; wait until it has finished") from error
    except OSError as error:
        raise DownloadError(
            f"{folder} cannot be written: {error.strerror}; free some space, or set LOTR_TUI_HOME"
        ) from error


def is_downloaded(book: Book, folder: Path) -> bool:
    """Return True if `folder` contains a usable file of a book."""
    path = folder / book.file_name
    with suppress(OSError, CorpusError):
        return path.stat().st_size <= MAX_BOOK_BYTES and bool(read_book(path.read_bytes(), book, str(path)))
    return False


def download_book(book: Book, mirror: str, folder: Path, on_bytes: OnBytes) -> None:
    """Download a book into `folder`.

    Bytes of an earlier attempt are used if the file on the server is still the same. The file of the book appears only
    when the book is complete and has been checked.

    Raises:
        InvalidInputError: If the server has no such book, or its answer is not the book.
        DownloadError: If the server fails or cannot be reached.
        OSError: If the folder cannot be written.
    """
    url = book_url(mirror, book)
    partial = _Partial(folder / f"{book.id}.part", folder / f"{book.id}.validator")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(url, partial, on_bytes)
            break
        except _TemporaryError as error:
            if attempt == ATTEMPTS:
                raise _give_up(url, error, can_resume=partial.size() > 0) from error
            time.sleep(min(MAX_BACKOFF, max(error.wait, FIRST_BACKOFF * 2 ** (attempt - 1))))
    try:
        read_book(partial.content.read_bytes(), book, url)
    except CorpusError as error:
        partial.discard()
        raise CorpusError(f"{error}; try another --mirror") from error
    partial.content.replace(folder / book.file_name)
    partial.discard()


def _give_up(url: str, error: _TemporaryError, *, can_resume: bool) -> LotrError:
    remedy = "repeat the command to continue" if can_resume else "check the network"
    message = f"{url} could not be downloaded in {ATTEMPTS} attempts: {error}; {remedy}, or try another --mirror"
    return CorpusError(message) if isinstance(error, _IncompleteError) else DownloadError(message)


def _fetch(url: str, partial: _Partial, on_bytes: OnBytes) -> None:
    """Send one request, and append the content of the answer to the partial file."""
    request = urllib.request.Request(
        url, headers={"User-Agent": f"lotr-tui/{version('lotr-tui')}", "Accept": "text/plain"}
    )
    start = partial.size()
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", partial.validator.read_text(encoding="latin-1"))
    with _open(request, partial) as response:
        if response.status == 206 and _content_start(response) != start:
            partial.discard()
            raise _TemporaryError("the server sent another part of the file than asked for")
        if response.status != 206:
            start = 0
            partial.discard()
            if validator := _validator(response):
                partial.validator.write_text(validator, encoding="latin-1")
        length = response.headers.get("Content-Length")
        end = start + int(length) if length and length.isdecimal() else None
        with partial.content.open("ab") as file:
            while chunk := _read(response):
                start += len(chunk)
                if start > MAX_BOOK_BYTES:
                    file.close()
                    partial.discard()
                    raise CorpusError(f"{url} is longer than {MAX_BOOK_BYTES:,} bytes, so it is not a book")
                file.write(chunk)
                on_bytes(start)
    if end is not None and start != end:
        raise _IncompleteError(f"the connection broke off after {start:,} of {end:,} bytes")


def _open(request: urllib.request.Request, partial: _Partial) -> HTTPResponse:
    """Send a request and return the response, of status 200 or 206."""
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the file became shorter
            partial.discard()
            raise _TemporaryError("the file on the server changed") from error
        if error.code in _BUSY:
            wait = _seconds_to_wait(error.headers.get("Retry-After"))
            raise _TemporaryError(f"the server answered {error.code} {error.reason}", wait) from error
        if error.code in {404, 410}:
            raise InvalidInputError(
                f"{request.full_url} does not exist ({error.code}); try another --mirror"
            ) from error
        raise DownloadError(f"{request.full_url}: the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _TemporaryError(_describe(error)) from error
    return response


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _IncompleteError(f"the connection broke off: {_describe(error)}") from error


def _describe(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__


def _content_start(response: HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _validator(response: HTTPResponse) -> str | None:
    """Return the strong ETag or the date of a file, which a request for the rest of the file must repeat."""
    etag: str | None = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _seconds_to_wait(retry_after: str | None) -> float:
    """Return the seconds that a `Retry-After` header names, as a number or a date."""
    if not retry_after:
        return 0.0
    if retry_after.isdecimal():
        return float(retry_after)
    with suppress(ValueError, TypeError):  # not a date, or one without a time zone
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return 0.0
