"""Download of books from a server in a thread that misbehaves."""

import time

import pytest

from engine.data.tales import download
from engine.data.tales.download import DownloadError, book_url, download_book, download_books
from engine.data.tales.source import MAX_BOOK_BYTES
from engine.errors import CorpusError, InvalidInputError, LotrError
from engine.storage.lock import FileLock
from tests.support.files import no_file_longer_than
from tests.support.tales import make_books, serve_books

BOOKS = make_books()
FIRST, CONTENT = next(iter(BOOKS.items()))


@pytest.fixture
def waits(monkeypatch):
    """Return the seconds of waiting, which the tests leave out."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return seconds


@pytest.fixture
def mirror(waits):
    with serve_books({f"/cache/epub/{book.id}/pg{book.id}.txt": content for book, content in BOOKS.items()}) as state:
        yield state


def fetch(mirror, folder):
    download_book(FIRST, mirror.url, folder, lambda num_bytes: None)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_missing_books_are_requested_one_after_the_other_with_a_pause(mirror, tmp_path, waits):
    (tmp_path / "1.txt").write_bytes(CONTENT)
    (tmp_path / "2.txt").write_bytes(CONTENT[:-800])  # not complete
    sizes: list[int] = []
    download_books(list(BOOKS), mirror.url, tmp_path, sizes.append)
    assert [path for path, _ in mirror.requests] == ["/cache/epub/2/pg2.txt", "/cache/epub/3/pg3.txt"]
    assert names(tmp_path) == ["1.txt", "2.txt", "3.txt", "lock"]
    assert {book: (tmp_path / book.file_name).read_bytes() for book in BOOKS} == BOOKS
    assert waits == [download.PAUSE]
    assert sizes == sorted(sizes)
    assert sizes[-1] == sum(map(len, BOOKS.values()))


def test_a_broken_download_continues_where_it_ended(mirror, tmp_path, waits):
    mirror.break_after = [500, 700]
    fetch(mirror, tmp_path)
    assert mirror.ranges() == [None, "bytes=500-", "bytes=1200-"]
    assert waits == [1.0, 2.0]
    assert (tmp_path / "1.txt").read_bytes() == CONTENT
    assert names(tmp_path) == ["1.txt"]


def test_parts_of_two_editions_are_not_mixed(mirror, tmp_path):
    mirror.break_after = [500, 1, 1, 1]
    with pytest.raises(CorpusError, match=r"broke off after 503 of .* repeat the command to continue"):
        fetch(mirror, tmp_path)
    mirror.etag = '"2"'
    mirror.files["/cache/epub/1/pg1.txt"] = edition = CONTENT.replace(b"ferryman", b"boatman")
    assert names(tmp_path) == ["1.part", "1.validator"]
    fetch(mirror, tmp_path)
    assert mirror.ranges()[-1] == "bytes=503-"
    assert (tmp_path / "1.txt").read_bytes() == edition


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>Please log in</body></html>", "is an HTML page, not the plain text of 'The Ferry, part 1'"),
        (CONTENT * 2, "has .* bytes, but 'The Ferry, part 1' has about"),
        (b"", "is not a book of Project Gutenberg"),
        (CONTENT + b"x" * MAX_BOOK_BYTES, "is longer than 8,000,000 bytes"),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_what_is_no_book_is_refused_and_deleted(mirror, tmp_path, content, message):
    mirror.files["/cache/epub/1/pg1.txt"] = content
    with pytest.raises(CorpusError, match=f"{mirror.url}/cache/epub/1/pg1.txt {message}"):
        fetch(mirror, tmp_path)
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again_when_it_says(mirror, tmp_path, waits):
    mirror.statuses = [(503, {"Retry-After": "7"}), (429, {"Retry-After": "9999"}), (500, {})]
    fetch(mirror, tmp_path)
    assert waits == [7.0, download.MAX_BACKOFF, 4.0]


@pytest.mark.parametrize(("status", "requests"), [(503, download.ATTEMPTS), (403, 1), (404, 1)])
def test_a_failing_server_is_reported(mirror, tmp_path, status, requests):
    mirror.statuses = [(status, {})] * 10
    message = r"does not exist \(404\); try another --mirror" if status == 404 else f"the server answered {status}"
    with pytest.raises(LotrError, match=message):
        fetch(mirror, tmp_path)
    assert len(mirror.requests) == requests


def test_what_prevents_a_download_is_reported(mirror, tmp_path, waits):
    with serve_books({}) as stopped:
        pass
    with pytest.raises(DownloadError, match="in 4 attempts: Connection refused; check the network"):
        fetch(stopped, tmp_path)
    assert waits == [1.0, 2.0, 4.0]
    with FileLock(tmp_path / "lock"), pytest.raises(DownloadError, match="another process downloads into"):
        download_books([FIRST], mirror.url, tmp_path, lambda num_bytes: None)
    with no_file_longer_than(1000), pytest.raises(DownloadError, match="cannot be written: File too large; free some"):
        download_books([FIRST], mirror.url, tmp_path, lambda num_bytes: None)
    for address in ("", "example.org", "file:///etc/passwd", "ftp://example.org", "https://", "http://[", "http://a b"):
        with pytest.raises(InvalidInputError, match="is not the address of a web server"):
            book_url(address, FIRST)


@pytest.mark.parametrize(
    ("mirror", "url"),
    [
        ("https://example.org", "https://example.org/cache/epub/1/pg1.txt"),
        ("http://example.org:8080/pub/", "http://example.org:8080/pub/cache/epub/1/pg1.txt"),
        ("https://example.org/{id}/{id}-0.txt", "https://example.org/1/1-0.txt"),
    ],
)
def test_a_mirror_is_a_prefix_or_a_pattern(mirror, url):
    assert book_url(mirror, FIRST) == url
