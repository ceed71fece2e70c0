"""Books of Project Gutenberg: what is read and refused, their cleaning, their download, the text, and its speech."""

import hashlib
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import tales
from engine.errors import CorpusError, InvalidInputError, LotrError
from tests.support.files import no_file_longer_than
from tests.support.tales import END, PROSE, START, make_book_text, make_books, serve_books

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


class TestOneBook:
    @pytest.mark.parametrize("end", ENDS)
    def test_every_form_of_header_and_licence_is_removed(self, end):
        for start in STARTS:
            content = b"\xef\xbb\xbf" + make_book_text(PROSE * 5, start, end).replace("\n", "\r\n").encode()
            assert tales.read_body(content, "pg7.txt").strip() == (PROSE * 5).strip()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<!DOCTYPE html>\n<html><body>busy</body></html>", "has no line that starts with '*** START OF'"),
            (b"\x89PNG\r\n\x1a\n\0\0\0", "is not UTF-8 text (byte 0)"),
            (make_book_text(PROSE * 9).encode()[:1000], "is not a complete book"),
        ],
    )
    def test_what_is_no_book_is_refused(self, content, message):
        with pytest.raises(CorpusError) as refusal:
            tales.read_body(content, "pg7.txt")
        assert str(refusal.value).startswith("pg7.txt ")
        assert message in str(refusal.value)

    @pytest.mark.parametrize("filler", ["*", " ", "[", "a\n\n", "*** START OF "])
    def test_hostile_content_is_refused_in_linear_time(self, filler):
        with pytest.raises(CorpusError):
            tales.read_body((filler * 1_000_000)[:1_000_000].encode(), "pg7.txt")


CLEANED_PROSE = " ".join(PROSE.split())

MARKED_TEXT = st.text(
    st.one_of(st.sampled_from(list("ab AZ.,;!?()[]12--—“”‘’'\"*_ \n\u00a0…`\u0301|")), st.characters(codec="utf-8"))
)


def cleaned(*blocks, between="\n\n"):
    """Return the paragraphs of a body whose first block is prose, without that block."""
    first, *others = tales.clean_body(between.join([PROSE.strip(), *blocks]))
    assert first == CLEANED_PROSE
    return others


class TestParagraph:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("“It’s ‘late’,” he said.", "\"It's 'late',\" he said."),
            ("He said—and _meant_ it – so.", "He said--and meant it--so."),
            ("It was -- well -- late.", "It was--well--late."), ("Stop----", "Stop--"),
            ("Wait . . . what? And … so", "Wait ... what? And ... so"),
            ("A coracle [simple boat] came[12], and sank.[Footnote 3: Not at once.]", "A coracle came, and sank."),
            ("They lived “happily.”(3)", 'They lived "happily."'),
            ("Do (1) this and (2) that.", "Do (1) this and (2) that."),
            ("*THE* INTERIOR* of it", "THE INTERIOR of it"),
        ],
    )  # fmt: skip
    def test_typography_becomes_plain_and_notes_go(self, text, expected):
        assert tales.clean_paragraph(text) == expected

    @given(MARKED_TEXT)
    def test_a_cleaned_paragraph_has_no_marker_and_no_line_break_and_stays_as_it_is(self, text):
        paragraph = tales.clean_paragraph(text)
        assert not re.search(r"[_*|\[\]“”‘’—–…\u00a0\u00ad]|\s\s|[^\S ]|^ | $", paragraph)
        assert tales.clean_paragraph(paragraph) == paragraph


VERSE = "    The moon is high,\n    And the water low;\n      And who will row?\n      --Old Song"
CONTENTS = "CONTENTS\n\n  I. The Ferry      11\n  II. The Net . . . 17\n\n  Afterword"
SPLIT_BY_A_PAGE = [
    "They went down to the water, and there they saw that the old boat of the\nferryman had",
    "38               Full page line-art drawing.",
    "37\nbeen stolen, with the oars.",
]


class TestLayout:
    @pytest.mark.parametrize(
        ("blocks", "expected"),
        [
            (["It was a well-\nknown thing--\nso he said\nto me."], ["It was a well-known thing--so he said to me."]),
            (["a two-\nor three-year-old horse came."], ["a two- or three-year-old horse came."]),
            (["“Yes.”", "“No?” said he.", "“NO!”"], ['"Yes."', '"No?" said he.', '"NO!"']),
            ([VERSE], ["The moon is high,", "And the water low;", "And who will row?"]),
            ([PROSE.replace("nobody", "Nobody")], [CLEANED_PROSE.replace("nobody", "Nobody")]),  # full lines, no verse
            (SPLIT_BY_A_PAGE, [f"{' '.join(SPLIT_BY_A_PAGE[0].split())} been stolen, with the oars."]),
        ],
        ids=["wrapped", "hanging hyphen", "dialogue", "verse", "capitals", "page number"],
    )
    def test_lines_become_paragraphs(self, blocks, expected):
        assert cleaned(*blocks) == expected


class TestFurniture:
    @pytest.mark.parametrize(
        "block",
        [
            *("* * * * *", "------", "[Illustration: The ferry by night]", "[1] Vulture.", "(3) Grimm.", "12", "IV."),
            *("[Footnote 2: In the old tongue,\na boat.]", "* Newly rough-cast.", "CHAPTER IV", "BOOK TWO", "THE END"),
            *("Chapter 4. The Ferry", "[Transcriber's note: the macron has been left out.]"),
            *("THE FERRY COMES BACK", "ἐν ἀρχῇ ἦν ὁ λόγος", "(From the Portuguese.)", "CHAPTER 2\n\nWhat Did He?"),
        ],
    )
    def test_headings_notes_and_separators_go(self, block):
        assert cleaned(block, "“Yes,” said he.") == ['"Yes," said he.']

    def test_title_page_and_contents_go_and_a_preface_stays(self):
        title = "THE FERRY\n\nby\n\nA. Nobody\n\nAuthor of “The Net,” etc."
        assert tales.clean_body(f"{title}\n\n{CONTENTS}\n\n\nCHAPTER I\n\n{PROSE}") == [CLEANED_PROSE]
        assert cleaned("CONTENTS\n\n  The Ferry\n  The Net", PROSE) == [CLEANED_PROSE]

    def test_the_source_of_a_tale_goes_and_its_last_sentence_stays(self):
        end = ("THE NEXT TALE", "There was a king.")
        assert cleaned("They lived long.", "Grimm.", *end) == ["They lived long.", "There was a king."]
        for last in ("So it is.", "It is.", "“Grimm.”", "Oh Grimm!"):
            assert len(cleaned("They lived long.", last, *end)) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SQUIRE TRELAWNEY, Dr. Livesey, and the rest", "Squire Trelawney, Dr. Livesey, and the rest"),
        ('"STOP! he cried', '"Stop! he cried'),
        ("I saw A. B. Smith", "I saw A. B. Smith"),
    ],
)
def test_capitals_at_the_start_of_a_chapter_become_a_sentence(text, expected):
    assert tales.lower_opening(text, {"once", "the", "little", "have", "stop", "a"}) == expected


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "books"
    path.mkdir()
    for book, content in SMALL_BOOKS.items():
        (path / book.file_name).write_bytes(content)
    return path


def build(folder, output):
    return tales.write_tales(folder, output, tuple(SMALL_BOOKS))


class TestText:
    def test_it_has_a_paragraph_a_line_and_an_empty_line_between_books(self, folder, tmp_path):
        summary = build(folder, tmp_path / "tales.txt")
        text = (tmp_path / "tales.txt").read_text()
        books = text.split("\n\n")
        assert books[0].splitlines()[1] == f"{' '.join(PROSE.split())} Then came traveller number 1 of day 1."
        assert [len(book.splitlines()) for book in books] == [11, 12, 13]
        assert text.endswith(".\n")
        assert (summary.num_characters, summary.num_words) == (len(text), len(text.split()))
        assert summary.sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert summary.other_editions == ()
        changed = folder / "2.txt"
        changed.write_bytes(changed.read_bytes().replace(b"ferryman", b"boatman"))
        assert [book.id for book in build(folder, tmp_path / "tales.txt").other_editions] == [2]

    def test_an_unusable_book_or_a_full_disk_leaves_the_old_text(self, folder, tmp_path):
        (tmp_path / "tales.txt").write_text("old")
        with no_file_longer_than(1000), pytest.raises(LotrError, match=r"cannot write .*: File too large"):
            build(folder, tmp_path / "tales.txt")
        (folder / "3.txt").write_bytes(b"<html></html>")
        with pytest.raises(CorpusError, match=f"{folder}/3.txt is not a book"):
            build(folder, tmp_path / "tales.txt")
        (folder / "3.txt").write_bytes(b"a" * 9_000_000)
        with pytest.raises(CorpusError, match=r"3.txt cannot be read: larger than the limit of 8,000,000 bytes"):
            build(folder, tmp_path / "tales.txt")
        assert (tmp_path / "tales.txt").read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["books", "tales.txt"]

    def test_missing_books_and_an_output_that_is_one_are_named(self, folder, tmp_path):
        with pytest.raises(InvalidInputError, match="would replace a book"):
            build(folder, folder / "1.txt")
        (folder / "1.txt").unlink()
        (folder / "3.txt").unlink()
        with pytest.raises(InvalidInputError, match=r"lacks 2 of 3 books: 1.txt, 3.txt$"):
            build(folder, tmp_path / "tales.txt")


def test_the_listed_books_become_the_text_that_models_were_trained_on(tmp_path):
    shared = os.environ.get("LOTR_TUI_SHARED") or Path(__file__).parents[4] / "shared"
    folder = Path(shared) / "data" / "tales"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/tales beside the checkout, or LOTR_TUI_SHARED")
    summary = tales.write_tales(folder, tmp_path / "tales.txt")
    assert (len(tales.BOOKS), summary.num_words, summary.other_editions) == (49, 4_109_282, ())
    assert summary.sha256 == "511d5c4fabc1beb4bbab9c968a964ca2cc4fc38d36c46d2bb50cf7ce462a5f90"
    text = summary.path.read_text()
    markers = r"gutenberg|\be-?text\b|footnote|\[|\]|_|\*|[“”‘’—\u00a0]| {2}|\r"
    assert not re.search(markers, text, re.I)


@pytest.fixture
def waits(monkeypatch):
    """Return the seconds of waiting, which the tests leave out."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return seconds


@pytest.fixture
def mirror(waits):
    files = {f"/cache/epub/{book.id}/pg{book.id}.txt": content for book, content in SMALL_BOOKS.items()}
    with serve_books(files) as state:
        yield state


FIRST = next(iter(SMALL_BOOKS))


def fetch(mirror, folder):
    tales.download_books(folder, mirror.url, [FIRST])


def test_missing_books_are_requested_one_after_the_other_with_a_pause(mirror, tmp_path, waits):
    (tmp_path / "1.txt").write_bytes(SMALL_BOOKS[FIRST])
    tales.download_books(tmp_path, mirror.url, list(SMALL_BOOKS))
    assert mirror.requests == ["/cache/epub/2/pg2.txt", "/cache/epub/3/pg3.txt"]
    assert {book: (tmp_path / book.file_name).read_bytes() for book in SMALL_BOOKS} == SMALL_BOOKS
    assert [wait for wait in waits if wait] == [tales.PAUSE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>Please log in</body></html>", "is not a book of Project Gutenberg: .*; try another --mirror"),
        (b"x" * (tales.MAX_BOOK_BYTES + 1), "is longer than 8,000,000 bytes"),
    ],
    ids=["html", "long"],
)
def test_what_is_no_book_is_refused_and_not_kept(mirror, tmp_path, content, message):
    mirror.files["/cache/epub/1/pg1.txt"] = content
    with pytest.raises(InvalidInputError, match=f"{mirror.url}/cache/epub/1/pg1.txt {message}"):
        fetch(mirror, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_server_and_a_full_disk_are_reported_with_the_remedy(mirror, tmp_path):
    mirror.statuses = [404]
    with pytest.raises(LotrError, match=r"the server answered 404 .*try another --mirror"):
        fetch(mirror, tmp_path)
    with no_file_longer_than(1000), pytest.raises(LotrError, match="cannot be written: File too large; free some"):
        fetch(mirror, tmp_path)


@pytest.mark.parametrize(
    ("mirror", "url"),
    [
        ("https://example.org", "https://example.org/cache/epub/1/pg1.txt"),
        ("http://example.org:8080/pub/", "http://example.org:8080/pub/cache/epub/1/pg1.txt"),
        ("https://example.org/{id}/{id}-0.txt", "https://example.org/1/1-0.txt"),
    ],
)
def test_a_mirror_is_a_prefix_or_a_pattern(mirror, url):
    assert tales.book_url(mirror, FIRST) == url


@pytest.mark.parametrize("mirror", ["", "example.org", "file:///etc/passwd", "https://", "http://a b", "http://a/ b"])
def test_what_is_no_web_server_is_no_mirror(mirror):
    with pytest.raises(InvalidInputError, match="is not the address of a web server"):
        tales.book_url(mirror, FIRST)


@pytest.mark.parametrize(
    ("paragraph", "quotations"),
    [
        ("“Where are you going?” asked the smith.", ["Where are you going?"]),
        ('"I am going to the sea," said Ivo, "and I am late."', ["I am going to the sea", "and I am late."]),
        ("“We shall see about that.", ["We shall see about that."]),
        ("He read “The Wreck” aloud.", []),
        ("‘I’ve never been to the king’s hall,’ he said.", ["I’ve never been to the king’s hall"]),
        ("She said—‘come in out of the rain’—and shut the door.", ["come in out of the rain"]),
        ("“He said, ‘stay at home,’ and so I stay.”", ["He said, ‘stay at home,’ and so I stay."]),
        ("It’s the smiths’ road, and the miller’s.", []),
    ],
)
def test_speech_is_what_stands_between_quotation_marks(paragraph, quotations):
    assert tales.find_quotations(paragraph) == quotations


def test_every_quotation_becomes_a_line(tmp_path):
    text = "“One two three four,” he said, “five six seven eight.”\r\n\r\n“A b c d”\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert tales.write_speech(tmp_path / "a.txt", tmp_path / "b.txt") == 3
    assert (tmp_path / "b.txt").read_text() == "One two three four\nfive six seven eight.\nA b c d\n"


def test_bad_files_are_refused(tmp_path):
    text, silent = tmp_path / "a.txt", tmp_path / "silent.txt"
    text.write_text("“One two three four,” he said.\n")
    silent.write_text("Nobody said a word.\n")
    for source, output, message in (
        (silent, tmp_path / "out.txt", "contains no speech of 4 words"),
        (tmp_path / "nowhere.txt", text, "does not exist"),
        (text, text, "is the text itself"),
        (text, tmp_path / "no" / "out.txt", "No such file or directory; free some space or choose another --output"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            tales.write_speech(source, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "silent.txt"]
