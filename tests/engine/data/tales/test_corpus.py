"""The pre-training text: from a folder of books to one file."""

import hashlib
import os
import re
from pathlib import Path

import pytest

from engine.data.tales.books import BOOKS
from engine.data.tales.corpus import check_output, check_source_folder, write_tales
from engine.errors import CorpusError, InvalidInputError, LotrError
from tests.support.file_limits import no_file_longer_than
from tests.support.tales import PROSE, make_books

SMALL_BOOKS = make_books()
CHECKED_BOOKS = {11, 54, 778, 3155, 7439, 7477}
"""Books with each form of header, end notes, page numbers, Greek and curly quotes."""


@pytest.fixture
def folder(tmp_path):
    """Return a folder of small books."""
    path = tmp_path / "books"
    path.mkdir()
    for book, content in SMALL_BOOKS.items():
        (path / book.file_name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def tales_dir():
    """Return the folder of the real books, which are not part of the repository."""
    shared = os.environ.get("LOTR_TUI_SHARED") or Path(__file__).parents[5] / "shared"
    path = Path(shared) / "data" / "tales"
    if not path.is_dir():
        pytest.skip("needs ../shared/data/tales beside the checkout, or LOTR_TUI_SHARED")
    return path


def build(folder, output, books=tuple(SMALL_BOOKS)):
    """Write the text of small books."""
    return write_tales(folder, output, books, lambda book: None)


def test_the_text_has_a_paragraph_a_line_and_an_empty_line_between_books(folder, tmp_path):
    summary = build(folder, tmp_path / "tales.txt")
    text = (tmp_path / "tales.txt").read_text()
    first, second, third = text.split("\n\n")
    prose = " ".join(PROSE.split())
    assert first.splitlines()[1] == f"{prose} Then came traveller number 1 of day 1."
    assert [len(part.splitlines()) for part in (first, second, third)] == [11, 12, 13]
    assert text.endswith(".\n")
    assert (summary.num_books, summary.num_characters, summary.num_words) == (3, len(text), len(text.split()))
    assert summary.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert summary.other_editions == ()


def test_another_edition_is_named(folder, tmp_path):
    changed = folder / "2.txt"
    changed.write_bytes(changed.read_bytes().replace(b"ferryman", b"boatman"))
    summary = build(folder, tmp_path / "tales.txt")
    assert [book.id for book in summary.other_editions] == [2]
    assert "boatman" in (tmp_path / "tales.txt").read_text()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"<html></html>", b"a" * 9_000_000], ids=len)
def test_one_unusable_book_leaves_the_old_text(folder, tmp_path, content):
    (tmp_path / "tales.txt").write_text("old")
    (folder / "3.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=re.escape(str(folder / "3.txt"))):
        build(folder, tmp_path / "tales.txt")
    assert (tmp_path / "tales.txt").read_text() == "old"


def test_the_error_of_an_unusable_book_names_the_remedy(folder, tmp_path):
    (folder / "3.txt").write_bytes(b"<html></html>")
    with pytest.raises(CorpusError, match=r"; replace the file by the book as plain text$"):
        build(folder, tmp_path / "tales.txt")


def test_a_full_disk_leaves_the_old_text(folder, tmp_path):
    (tmp_path / "tales.txt").write_text("old")
    with no_file_longer_than(1000), pytest.raises(LotrError, match="cannot be written: File too large"):
        build(folder, tmp_path / "tales.txt")
    assert (tmp_path / "tales.txt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["books", "tales.txt"]


def test_missing_books_are_named(folder):
    (folder / "1.txt").unlink()
    (folder / "3.txt").unlink()
    with pytest.raises(InvalidInputError, match=r"lacks 2 of 3 books: 1.txt, 3.txt$"):
        check_source_folder(folder, list(SMALL_BOOKS))


@pytest.mark.parametrize(
    ("name", "message"),
    [("books", "is not a file"), ("none/tales.txt", "folder that does not exist"), ("books/1.txt", "replace a book")],
)
def test_an_output_that_cannot_be_written_is_refused(folder, tmp_path, name, message):
    with pytest.raises(InvalidInputError, match=message):
        check_output(tmp_path / name, folder, list(SMALL_BOOKS))


class TestRealBooks:
    @pytest.fixture(scope="class")
    def summary(self, tales_dir, tmp_path_factory):
        """Write the text of some real books."""
        books = [book for book in BOOKS if book.id in CHECKED_BOOKS]
        return write_tales(tales_dir, tmp_path_factory.mktemp("tales") / "tales.txt", books, lambda book: None)

    @pytest.fixture(scope="class")
    def text(self, summary):
        """Return the text of some real books."""
        return summary.path.read_text()

    def test_they_are_the_listed_editions(self, summary):
        assert summary.other_editions == ()

    def test_no_licence_and_no_marker_is_left(self, text):
        assert not re.search(r"gutenberg|\be-?book\b|\be-?text\b|footnote|\[|\]|_|\*|[“”‘’—\u00a0]| {2}|\r", text, re.I)
        assert not re.search(r"^(chapter|contents|the end|[ivxlc]+\.|\d+)\b.{0,20}$", text, re.I | re.M)

    def test_nearly_every_paragraph_is_a_sentence(self, text):
        paragraphs = [line for line in text.split("\n") if len(line) > 60]
        ended = sum(line[-1] in ".!?\"':,;-)" for line in paragraphs)
        assert ended > 0.995 * len(paragraphs)

    @pytest.mark.parametrize(
        "line",
        [
            "\nOnce upon a time there was a woman, and she baked five pies. And when they came out of the oven, ",
            "They did see it again, of course, but not in this story.",
            "I must first return to the Edge of the World. Behold, the caravans start.",
        ],
    )
    def test_first_and_last_sentences_are_there(self, text, line):
        assert line in text

    def test_most_of_each_book_is_kept(self, summary, tales_dir):
        raw = sum((tales_dir / f"{number}.txt").stat().st_size for number in CHECKED_BOOKS)
        assert 0.9 < summary.num_characters / (raw - 19_000 * len(CHECKED_BOOKS)) < 1
