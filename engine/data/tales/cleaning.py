"""Cleaning of a book: from wrapped lines with headings and notes to one paragraph a line."""

import re
import unicodedata

from engine.data.tales import furniture
from engine.data.tales.layout import Block, is_verse, split_blocks, unwrap, wrap_width

MIN_PARAGRAPHS_BEFORE_END_NOTES = 100
"""Paragraphs of a book before a heading such as NOTES ends it; tables of contents name the same heading."""

MAX_JOINED_CHARACTERS = 10_000
"""Length at which a paragraph is not continued on the next page; no real one is as long."""

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
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_NOTE_MARKERS = re.compile(r"(?:(?<=[\w.,;!?])|(?<=\S[\"']))(?:\(\d+\))+|(?: ?\(\d+\))+$")
_SENTENCE_GOES_ON = re.compile(r"[\w,;]$|\w-$")
_OPENING_CAPITALS = re.compile(r"(?:[A-Z][A-Z']*(?![\w.])[ ,]*)+")


def clean_body(body: str) -> list[str]:
    """Return the cleaned paragraphs of a book without licence, each line of a verse as one paragraph."""
    blocks = split_blocks(body)
    wrap = wrap_width(blocks)
    lower_words = set(re.findall(r"\b[a-z]+\b", body))
    kept: list[str] = []
    unfinished: Block | None = None  # the block of the last paragraph, if a page ended in the middle of its sentence
    in_front_matter = True  # title page and contents: everything before the first prose
    after_heading = False
    for block in blocks:
        if furniture.is_end_notes_heading(block) and len(kept) > MIN_PARAGRAPHS_BEFORE_END_NOTES:
            break
        if furniture.is_contents_heading(block):
            in_front_matter = True
        elif furniture.is_furniture(block):
            continue
        elif furniture.is_heading(block, after_heading=after_heading):
            after_heading = True
            _drop_source(kept)
        elif pieces := _paragraphs(block, wrap) if not in_front_matter or furniture.is_prose(block, wrap) else []:
            if after_heading:
                pieces[0] = lower_opening(pieces[0], lower_words)
            if unfinished and len(kept[-1]) < MAX_JOINED_CHARACTERS and _continues(unfinished, pieces, wrap):
                pieces[0] = unwrap([kept.pop(), pieces[0]])
            kept.extend(pieces)
            unfinished = block if len(pieces) == 1 and _SENTENCE_GOES_ON.search(pieces[0][-2:]) else None
            in_front_matter = after_heading = False
    _drop_source(kept)
    return kept


def clean_paragraph(text: str) -> str:
    """Return a paragraph in plain characters, without notes, emphasis marks and repeated spaces."""
    text = unicodedata.normalize("NFC", _BRACKETS.sub("", text)).translate(_CHARACTERS)
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
    words = [_lower_word(word, lower_words) for word in re.split(r"([ ,]+)", match[0])]
    opening = "".join(words)
    return text[:start] + opening[:1].upper() + opening[1:] + text[match.end() :]


def _lower_word(word: str, lower_words: set[str]) -> str:
    if word == "I" or word.startswith("I'"):
        return word
    return word.lower() if word.lower() in lower_words else word.capitalize()


def _paragraphs(block: Block, wrap: int) -> list[str]:
    """Return the paragraphs of a block: its lines without capitals only if it is a verse, otherwise one."""
    if is_verse(block, wrap):
        lines = map(clean_paragraph, block.lines)
        return [line for line in lines if re.search(r"[a-z]", line) and not furniture.is_attribution(line)]
    paragraph = clean_paragraph(unwrap(block.lines))
    return [paragraph] if re.search(r"\w", paragraph) else []


def _continues(unfinished: Block, pieces: list[str], wrap: int) -> bool:
    """Return whether `pieces` is one paragraph that continues the sentence of the block before it."""
    first = pieces[0][0]
    return len(pieces) == 1 and (first.islower() or (first.isalpha() and len(unfinished.lines[-1]) > wrap - 15))


def _drop_source(kept: list[str]) -> None:
    """Remove the note at the end of a tale that names its source."""
    if kept and furniture.is_source(kept[-1]):
        del kept[-1]
