"""Download of books from a server in a thread that misbehaves."""

import time

import pytest

from engine.data.tales import download
from engine.data.tales.download import DownloadError, book_url, download_book, download_books
from engine.data.tales.source import MAX_BOOK_BYTES
from engine.errors import CorpusError, InvalidInputError, LotrError
from engine.storage.lock import FileLock
from tests.support.book_server import serve_books
from tests.support.file_limits import no_file_longer_than
from tests.support.tales import make_books

BOOKS = make_books()
FIRST, CONTENT = next(iter(BOOKS.items()))


@pytest.fixture
def waits(monkeypatch):
    """Replace the waiting between requests; return the list of its seconds."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return seconds


@pytest.fixture
def mirror(waits):
    """Return a server of `BOOKS`."""
    with serve_books({f"/cache/epub/{book.id}/pg{book.id}.txt": content for book, content in BOOKS.items()}) as state:
        yield state


def fetch(mirror, folder, on_bytes=lambda num_bytes: None):
    """Download the first book."""
    download_book(FIRST, mirror.url, folder, on_bytes)


def names(folder):
    """Return the names of the files in `folder`."""
    return sorted(path.name for path in folder.iterdir())


def test_books_are_requested_one_after_the_other_with_a_pause(mirror, tmp_path, waits):
    sizes: list[int] = []
    download_books(list(BOOKS), mirror.url, tmp_path / "new" / "books", sizes.append)
    folder = tmp_path / "new" / "books"
    assert names(folder) == ["1.txt", "2.txt", "3.txt", "lock"]
    assert {book: (folder / book.file_name).read_bytes() for book in BOOKS} == BOOKS
    assert waits == [download.PAUSE] * 2
    assert sizes == sorted(sizes)
    assert sizes[-1] == sum(map(len, BOOKS.values()))
    assert {headers["User-Agent"].split("/")[0] for _, headers in mirror.requests} == {"lotr-tui"}


def test_downloaded_books_are_not_requested_again(mirror, tmp_path):
    (tmp_path / "1.txt").write_bytes(CONTENT)
    (tmp_path / "2.txt").write_bytes(CONTENT[:-800])  # not complete
    download_books(list(BOOKS), mirror.url, tmp_path, lambda num_bytes: None)
    assert [path for path, _ in mirror.requests] == ["/cache/epub/2/pg2.txt", "/cache/epub/3/pg3.txt"]


def test_a_broken_download_continues_where_it_ended(mirror, tmp_path, waits):
    mirror.break_after = [500, 700]
    fetch(mirror, tmp_path)
    assert mirror.ranges() == [None, "bytes=500-", "bytes=1200-"]
    assert waits == [1.0, 2.0]
    assert (tmp_path / "1.txt").read_bytes() == CONTENT
    assert names(tmp_path) == ["1.txt"]


def test_a_later_command_continues_the_download(mirror, tmp_path):
    mirror.break_after = [300, 1, 1, 1]
    with pytest.raises(CorpusError, match=r"broke off after 303 of .* repeat the command to continue"):
        fetch(mirror, tmp_path)
    assert names(tmp_path) == ["1.part", "1.validator"]
    fetch(mirror, tmp_path)
    assert mirror.ranges()[-1] == "bytes=303-"
    assert (tmp_path / "1.txt").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_book_again(mirror, tmp_path):
    mirror.resumable = False
    mirror.break_after = [500]
    fetch(mirror, tmp_path)
    assert mirror.ranges() == [None, None]
    assert (tmp_path / "1.txt").read_bytes() == CONTENT


def test_parts_of_two_editions_are_not_mixed(mirror, tmp_path):
    mirror.break_after = [500, 1, 1, 1]
    with pytest.raises(CorpusError):
        fetch(mirror, tmp_path)
    mirror.etag = '"2"'
    mirror.files["/cache/epub/1/pg1.txt"] = edition = CONTENT.replace(b"ferryman", b"boatman")
    fetch(mirror, tmp_path)
    assert mirror.ranges()[-1] == "bytes=503-"
    assert (tmp_path / "1.txt").read_bytes() == edition


def test_a_file_that_became_shorter_is_requested_from_its_start(mirror, tmp_path):
    (tmp_path / "1.part").write_bytes(b"x" * (len(CONTENT) + 5))
    (tmp_path / "1.validator").write_text(mirror.etag)
    fetch(mirror, tmp_path)
    assert (tmp_path / "1.txt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>Please log in</body></html>", "is an HTML page, not the plain text of 'The Ferry, part 1'"),
        (bytes(range(256)) * 10, "is not UTF-8 text"),
        (CONTENT * 2, "has .* bytes, but 'The Ferry, part 1' has about"),
        (b"", "is not a book of Project Gutenberg"),
    ],
)
def test_what_is_no_book_is_refused_and_deleted(mirror, tmp_path, content, message):
    mirror.files["/cache/epub/1/pg1.txt"] = content
    with pytest.raises(CorpusError, match=f"^{mirror.url}/cache/epub/1/pg1.txt {message}.*; try another --mirror"):
        fetch(mirror, tmp_path)
    assert names(tmp_path) == []


def test_an_endless_file_is_refused(mirror, tmp_path):
    mirror.files["/cache/epub/1/pg1.txt"] = CONTENT + b"x" * MAX_BOOK_BYTES
    with pytest.raises(CorpusError, match="is longer than 8,000,000 bytes"):
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


def test_a_server_that_cannot_be_reached_is_reported(waits, tmp_path):
    with serve_books({}) as mirror:
        pass
    with pytest.raises(DownloadError, match="in 4 attempts: Connection refused; check the network"):
        fetch(mirror, tmp_path)
    assert waits == [1.0, 2.0, 4.0]


def test_an_interrupted_download_leaves_only_what_can_be_continued(mirror, tmp_path):
    def interrupt(num_bytes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(mirror, tmp_path, interrupt)
    assert names(tmp_path) == ["1.part", "1.validator"]
    fetch(mirror, tmp_path)
    assert (tmp_path / "1.txt").read_bytes() == CONTENT


def test_two_downloads_do_not_share_a_folder(mirror, tmp_path):
    with FileLock(tmp_path / "lock"), pytest.raises(DownloadError, match="another process downloads into"):
        download_books([FIRST], mirror.url, tmp_path, lambda num_bytes: None)
    assert mirror.requests == []


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


NO_WEB_ADDRESSES = [
    "",
    "example.org",
    "file:///etc/passwd",
    "ftp://example.org",
    "https://",
    "http://[",
    "http://a:99999",
]


@pytest.mark.parametrize("mirror", [*NO_WEB_ADDRESSES, "http://a b"])
def test_what_is_no_web_address_is_refused(mirror):
    with pytest.raises(InvalidInputError, match="is not the address of a web server"):
        book_url(mirror, FIRST)


def test_a_full_disk_is_reported(mirror, tmp_path):
    with no_file_longer_than(1000), pytest.raises(DownloadError, match="cannot be written: File too large; free some"):
        download_books([FIRST], mirror.url, tmp_path, lambda num_bytes: None)
    assert "1.txt" not in names(tmp_path)
