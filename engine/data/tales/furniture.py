"""Recognition of the parts of a book that are not prose: headings, contents, notes, captions and credits."""

import re

from engine.data.tales.layout import Block

CENTRED = " " * 8

_ROMAN_OR_NUMBER = r"(?:[ivxlc]+|\d+)"
_NUMBER = rf"(?:{_ROMAN_OR_NUMBER}|the \w+|one|two|three|four|five|six|seven|eight|nine|ten)"
_CHAPTER = re.compile(
    rf"(?:chapter|book|part|volume|adventure|canto|section)\s+{_NUMBER}\b|{_ROMAN_OR_NUMBER}[.:]?$", re.I
)
_NUMBERED_TITLE = re.compile(rf"{_ROMAN_OR_NUMBER}[.:]?\s+\S", re.I)
_CONTENTS = re.compile(r"(?:table of )?contents?[.:]?$|(?:list of [a-z ]+|illustrations|plates)[.:]?$", re.I)
_END_NOTES = re.compile(r"(?:NOTES AND REFERENCES|\W*FOOTNOTES\W*|NOTES|NOTE TO CHAPTER [IVXLC.]+)$")
_NOTE = re.compile(
    r"\[\d+\]|\(\d+\)|\[?FN#|\*+\s?[A-Z(]|footnotes?:|\[\s?[*+]|"
    r"\[(?:footnote|illustration|transcriber|sidenote|later editions)|"
    r"(?:\d+\s+)?(?:full page )?line-art drawing",
    re.I,
)
_CREDIT = re.compile(
    r"(?:produced|prepared|transcribed|scanned|typed|digitized|this e-?text was|this e-?book was|html version) by\b"
    r"|(?:transcribed|typed|scanned|produced) from\b|\W*transcriber|\W*author of\W|"
    r".*(?:project gutenberg|\be-?texts?\b|\be-?books?\b)|published, |copyright",
    re.I,
)
_ATTRIBUTION = re.compile(r"(?:--|—)\s?[A-Z][^!?]{0,50}(?<![,;:])$")
_OLD_LETTERS = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]{2}|ſ|[\u0300-\u036f]")
_SMALL_WORD = re.compile(r"(?:an?|the|of|in|on|at|to|and|or|for|with|by|from|as|into|his|her|their|la|de)$", re.I)


def is_contents_heading(block: Block) -> bool:
    """Return whether a list of chapters or pictures starts here, which ends at the next prose."""
    return _CONTENTS.match(block.lines[0].strip(" _*")) is not None


def is_end_notes_heading(block: Block) -> bool:
    """Return whether the notes after the last chapter start here, which end the book."""
    return _END_NOTES.match(block.text) is not None


def is_furniture(block: Block) -> bool:
    """Return whether a block is a separator, a note, a picture's caption, a credit or not in Latin letters."""
    text = block.text
    bracketed = (text[0], text[-1]) in {("(", ")"), ("[", "]"), ("{", "}")}
    return (
        not re.search(r"[^\W_]", text)
        or _NOTE.match(text) is not None
        or (len(text) < 600 and _CREDIT.match(text) is not None)
        or is_attribution(text)
        or (bracketed and len(text) < 200)
        or text.count("|") > 2
        or (not text.isascii() and _OLD_LETTERS.search(text) is not None)
    )


def is_heading(block: Block, *, after_heading: bool) -> bool:
    """Return whether a block is the number or the title of a chapter or a story."""
    bare = block.text.strip("_* ")
    if not re.search(r"[a-z]", bare):
        return after_heading or bare[:1] not in "\"'“‘" or block.lines[0].startswith(CENTRED)
    if len(block.lines) > 3 or len(bare) > 200:
        return False
    if _CHAPTER.match(bare) or (after_heading and is_title_case(bare)):
        return True
    open_end = not re.search(r"[.!?,;:\"'”’)-]$", bare)
    numbered = _NUMBERED_TITLE.match(bare) is not None
    return len(block.lines) == 1 and len(bare) < 90 and block.gap > 1 and (open_end or numbered)


def is_source(text: str) -> bool:
    """Return whether a paragraph before a heading names where a tale was taken from, as collections of tales do."""
    return len(text) < 80 and text[0] not in "\"'" and text[-1] not in '!?"' and is_title_case(text)


def is_attribution(text: str) -> bool:
    """Return whether a line names the author of the quotation before it."""
    return _ATTRIBUTION.match(text) is not None


def is_prose(block: Block, wrap: int) -> bool:
    """Return whether a block is a paragraph that cannot be part of a title page or a list of contents."""
    text = block.text
    wrapped = len(block.lines) > 1 and block.width > wrap - 12
    return (
        (wrapped or (len(block.lines) == 1 and len(text) > 200))
        and not block.lines[0].startswith("  ")
        and text.rstrip("\"'”’)_*")[-1:] in set(".!?:,;-—")
        and sum(char.islower() for char in text) > 0.6 * len(text)
        and not is_title_case(text)
    )


def is_title_case(text: str) -> bool:
    """Return whether nearly all longer words of a text start with a capital letter."""
    words: list[str] = re.findall(r"[^\W\d_][\w'’]*", text)
    longer = [word for word in words if not _SMALL_WORD.match(word)]
    return bool(longer) and sum(word[0].isupper() for word in longer) >= 0.8 * len(longer)
