"""Pre-training corpus: old English fantasy and adventure books of Project Gutenberg, one paragraph a line."""

import hashlib
import operator
import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from engine.data.corpus import read_whole_text
from engine.errors import CorpusError, InvalidInputError, LotrError
from engine.runtime.download import download
from engine.storage.files import app_home, assets_dir, read_limited, write_atomically

GUTENBERG = "https://www.gutenberg.org"
BOOK_PATH = "/cache/epub/{id}/pg{id}.txt"  # of the UTF-8 text of a book, on the site and on its mirrors
MAX_BOOK_BYTES = 8_000_000  # maximum size of a file; the longest book of the list has 1.4 MB
PAUSE = 2.0  # seconds between two books, which Project Gutenberg asks of programs


class Book(NamedTuple):
    """One book of Project Gutenberg, first published before 1929."""

    id: int
    sha256: str
    title: str

    @property
    def file_name(self) -> str:
        return f"{self.id}.txt"


BOOKS = tuple(  # in the order of the text
    Book(int(id), *others)
    for id, *others in (line.split(maxsplit=2) for line in (assets_dir() / "tales.txt").read_text().splitlines())
)


class TalesSummary(NamedTuple):
    path: Path
    num_characters: int  # line ends included
    num_words: int  # between spaces
    sha256: str
    other_editions: tuple[Book, ...]  # books whose file is not the listed edition, since some are corrected


def tales_dir() -> Path:
    """Create the folder of the text and, in `books`, of the downloaded books; return it, or raise a LotrError."""
    folder = app_home() / "tales"
    try:
        (folder / "books").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LotrError(f"{folder} cannot be created: {error.strerror}; set LOTR_TUI_HOME to another folder") from error
    return folder


def write_tales(
    folder: Path, output: Path, books: Sequence[Book] = BOOKS, on_book: Callable[[], object] = bool
) -> TalesSummary:
    """Clean the files of books in `folder`, and write them to `output`; what prevents it raises a LotrError."""
    paths = [folder / book.file_name for book in books]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InvalidInputError(f"{folder} lacks {len(missing)} of {len(books)} books: {', '.join(missing)}")
    if output in paths:
        raise InvalidInputError(f"--output {output} would replace a book; name another file")
    texts, other_editions = [], []
    for path, book in zip(paths, books, strict=True):
        try:
            content = read_limited(path, MAX_BOOK_BYTES)
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != book.sha256:
            other_editions.append(book)
        texts.append("".join(f"{paragraph}\n" for paragraph in clean_body(read_body(content, str(path)))))
        on_book()
    text = "\n".join(texts)
    write_atomically(output, text.encode(), option="--output")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return TalesSummary(output, len(text), len(text.split()), sha256, tuple(other_editions))


# Download


def book_url(mirror: str, book: Book) -> str:
    """Return the address of a book: `mirror` with `{id}` replaced, or followed by the usual path of a book."""
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(?:/[!-~]*)?", mirror, re.ASCII):
        raise InvalidInputError(
            f"--mirror {mirror!r} is not the address of a web server; name one such as {GUTENBERG} or "
            "https://example.org/books/{id}.txt"
        )
    template = mirror if "{id}" in mirror else mirror.rstrip("/") + BOOK_PATH
    return template.replace("{id}", str(book.id))


def download_books(
    folder: Path, mirror: str = GUTENBERG, books: Sequence[Book] = BOOKS, on_book: Callable[[], object] = bool
) -> None:
    """Download the books that `folder` does not contain, one after the other; a failure raises a LotrError."""
    num_downloaded = 0
    for book in books:
        path, url = folder / book.file_name, book_url(mirror, book)
        if not path.is_file():
            if num_downloaded:
                time.sleep(PAUSE)
            num_downloaded += 1
            partial = path.with_suffix(".part")
            try:
                partial.unlink(missing_ok=True)
                download(url, partial, MAX_BOOK_BYTES)
                read_body(partial.read_bytes(), url)
                partial.rename(path)
            except LotrError as error:
                partial.unlink(missing_ok=True)
                raise type(error)(f"{error}; try another --mirror") from error
            except OSError as error:
                raise LotrError(
                    f"{folder} cannot be written: {error.strerror}; free some space, or set LOTR_TUI_HOME"
                ) from error
        on_book()


# Header and licence of a file

_START = re.compile(
    r"^\*{3} ?START OF TH(?:E|IS) PROJECT GUTENBERG E-?BOOK[^*]{0,300}\*{3} *$|^\*END ?\*? ?THE SMALL PRINT!.*$", re.M
)
_END = re.compile(r"^[^\w\n]*(?:END OF (?:THE |THIS )?PROJECT GUTENBERG|PROJECT GUTENBERG E-?TEXT OF)", re.M | re.I)


def read_body(content: bytes, name: str) -> str:
    """Return the text of a book without header and licence, or raise a CorpusError if `name` is not a whole book."""
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name} is not UTF-8 text (byte {error.start}), so it is not a book") from error
    start = _START.search(text)
    if start is None:
        raise CorpusError(f"{name} is not a book of Project Gutenberg: it has no line that starts with '*** START OF'")
    end = _END.search(text, max(start.end(), len(text) // 2))
    if end is None:
        raise CorpusError(f"{name} is not a complete book: it has no line that starts with '*** END OF'")
    return text[start.end() : end.start()]


# Cleaning

_NUMBER = r"(?:[ivxlc]+|\d+)"
_NOTE = re.compile(
    r"\[\d+\]|\(\d+\)|\*+\s?[A-Z(]|\[\s?[*+]|\[(?:footnote|later editions)|"
    r"(?:\d+\s+)?(?:full page )?line-art drawing",
    re.I,
)
_SMALL_WORD = re.compile(r"(?:an?|the|of|in|on|at|to|and|or|for|with|by|from|as|into|his|her|their|la|de)$", re.I)
_NOTE_MARKERS = re.compile(r"(?:(?<=[\w.,;!?])|(?<=\S[\"']))(?:\(\d+\))+|(?: ?\(\d+\))+$")
_CHARACTERS = str.maketrans(
    dict.fromkeys("‘’`´", "'")
    | dict.fromkeys("“”", '"')
    | dict.fromkeys("–—―", "--")
    | dict.fromkeys("\u00ad\u200b\ufeff*_|", "")
    | {"…": "...", "[": "(", "]": ")"}  # without a closing bracket, as in Alice
)


class _Block(NamedTuple):
    """Lines between two blank lines."""

    lines: list[str]  # without trailing spaces
    gap: int  # number of blank lines before the block
    text: str  # the lines joined, with single spaces
    width: int  # length of the longest line without its indentation


def _split_blocks(text: str) -> Iterator[_Block]:
    gap = 0
    for is_blank, group in groupby(map(str.rstrip, text.split("\n")), key=operator.not_):
        lines = [*group]
        if is_blank:
            gap = len(lines)
        else:
            if len(lines) > 1 and re.fullmatch(r"\d{1,3}", lines[0]):  # a page number
                del lines[0]
            yield _Block(lines, gap, " ".join(" ".join(lines).split()), max(len(line.strip()) for line in lines))


def clean_body(body: str) -> list[str]:
    """Return the cleaned paragraphs of a book without licence, each line of a verse as one paragraph."""
    blocks = [*_split_blocks(body)]
    lengths = sorted(len(line) for block in blocks for line in block.lines if len(line) > 40)
    wrap = lengths[int(0.95 * len(lengths))]  # the column at which prose is wrapped
    lower_words = set(re.findall(r"\b[a-z]+\b", body))
    kept: list[str] = []
    unfinished: _Block | None = None  # the block of the last paragraph, if a page ended in the middle of its sentence
    in_front_matter = True  # title page and contents: everything before the first prose
    after_heading = False
    for block in blocks:
        if re.match(r"(?:NOTES AND REFERENCES|NOTE TO CHAPTER [IVXLC.]+)$", block.text) and len(kept) > 100:
            break  # tables of contents name the same heading
        if re.match(r"(?:contents?|list of [a-z ]+)[.:]?$", block.lines[0].strip(" _*"), re.I):
            in_front_matter = True
        elif _is_furniture(block.text):
            continue
        elif _is_heading(block, after_heading):
            after_heading = True
            _drop_source(kept)
        elif pieces := _paragraphs(block, wrap) if not in_front_matter or _is_prose(block, wrap) else []:
            if after_heading:
                pieces[0] = lower_opening(pieces[0], lower_words)
            first = pieces[0][0]
            is_joined = first.islower() or (unfinished and first.isalpha() and len(unfinished.lines[-1]) > wrap - 15)
            if unfinished and len(pieces) == 1 and is_joined:
                pieces[0] = _unwrap([kept.pop(), pieces[0]])
            kept.extend(pieces)
            unfinished = block if len(pieces) == 1 and re.search(r"[\w,;]$|\w-$", pieces[0][-2:]) else None
            in_front_matter = after_heading = False
    _drop_source(kept)
    return kept


def _is_furniture(text: str) -> bool:
    """Return True for a separator, a note, a picture's caption or letters that are not Latin."""
    return bool(
        not re.search(r"[^\W_]", text)
        or _NOTE.match(text)
        or (text[0] + text[-1] == "()" and len(text) < 200)
        or text.count("|") > 2
        or (not text.isascii() and re.search(r"[\u0370-\u03ff]{2}|[\u0300-\u036f]", text))
    )


def _is_heading(block: _Block, after_heading: bool) -> bool:
    """Return True for the number or the title of a chapter or a story."""
    bare = block.text.strip("_* ")
    if not re.search(r"[a-z]", bare):
        return after_heading or bare[:1] not in "\"'“‘" or block.lines[0].startswith(" " * 8)
    if len(block.lines) > 3:
        return False
    if re.match(rf"chapter\s+{_NUMBER}\b|{_NUMBER}[.:]?$", bare, re.I) or (after_heading and _is_title_case(bare)):
        return True
    is_title = not re.search(r"[.!?,;:\"'”’)-]$", bare) or re.match(rf"{_NUMBER}[.:]?\s+\S", bare, re.I) is not None
    return is_title and len(block.lines) == 1 and len(bare) < 90 and block.gap > 1


def _is_prose(block: _Block, wrap: int) -> bool:
    is_wrapped = len(block.lines) > 1 and block.width > wrap - 12 and not block.lines[0].startswith("  ")
    return is_wrapped and block.text.rstrip("\"'”’)_*")[-1:] in set(".!?:,;-—") and not _is_title_case(block.text)


def _is_title_case(text: str) -> bool:
    longer = [word for word in re.findall(r"[^\W\d_][\w'’]*", text) if not _SMALL_WORD.match(word)]
    return bool(longer) and sum(word[0].isupper() for word in longer) >= 0.8 * len(longer)


def _drop_source(kept: list[str]) -> None:
    """Remove the paragraph at the end of a tale that names where the tale was taken from."""
    if kept and kept[-1][0] not in "\"'" and kept[-1][-1] not in '!?"' and _is_title_case(kept[-1]):
        del kept[-1]


def _paragraphs(block: _Block, wrap: int) -> list[str]:
    capitals = sum(line.lstrip(" \"'“‘_([-—*")[:1].isupper() for line in block.lines)
    if len(block.lines) > 1 and block.width <= wrap - 10 and capitals >= 0.75 * len(block.lines):
        lines = [line for line in map(clean_paragraph, block.lines) if re.search(r"[a-z]", line)]
        return [line for line in lines if not re.match(r"(?:--|—)\s?[A-Z][^!?]{0,50}(?<![,;:])$", line)]  # no sources
    paragraph = clean_paragraph(_unwrap(block.lines))
    return [paragraph] if re.search(r"\w", paragraph) else []


def _unwrap(lines: Sequence[str]) -> str:
    """Return wrapped lines as one line. A hyphen or a dash at the end of a line joins without a space."""
    joined = lines[0].strip()
    for line in map(str.strip, lines[1:]):
        is_compound = re.fullmatch(r"\w-", joined[-2:]) and not re.match(r"(?:and|or|to)\b", line)
        joined += line if is_compound or joined.endswith("--") else f" {line}"
    return joined


def clean_paragraph(text: str) -> str:
    """Return a paragraph in plain characters, without notes, emphasis marks and repeated spaces."""
    text = " ".join(re.sub(r"\[[^\[\]]*\]", "", text).translate(_CHARACTERS).split())
    if "--" in text:
        text = re.sub(r"-{3,}", "----", text)  # in place of a name
        text = re.sub(r"(?<=[^\s-])----", "--", text)
        text = re.sub(r"(?<=[^\s-]) ?--(?!-) ?(?=[^\s-])", "--", text)
    text = re.sub(r"\.(?: \.){2,}", lambda match: match[0].replace(" ", ""), text)
    text = re.sub(r" (?=[,;:.?!](?:[ \"')]|$))", "", text)
    return _NOTE_MARKERS.sub("", text).strip() if "(" in text else text.strip()


def lower_opening(text: str, lower_words: set[str]) -> str:
    """Return a paragraph without the capitals that start a chapter, except of words that are not in `lower_words`."""
    match = re.match(r"[\"']?((?:[A-Z][A-Z']*(?![\w.])[ ,]*)+)", text)
    if match is None:
        return text
    words = re.split(r"([ ,]+)", match[1])
    opening = "".join(word.lower() if word.lower() in lower_words else word.capitalize() for word in words)
    return text[: match.start(1)] + opening[:1].upper() + opening[1:] + text[match.end() :]


# Speech in prose: training text that is nearer to dialogue than a whole book

MIN_WORDS = 4  # shortest quotation that is kept; shorter ones are mostly titles, single words and cries

_DOUBLE = re.compile(r'[“"]([^“”"]+)(?:[”"]|$)')
# A single quotation mark is an apostrophe too, unless it is where a word begins or ends.
_SINGLE = re.compile(r"(?:(?<=[\s—(])|^)‘(.+?)’(?=[\s—)]|$)")


def find_quotations(paragraph: str) -> list[str]:
    """Return the quotations in a paragraph, without quotation marks; the last one may have no end."""
    # Single quotation marks count only if there are no double ones: a quotation in a quotation has the other kind.
    found = _DOUBLE.findall(paragraph) or _SINGLE.findall(paragraph)
    quotations = [quotation.strip().rstrip(",") for quotation in found]
    return [quotation for quotation in quotations if len(quotation.split()) >= MIN_WORDS]


def write_speech(source: Path, output: Path) -> int:
    """Write the quotations of a text with a paragraph a line to `output`, one per line, and return their number."""
    quotations = [each for paragraph in read_whole_text(source).split("\n") for each in find_quotations(paragraph)]
    if not quotations:
        raise CorpusError(f"{source} contains no speech of {MIN_WORDS} words between quotation marks")
    if output.exists() and output.samefile(source):
        raise InvalidInputError(f"--output {output} is the text itself; name another file")
    write_atomically(output, "".join(f"{quotation}\n" for quotation in quotations).encode(), option="--output")
    return len(quotations)
