"""Pre-training corpus: old English fantasy and adventure books of Project Gutenberg, one paragraph a line."""

import hashlib
import re
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from engine.errors import CorpusError, InvalidInputError, LotrError
from engine.storage.files import app_home, atomic_replace, read_limited
from engine.storage.output_file import write_output

GUTENBERG = "https://www.gutenberg.org"
BOOK_PATH = "/cache/epub/{id}/pg{id}.txt"
"""Path of the UTF-8 text of a book, on the site of Project Gutenberg and on its mirrors."""
MAX_BOOK_BYTES = 8_000_000  # maximum size of a file; the longest book of the list has 1.4 MB
ATTEMPTS, FIRST_BACKOFF, TIMEOUT = 4, 1.0, 30.0
"""Attempts at a book, seconds before the second (each further one waits twice as long), and without an answer."""
PAUSE = 2.0  # seconds between two books, which Project Gutenberg asks of programs


class Book(NamedTuple):
    """One book of Project Gutenberg, first published before 1929."""

    id: int  # number of the book in the catalogue of Project Gutenberg
    sha256: str  # checksum of the listed edition
    title: str  # title without its subtitle

    @property
    def file_name(self) -> str:
        """Name of the file of the book in a folder of books."""
        return f"{self.id}.txt"


_TABLE = """
  11 49a0b2726606e1290ac03a63978fa1dd1bd38a8d805704d98265f393533ea094 Alice's Adventures in Wonderland
  12 24bae70935e7fce7be74357779c53861c0cd04b3687f3005c1a8687f2b909988 Through the Looking-Glass
  16 b1e7ade0c061259293c7b07fe3f8ba445b4cf3353e6c657c8cdcd0223bbe0eb8 Peter Pan
  54 ed840664386fb16386a7e3e3a69ff6e2a9099a1cbb714a6eed4401205c5deb46 The Marvelous Land of Oz
  55 18274f31ae11aea07ea9b4f707998636c6f75d784c60d7e8fea0b4d5c2d77af6 The Wonderful Wizard of Oz
  82 58d0ba9b490557ff12102054d361d935cbe9b9a752c630091afe5391c45b1324 Ivanhoe
  95 03a57076de9eb1fe8143b54d2a795af5600a443c373d72c051603a80e2e038d0 The Prisoner of Zenda
 113 8a7aebc835ae37baef0f7b9362ed9fc6372a360e8001f9481c13acf9194cb483 The Secret Garden
 120 0fee2fef1b2ffde22e2c962bd8bc2b75ea1ae9b02b3fe85ef08d44f4cc1bb2de Treasure Island
 128 bc0bc9384c8da75922efe0b1d67d8ef565d85ca1c0b275211f56990a1fc475c9 The Arabian Nights Entertainments
 139 f6b39bd6c79270d117e0a4e9a8814628e4185d356a0a6d6bd7116e74c389b7d5 The Lost World
 169 0bf793dc3c96d87e83eddc67a7c7a5061e00537110319d1ffe8231fdd68eb269 The Well at the World's End
 225 d14238447299aa95ce3fca8394ffd31d8a8f4e9a455c78c75d236ada8e31f54c At the Back of the North Wind
 236 2f9486eb4776d23baf1064eebb73bb0093b808b13e10516e81e20d1dbe4909c9 The Jungle Book
 289 f875d0ae7c153741c516d4db2f3c1686f8dd79e341ea27dbc2167178a09cd587 The Wind in the Willows
 421 f2ea387ba7cae60ada941bb1b6b4cc1ee960582503eca48b9b602c9cd07dd237 Kidnapped
 486 8363483af3b4c13501df617a41321f3535b19372ce63aaa2f6be8bb49ac8bc12 Ozma of Oz
 503 1dc3c13543d1a3b7baaa76f84dd45f444652cad9ea434c4849c32b66f073a29b The Blue Fairy Book
 540 8cd1a7810549f0d835068c889cf1a3d30ffd14391342c6054f712f02290415dd The Red Fairy Book
 640 e8ee7f5149f5a4e2b241477f58e7d51f5934180324ec5676821ad589362f6ad8 The Yellow Fairy Book
 641 64d94d6cce1b31d436a5e7279499d34c5929e84147d310834e2a06852108a284 The Violet Fairy Book
 708 103c5634780f3aacb7cd2384335305b6fba46b52971516ae8801ffff5b6d2387 The Princess and the Goblin
 709 343bf757a0f33e9556e56f0e03993c6a5ab4f7da561aac25bd0fa844d4b32cf0 The Princess and Curdie
 778 9675b40c709474b2f4353304aac824b57a4c7354d181c8871c0d597ef80174ac Five Children and It
 836 259321ffbe4a5b393f13b06e380812e805fd82cb88b84ab191c60fea5b190d92 The Phoenix and the Carpet
 837 15357aa0cc48805de5b65571bd9cc572e0deb628989e53f274c95dab2c6db3d9 The Story of the Amulet
 903 a64106a5ec34554eb3dabf402c715904a76ff19103c444798a8e12f8c85eb232 The White Company
 964 c6034a143353fa8eb9c241b1d2aa2aff6d59f10579513e102aeb2d969ed65300 The Merry Adventures of Robin Hood
1257 b18b774113402504f1fa833ea9f6810430346815a4503f12418a1cb4ef251729 The Three Musketeers
1557 0476e3683f11191ebaf95d02c8303cfb3c4cb90cd8489cc4083e8a7cb938a8af Men of Iron
1640 aaa9f2f06c023a092635db2de1978b89bf92da350a3dc20134442d23b1f5e02e Lilith
1661 2a0ce5568625a304f54fbb6bfdeeadf527a1437254b5f0e06b5a9e233d4784a2 The Adventures of Sherlock Holmes
2166 dfdb09f42cc108aafa9546b051961a0f2b25cecc0cedf3ba29bffb712e9e5e1a King Solomon's Mines
2435 1735d559df861fd499298e6f360909037703259ebe37d2ada27545f24213ceb2 The Crimson Fairy Book
2721 99f0c58a91d28338465cf60cfbe6cbe6c2e28961e937586e14fb84d7e2b13902 Eric Brighteyes
2845 6fb6a5965ab9b50d7a09544a34672a049a6756491acdd9e022215cd558d12fec Sir Nigel
2865 fe5601de45c157abde28192c90febe012887956212fb854afbbeec15e9636bbd Otto of the Silver Hand
3027 ccdb6c4fe1ff160c3614403683df684546bd785f5bbe6e9a4925ad36a38cc1a2 The Orange Fairy Book
3055 ff0e18689a0dde4a34d6c948a3e862f00349f97cdb98aa1122e2dc30b7c90702 The Wood Beyond the World
3155 08f565805b16c4565ec69fafa52adf937795b2360031594e0092efece211bc66 She
3282 070ec704aa27581f14d475b15a40ee3f2e3ff702ec43aefca6b81134426f218b The Brown Fairy Book
3454 daf164a2ee74a6a8209fc5e90a729c005bca9a02a618ba7b1a1d39b95ba776f2 The Lilac Fairy Book
3536 b1e0cf475f41e84d0d43dedcbe5d365267a9947acf31ea9a33c934a3af8b138d The Enchanted Castle
7277 f8820efcd3d5ddc527c4a67d48890d501fd27e873505c2b780e09df6338555fa The Green Fairy Book
7439 deef11602e7230a78e940aeed23e8b06d4690c44aa6cff4a20db3a4ee354e887 English Fairy Tales
7477 e4c605d7ca304c06521c31c96cbf4fd2b80b598130014c2acfd806761b836703 The Book of Wonder
7885 6d8df0f35e37fb27599ef21b5d8da199efa8e8b0064bf0b77c88f9fd6edec74f Celtic Fairy Tales
8129 0299d4a5d74ec5e389db21cee72cda54337a9c26f65693860ecded92f02d92ec A Dreamer's Tales
8183 1039f3711f7991e5cf06923f97067f961107aa0f24677076ef5315ef4e4c0d9d Time and the Gods
"""
BOOKS = tuple(Book(int(id), *others) for id, *others in (line.split(maxsplit=2) for line in _TABLE.strip().split("\n")))
"""Books of the corpus, in the order of the text."""


class TalesSummary(NamedTuple):
    """Description of a pre-training text."""

    path: Path
    num_characters: int  # number of characters, line ends included
    num_words: int  # number of words between spaces
    sha256: str  # checksum of the file
    other_editions: tuple[Book, ...]
    """Books whose file is not the listed edition: Project Gutenberg corrects its books from time to time."""


def tales_dir() -> Path:
    """Create the folder of the pre-training text and return it; it has the downloaded books in `books`.

    Raises:
        LotrError: If the folder cannot be created.
    """
    folder = app_home() / "tales"
    try:
        (folder / "books").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LotrError(f"{folder} cannot be created: {error.strerror}; set LOTR_TUI_HOME to another folder") from error
    return folder


def write_tales(
    folder: Path, output: Path, books: Sequence[Book] = BOOKS, on_book: Callable[[], object] = bool
) -> TalesSummary:
    """Clean the books in `folder` and write them to `output`, one paragraph a line and an empty line between books.

    Args:
        folder: Folder of the books as Project Gutenberg publishes them, as 11.txt and so on.
        output: File of the text; it appears when all books are cleaned.
        books: The books, in the order of the text.
        on_book: Function that is called after each book.

    Raises:
        InvalidInputError: If books are missing, or `output` is one of them.
        CorpusError: If a file is not a book.
        LotrError: If the text cannot be written.
    """
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
    write_output(output, text.encode())
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return TalesSummary(output, len(text), len(text.split()), sha256, tuple(other_editions))


# Download


def book_url(mirror: str, book: Book) -> str:
    """Return the address of a book: `mirror` with `{id}` replaced, or followed by the usual path of a book.

    Raises:
        InvalidInputError: If `mirror` is not the address of a web server.
    """
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
    """Download the books that `folder` does not contain, one after the other with a pause.

    Args:
        folder: Folder of the files.
        mirror: Address of a server; see `book_url`.
        books: The books.
        on_book: Function that is called after each book.

    Raises:
        InvalidInputError: If the server has no such book.
        CorpusError: If its answer is not a book.
        LotrError: If the server fails or cannot be reached, or the folder cannot be written.
    """
    is_first = True
    for book in books:
        path, url = folder / book.file_name, book_url(mirror, book)
        if not path.is_file():
            if not is_first:
                time.sleep(PAUSE)
            is_first = False
            content = _download(url)
            try:
                read_body(content, url)
                with atomic_replace(path) as file:
                    file.write(content)
            except CorpusError as error:
                raise CorpusError(f"{error}; try another --mirror") from error
            except OSError as error:
                raise LotrError(
                    f"{folder} cannot be written: {error.strerror}; free some space, or set LOTR_TUI_HOME"
                ) from error
        on_book()


def _download(url: str) -> bytes:
    headers = {"User-Agent": f"lotr-tui/{version('lotr-tui')}", "Accept": "text/plain"}
    request, reason = urllib.request.Request(url, headers=headers), ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_BACKOFF * 2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                content: bytes = response.read(MAX_BOOK_BYTES + 1)
            if len(content) > MAX_BOOK_BYTES:
                raise CorpusError(f"{url} is longer than {MAX_BOOK_BYTES:,} bytes, so it is not a book")
            if response.length:
                raise HTTPException("the connection broke off")
            return content
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in {408, 425, 429}:
                raise InvalidInputError(f"{url}: {reason}; try another --mirror") from error
        except (OSError, HTTPException) as error:  # no connection, or one that broke off
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    raise LotrError(
        f"{url} could not be downloaded in {ATTEMPTS} attempts: {reason}; check the network, or try another --mirror"
    )


# Header and licence of a file

_START = re.compile(
    r"^\*{3} ?START OF TH(?:E|IS) PROJECT GUTENBERG E-?BOOK[^*]{0,300}\*{3} *$|^\*END ?\*? ?THE SMALL PRINT!.*$", re.M
)
_END = re.compile(r"^[^\w\n]*(?:END OF (?:THE |THIS )?PROJECT GUTENBERG|PROJECT GUTENBERG E-?TEXT OF)", re.M | re.I)


def read_body(content: bytes, name: str) -> str:
    """Return the text of a book without header and licence. `name` is the path or the address of the file.

    Raises:
        CorpusError: If the content is no complete book of Project Gutenberg as plain text.
    """
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
_CHAPTER = re.compile(rf"chapter\s+{_NUMBER}\b|{_NUMBER}[.:]?$", re.I)
_CONTENTS = re.compile(r"(?:contents?|list of [a-z ]+)[.:]?$", re.I)
_END_NOTES = re.compile(r"(?:NOTES AND REFERENCES|NOTE TO CHAPTER [IVXLC.]+)$")
_NOTE = re.compile(
    r"\[\d+\]|\(\d+\)|\*+\s?[A-Z(]|\[\s?[*+]|\[(?:footnote|later editions)|"
    r"(?:\d+\s+)?(?:full page )?line-art drawing",
    re.I,
)
_ATTRIBUTION = re.compile(r"(?:--|—)\s?[A-Z][^!?]{0,50}(?<![,;:])$")
_OLD_LETTERS = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]{2}|ſ|[\u0300-\u036f]")
_SMALL_WORD = re.compile(r"(?:an?|the|of|in|on|at|to|and|or|for|with|by|from|as|into|his|her|their|la|de)$", re.I)
_NOTE_MARKERS = re.compile(r"(?:(?<=[\w.,;!?])|(?<=\S[\"']))(?:\(\d+\))+|(?: ?\(\d+\))+$")
_OPENING_CAPITALS = re.compile(r"(?:[A-Z][A-Z']*(?![\w.])[ ,]*)+")
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛`´ʹ", "'"),
        **dict.fromkeys("“”„‟", '"'),
        **dict.fromkeys("–—―", "--"),
        **dict.fromkeys("\u00ad\u200b\u2060\ufeff*_|", ""),
        **dict.fromkeys((chr(code) for code in range(32) if not chr(code).isspace()), ""),
        "…": "...",
        "[": "(",  # without a closing bracket, as in Alice
        "]": ")",
    }
)


@dataclass(frozen=True)
class _Block:
    """Lines between two blank lines."""

    lines: tuple[str, ...]  # the lines as they are in the book, without trailing spaces
    gap: int  # number of blank lines before the block

    @cached_property
    def text(self) -> str:
        return " ".join(" ".join(self.lines).split())

    @cached_property
    def width(self) -> int:
        """Length of the longest line without its indentation."""
        return max(len(line.strip()) for line in self.lines)


def _split_blocks(text: str) -> list[_Block]:
    """Return the blocks of a text in order, without the page numbers above them."""
    blocks: list[_Block] = []
    lines: list[str] = []
    gap = 0
    for line in [*text.split("\n"), ""]:
        line = line.rstrip()
        if line:
            lines.append(line)
            continue
        if lines:
            has_page_number = len(lines) > 1 and re.fullmatch(r"\d{1,3}", lines[0])
            blocks.append(_Block(tuple(lines[1:] if has_page_number else lines), gap))
            lines, gap = [], 0
        gap += 1
    return blocks


def clean_body(body: str) -> list[str]:
    """Return the cleaned paragraphs of a book without licence, each line of a verse as one paragraph."""
    blocks = _split_blocks(body)
    lengths = sorted(len(line) for block in blocks for line in block.lines if len(line) > 40)
    wrap = lengths[int(0.95 * len(lengths))]  # the column at which prose is wrapped
    lower_words = set(re.findall(r"\b[a-z]+\b", body))
    kept: list[str] = []
    unfinished: _Block | None = None  # the block of the last paragraph, if a page ended in the middle of its sentence
    in_front_matter = True  # title page and contents: everything before the first prose
    after_heading = False
    for block in blocks:
        if _END_NOTES.match(block.text) and len(kept) > 100:  # tables of contents name the same heading
            break
        if _CONTENTS.match(block.lines[0].strip(" _*")):
            in_front_matter = True
        elif _is_furniture(block):
            continue
        elif _is_heading(block, after_heading):
            after_heading = True
            _drop_source(kept)
        elif pieces := _paragraphs(block, wrap) if not in_front_matter or _is_prose(block, wrap) else []:
            if after_heading:
                pieces[0] = lower_opening(pieces[0], lower_words)
            if unfinished and _continues(unfinished, pieces, wrap):
                pieces[0] = _unwrap((kept.pop(), pieces[0]))
            kept.extend(pieces)
            unfinished = block if len(pieces) == 1 and re.search(r"[\w,;]$|\w-$", pieces[0][-2:]) else None
            in_front_matter = after_heading = False
    _drop_source(kept)
    return kept


def _is_furniture(block: _Block) -> bool:
    """Return True for a separator, a note, a picture's caption or letters that are not Latin."""
    text = block.text
    return (
        not re.search(r"[^\W_]", text)
        or bool(_NOTE.match(text) or _ATTRIBUTION.match(text))
        or (text[0] + text[-1] in ("()", "[]", "{}") and len(text) < 200)
        or text.count("|") > 2
        or (not text.isascii() and _OLD_LETTERS.search(text) is not None)
    )


def _is_heading(block: _Block, after_heading: bool) -> bool:
    """Return True for the number or the title of a chapter or a story."""
    bare = block.text.strip("_* ")
    if not re.search(r"[a-z]", bare):
        return after_heading or bare[:1] not in "\"'“‘" or block.lines[0].startswith(" " * 8)
    if len(block.lines) > 3 or len(bare) > 200:
        return False
    if _CHAPTER.match(bare) or (after_heading and _is_title_case(bare)):
        return True
    has_open_end = not re.search(r"[.!?,;:\"'”’)-]$", bare)
    is_numbered = re.match(rf"{_NUMBER}[.:]?\s+\S", bare, re.I) is not None
    return len(block.lines) == 1 and len(bare) < 90 and block.gap > 1 and (has_open_end or is_numbered)


def _is_prose(block: _Block, wrap: int) -> bool:
    """Return True for a paragraph that cannot be part of a title page or a list of contents."""
    text, num_lines = block.text, len(block.lines)
    return (
        (block.width > wrap - 12 if num_lines > 1 else len(text) > 200)
        and not block.lines[0].startswith("  ")
        and text.rstrip("\"'”’)_*")[-1:] in set(".!?:,;-—")
        and sum(char.islower() for char in text) > 0.6 * len(text)
        and not _is_title_case(text)
    )


def _is_title_case(text: str) -> bool:
    words: list[str] = re.findall(r"[^\W\d_][\w'’]*", text)
    longer = [word for word in words if not _SMALL_WORD.match(word)]
    return bool(longer) and sum(word[0].isupper() for word in longer) >= 0.8 * len(longer)


def _drop_source(kept: list[str]) -> None:
    """Remove the paragraph at the end of a tale that names where the tale was taken from."""
    if (
        kept
        and len(kept[-1]) < 80
        and kept[-1][0] not in "\"'"
        and kept[-1][-1] not in '!?"'
        and _is_title_case(kept[-1])
    ):
        del kept[-1]


def _paragraphs(block: _Block, wrap: int) -> list[str]:
    """Return the paragraphs of a block: the lines of a verse, otherwise one."""
    capitals = sum(line.lstrip(" \"'“‘_([-—*")[:1].isupper() for line in block.lines)
    if len(block.lines) > 1 and block.width <= wrap - 10 and capitals >= 0.75 * len(block.lines):
        lines = map(clean_paragraph, block.lines)
        return [line for line in lines if re.search(r"[a-z]", line) and not _ATTRIBUTION.match(line)]
    paragraph = clean_paragraph(_unwrap(block.lines))
    return [paragraph] if re.search(r"\w", paragraph) else []


def _unwrap(lines: tuple[str, ...]) -> str:
    """Return wrapped lines as one line. A hyphen or a dash at the end of a line joins without a space."""
    joined = lines[0].strip()
    for line in map(str.strip, lines[1:]):
        is_compound = re.fullmatch(r"\w-", joined[-2:]) and not re.match(r"(?:and|or|to)\b", line)
        joined += line if is_compound or joined.endswith("--") else f" {line}"
    return joined


def _continues(unfinished: _Block, pieces: list[str], wrap: int) -> bool:
    """Return True if `pieces` is one paragraph that continues the sentence of the block before it."""
    first = pieces[0][0]
    return len(pieces) == 1 and (first.islower() or (first.isalpha() and len(unfinished.lines[-1]) > wrap - 15))


def clean_paragraph(text: str) -> str:
    """Return a paragraph in plain characters, without notes, emphasis marks and repeated spaces."""
    text = unicodedata.normalize("NFC", re.sub(r"\[[^\[\]]*\]", "", text)).translate(_CHARACTERS)
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if "--" in text:
        text = re.sub(r"-{3,}", "----", text)  # in place of a name
        text = re.sub(r"(?<=[^\s-])----", "--", text)
        text = re.sub(r"(?<=[^\s-]) ?--(?!-) ?(?=[^\s-])", "--", text)
    text = re.sub(r"\.(?: \.){2,}", lambda match: match[0].replace(" ", ""), text)
    text = re.sub(r" (?=[,;:.?!](?:[ \"')]|$))", "", text)
    return _NOTE_MARKERS.sub("", text).strip() if "(" in text else text.strip()


def lower_opening(text: str, lower_words: set[str]) -> str:
    """Return a paragraph without the capitals that start a chapter: "THE LITTLE man" becomes "The little man".

    Args:
        text: The first paragraph of a chapter.
        lower_words: Words that the book contains in lower case; the others are names.
    """
    start = 1 if text[:1] in {'"', "'"} else 0
    match = _OPENING_CAPITALS.match(text, start)
    if match is None or not re.search(r"[A-Z]{2}", match[0]) or not re.search(r"[a-z]", text):
        return text

    def lower(word: str) -> str:
        if word == "I" or word.startswith("I'"):
            return word
        return word.lower() if word.lower() in lower_words else word.capitalize()

    opening = "".join(map(lower, re.split(r"([ ,]+)", match[0])))
    return text[:start] + opening[:1].upper() + opening[1:] + text[match.end() :]
