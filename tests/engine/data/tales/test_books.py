"""Books of Project Gutenberg: what is recognized and refused, and the pre-training text of a folder of them."""

import hashlib
import os
import re
from pathlib import Path

import pytest

from engine.data.tales.books import BOOKS, Book
from engine.data.tales.corpus import check_output, check_source_folder, write_tales
from engine.data.tales.source import read_book
from engine.errors import CorpusError, InvalidInputError, LotrError
from tests.support.files import no_file_longer_than
from tests.support.tales import END, PROSE, START, make_book_text, make_books

STARTS = [
    START,
    "***START OF THE PROJECT GUTENBERG EBOOK THE FERRY***",
    "*** START OF THIS PROJECT GUTENBERG EBOOK THE FERRY, BY\nNOBODY ***",
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
]
ENDS = [
    END,
    "***END OF THE PROJECT GUTENBERG EBOOK THE FERRY***",
    "End of Project Gutenberg’s The Ferry, by Nobody\n\n*** END OF THIS PROJECT GUTENBERG EBOOK THE FERRY ***",
    "End of the Project Gutenberg EBook of The Ferry, by\nNobody",
    "*Project Gutenberg Etext of The Ferry, by Nobody*",
]
SMALL_BOOKS = make_books()
CHECKED_BOOKS = {11, 54, 778, 3155, 7439, 7477}
"""Books with each form of header, end notes, page numbers, Greek and curly quotes."""


def read(content, size=None):
    return read_book(content, Book(7, size or len(content), "", "The Ferry"), "pg7.txt")


class TestOneBook:
    @pytest.mark.parametrize("end", ENDS)
    def test_every_form_of_header_and_licence_is_removed(self, end):
        for start in STARTS:
            content = b"\xef\xbb\xbf" + make_book_text(PROSE * 5, start, end).replace("\n", "\r\n").encode()
            assert read(content).strip() == (PROSE * 5).strip()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<!DOCTYPE html>\n<html><body>busy</body></html>", "is an HTML page"),
            (b"\x89PNG\r\n\x1a\n\0\0\0", "is not UTF-8 text (byte 0)"),
            (make_book_text(f"{PROSE}\0").encode(), "contains NUL bytes"),
            (PROSE.encode(), "has no line that starts with '*** START OF'"),
            (make_book_text(PROSE * 9).encode()[:1000], "is not a complete book"),
        ],
    )
    def test_what_is_no_book_is_refused(self, content, message):
        with pytest.raises(CorpusError) as refusal:
            read(content)
        assert str(refusal.value).startswith("pg7.txt ")
        assert message in str(refusal.value)

    @pytest.mark.parametrize("filler", ["*", " ", "[", "a\n\n", "*** START OF "])
    def test_hostile_content_is_refused_in_linear_time(self, filler):
        with pytest.raises(CorpusError):
            read((filler * 1_000_000)[:1_000_000].encode())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "books"
    path.mkdir()
    for book, content in SMALL_BOOKS.items():
        (path / book.file_name).write_bytes(content)
    return path


def build(folder, output):
    return write_tales(folder, output, tuple(SMALL_BOOKS), lambda book: None)


class TestText:
    def test_it_has_a_paragraph_a_line_and_an_empty_line_between_books(self, folder, tmp_path):
        summary = build(folder, tmp_path / "tales.txt")
        text = (tmp_path / "tales.txt").read_text()
        books = text.split("\n\n")
        assert books[0].splitlines()[1] == f"{' '.join(PROSE.split())} Then came traveller number 1 of day 1."
        assert [len(book.splitlines()) for book in books] == [11, 12, 13]
        assert text.endswith(".\n")
        assert (summary.num_books, summary.num_characters, summary.num_words) == (3, len(text), len(text.split()))
        assert summary.sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert summary.other_editions == ()
        changed = folder / "2.txt"
        changed.write_bytes(changed.read_bytes().replace(b"ferryman", b"boatman"))
        assert [book.id for book in build(folder, tmp_path / "tales.txt").other_editions] == [2]

    def test_an_unusable_book_or_a_full_disk_leaves_the_old_text(self, folder, tmp_path):
        (tmp_path / "tales.txt").write_text("old")
        with no_file_longer_than(1000), pytest.raises(LotrError, match="cannot be written: File too large"):
            build(folder, tmp_path / "tales.txt")
        (folder / "3.txt").write_bytes(b"<html></html>")
        with pytest.raises(CorpusError, match=rf"{folder}/3.txt .*; replace the file by the book as plain text$"):
            build(folder, tmp_path / "tales.txt")
        (folder / "3.txt").write_bytes(b"a" * 9_000_000)
        with pytest.raises(CorpusError, match=r"3.txt cannot be read: larger than the limit of 8,000,000 bytes"):
            build(folder, tmp_path / "tales.txt")
        assert (tmp_path / "tales.txt").read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["books", "tales.txt"]

    def test_missing_books_and_unusable_outputs_are_named(self, folder, tmp_path):
        for name, message in (
            ("books", "is not a file"),
            ("none/tales.txt", "folder that does not exist"),
            ("books/1.txt", "replace a book"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                check_output(tmp_path / name, folder, list(SMALL_BOOKS))
        (folder / "1.txt").unlink()
        (folder / "3.txt").unlink()
        with pytest.raises(InvalidInputError, match=r"lacks 2 of 3 books: 1.txt, 3.txt$"):
            check_source_folder(folder, list(SMALL_BOOKS))


def test_real_books_are_cleaned(tmp_path):
    shared = os.environ.get("LOTR_TUI_SHARED") or Path(__file__).parents[5] / "shared"
    folder = Path(shared) / "data" / "tales"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/tales beside the checkout, or LOTR_TUI_SHARED")
    books = [book for book in BOOKS if book.id in CHECKED_BOOKS]
    summary = write_tales(folder, tmp_path / "tales.txt", books, lambda book: None)
    text = summary.path.read_text()
    assert summary.other_editions == ()
    markers = r"gutenberg|\be-?book\b|\be-?text\b|footnote|\[|\]|_|\*|[“”‘’—\u00a0]| {2}|\r"
    assert not re.search(markers, text, re.I)
    assert not re.search(r"^(chapter|contents|the end|[ivxlc]+\.|\d+)\b.{0,20}$", text, re.I | re.M)
    paragraphs = [line for line in text.split("\n") if len(line) > 60]
    assert sum(line[-1] in ".!?\"':,;-)" for line in paragraphs) > 0.995 * len(paragraphs)
    assert "\nOnce upon a time there was a woman, and she baked five pies. And when they came out of the oven, " in text
    assert "They did see it again, of course, but not in this story." in text
    raw = sum((folder / book.file_name).stat().st_size for book in books)
    assert 0.9 < summary.num_characters / (raw - 19_000 * len(CHECKED_BOOKS)) < 1
