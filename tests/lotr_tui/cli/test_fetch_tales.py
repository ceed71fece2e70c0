"""`lotr-tui data fetch tales`: from a server or a folder to one file."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.data.tales import books, download
from engine.errors import CorpusError
from lotr_tui.cli.main import cli
from tests.support.book_server import serve_books
from tests.support.tales import make_books

BOOKS = make_books()

FETCH_SMALL_BOOKS = """
import sys
from engine.data.tales import books
from lotr_tui.__main__ import main
from tests.support.tales import make_books
books.BOOKS = tuple(make_books())
sys.argv = ["lotr-tui", "data", "fetch", "tales", *sys.argv[1:]]
main()
"""


@pytest.fixture
def mirror(monkeypatch):
    """Return a server of three small books, which are the listed ones."""
    monkeypatch.setattr(books, "BOOKS", tuple(BOOKS))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve_books({f"/cache/epub/{book.id}/pg{book.id}.txt": content for book, content in BOOKS.items()}) as state:
        yield state


def fetch(*arguments):
    """Run `lotr-tui data fetch tales` in this process."""
    cli(["data", "fetch", "tales", *map(str, arguments)], standalone_mode=False)


def test_books_of_a_mirror_become_one_file_in_the_data_folder(mirror, home, capsys):
    fetch("--mirror", mirror.url)
    printed = capsys.readouterr()
    path = home / "tales" / "tales.txt"
    assert printed.out == f"{path}\n"
    assert printed.err.startswith("3 books, ")
    assert len(path.read_text().split("\n\n")) == 3
    assert [request for request, _ in mirror.requests] == [f"/cache/epub/{n}/pg{n}.txt" for n in (1, 2, 3)]


def test_a_second_command_downloads_nothing(mirror, home, tmp_path):
    fetch("--mirror", mirror.url)
    fetch("--mirror", mirror.url, "--output", tmp_path / "again.txt")
    assert len(mirror.requests) == 3
    assert (tmp_path / "again.txt").read_bytes() == (home / "tales" / "tales.txt").read_bytes()


def test_another_edition_is_a_warning(mirror, home, capsys):
    address = "/cache/epub/2/pg2.txt"
    mirror.files[address] = mirror.files[address].replace(b"ferryman", b"boatman")
    fetch("--mirror", mirror.url)
    assert "1 of 3 books are other editions" in capsys.readouterr().err
    assert "boatman" in (home / "tales" / "tales.txt").read_text()


def test_a_page_in_place_of_the_last_book_leaves_the_old_text(mirror, tmp_path):
    output = tmp_path / "tales.txt"
    output.write_text("old")
    mirror.files["/cache/epub/3/pg3.txt"] = b"<!DOCTYPE html><title>Too many requests</title>"
    with pytest.raises(CorpusError, match=r"pg3\.txt is an HTML page, not the plain text of 'The Ferry, part 3'"):
        fetch("--mirror", mirror.url, "--output", output)
    assert output.read_text() == "old"


def test_books_of_a_folder_need_no_network(mirror, home, tmp_path):
    for book, content in BOOKS.items():
        (tmp_path / book.file_name).write_bytes(content)
    fetch("--from", tmp_path)
    assert (home / "tales" / "tales.txt").is_file()
    assert mirror.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tale",), "tale is not one of tales"),
        (("--output", "a.txt"), "--output a.txt is for the tales"),
        (("tales", "--mirror", "gutenberg.org"), "is not the address of a web server"),
        (("tales", "--mirror", ""), "is not the address of a web server"),
        (("tales", "--mirror", "https://a.org", "--from", "."), "use one of the two"),
        (("tales", "--from", "nowhere"), "is not a folder"),
        (("tales", "--from", "."), "lacks 49 of 49 books: 11.txt, 12.txt, 16.txt, 54.txt, 55.txt and 44 more"),
        (("tales", "--output", "."), "is not a file"),
        (("tales", "--output", "no/where.txt"), "in a folder that does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused(refused, home, arguments, message):
    assert message in refused("data", "fetch", *arguments)
    assert not (home / "tales" / "books").exists()


def test_a_folder_of_other_files_is_refused(refused, tmp_path, home):
    for book in books.BOOKS:
        (tmp_path / book.file_name).write_bytes(b"\x89PNG\r\n")
    assert f"{tmp_path / '11.txt'} is not UTF-8 text" in refused("data", "fetch", "tales", "--from", str(tmp_path))
    assert not (home / "tales" / "tales.txt").exists()


def test_an_interrupt_leaves_no_text_and_a_download_to_continue(tmp_path, environment):
    output = tmp_path / "tales.txt"
    output.write_text("old")
    with serve_books({"/1.txt": next(iter(BOOKS.values()))}) as mirror:
        mirror.statuses = [(503, {"Retry-After": "50"})] * 9
        process = subprocess.Popen(
            [sys.executable, "-c", FETCH_SMALL_BOOKS, "--mirror", f"{mirror.url}/{{id}}.txt", "--output", str(output)],
            env={**environment(tmp_path / "home"), "PYTHONPATH": str(Path.cwd()), "no_proxy": "127.0.0.1"},
            stderr=subprocess.PIPE,
            text=True,
            # A job in the background of a shell ignores interrupts, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 30
        while not mirror.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "tales.txt"]
