"""Recognition of a book of Project Gutenberg, and of what is none."""

import pytest

from engine.data.tales.books import BOOKS, Book
from engine.data.tales.source import MAX_BOOK_BYTES, book_body, read_book
from engine.errors import CorpusError
from tests.support.tales import END, PROSE, START, make_book_text


def book_of(content):
    """Return a listed book of the size of `content`."""
    return Book(7, len(content), "", "The Ferry")


@pytest.mark.parametrize(
    "start",
    [
        START,
        "*** START OF THIS PROJECT GUTENBERG EBOOK THE FERRY ***",
        "***START OF THE PROJECT GUTENBERG EBOOK THE FERRY***",
        "*** START OF THIS PROJECT GUTENBERG EBOOK THE FERRY, BY\nNOBODY ***",
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        "*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.10/04/01*END*",
    ],
)
@pytest.mark.parametrize(
    "end",
    [
        END,
        "*** END OF THIS PROJECT GUTENBERG EBOOK THE FERRY ***",
        "***END OF THE PROJECT GUTENBERG EBOOK THE FERRY***",
        "End of Project Gutenberg’s The Ferry, by Nobody\n\n*** END OF THIS PROJECT GUTENBERG EBOOK THE FERRY ***",
        "End of the Project Gutenberg EBook of The Ferry, by\nNobody",
        "End of The Project Gutenberg Etext of The Ferry",
        "*Project Gutenberg Etext of The Ferry, by Nobody*",
    ],
)
def test_every_form_of_header_and_licence_is_removed(start, end):
    assert book_body(make_book_text(PROSE * 5, start, end), "book").strip() == (PROSE * 5).strip()


def test_windows_line_ends_and_a_byte_order_mark_are_read():
    content = b"\xef\xbb\xbf" + make_book_text(PROSE).replace("\n", "\r\n").encode()
    assert read_book(content, book_of(content), "book").strip() == PROSE.strip()


def test_another_edition_of_similar_length_is_read():
    content = make_book_text(PROSE * 20).encode()
    corrected = content.replace(b"ferryman", b"boatman")
    assert b"boatman" in read_book(corrected, book_of(content), "book").encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html><body>busy</body></html>", "is an HTML page"),
        (b'\n<?xml version="1.0"?><html xmlns="x">', "is an HTML page"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is not UTF-8 text (byte 0)"),
        (make_book_text(PROSE).encode("utf-16"), "is not UTF-8 text"),
        (make_book_text(f"{PROSE}\0").encode(), "contains NUL bytes"),
        (PROSE.encode(), "has no line that starts with '*** START OF'"),
        (make_book_text(PROSE * 9).encode()[:1000], "is not a complete book"),
        (b"", "has no line that starts with"),
    ],
)
def test_what_is_no_book_is_refused(content, message):
    with pytest.raises(CorpusError) as refusal:
        read_book(content, book_of(content), "pg7.txt")
    assert str(refusal.value).startswith("pg7.txt ")
    assert message in str(refusal.value)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_book_of_another_length_is_refused(factor):
    content = make_book_text(PROSE * 50).encode()
    with pytest.raises(CorpusError, match="but 'The Ferry' has about"):
        read_book(content, Book(7, int(len(content) / factor), "", "The Ferry"), "pg7.txt")


@pytest.mark.parametrize("filler", ["\n", "*", " ", "[", "-", "a\n\n", "*** START OF "])
def test_hostile_content_is_refused_in_linear_time(filler):
    content = (filler * 1_000_000)[:1_000_000].encode()
    with pytest.raises(CorpusError):
        read_book(content, book_of(content), "pg7.txt")


def test_the_list_names_49_books_with_checksums():
    assert len(BOOKS) == len({book.id for book in BOOKS}) == len({book.sha256 for book in BOOKS}) == 49
    assert all(len(bytes.fromhex(book.sha256)) == 32 and book.title for book in BOOKS)
    assert max(book.size for book in BOOKS) < MAX_BOOK_BYTES / 4
