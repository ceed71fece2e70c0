"""Layout of a wrapped plain-text book: blocks between blank lines, verse, and joining of wrapped lines."""

import re
from dataclasses import dataclass
from functools import cached_property

DEFAULT_WRAP_WIDTH = 70

_PAGE_NUMBER = re.compile(r"\d{1,3}")


@dataclass(frozen=True)
class Block:
    """Lines between two blank lines."""

    lines: tuple[str, ...]
    """The lines as they are in the book, without trailing spaces."""
    gap: int
    """Number of blank lines before the block."""

    @cached_property
    def text(self) -> str:
        """The block as one line with single spaces, to recognize headings and notes."""
        return " ".join(" ".join(self.lines).split())

    @cached_property
    def width(self) -> int:
        """Length of the longest line without its indentation."""
        return max(len(line.strip()) for line in self.lines)


def split_blocks(text: str) -> list[Block]:
    """Return the blocks of a text in order, without the page numbers above them."""
    blocks: list[Block] = []
    lines: list[str] = []
    gap = 0
    for line in [*text.split("\n"), ""]:
        line = line.rstrip()
        if line:
            lines.append(line)
            continue
        if lines:
            numbered = len(lines) > 1 and _PAGE_NUMBER.fullmatch(lines[0])
            blocks.append(Block(tuple(lines[1:] if numbered else lines), gap))
            lines, gap = [], 0
        gap += 1
    return blocks


def wrap_width(blocks: list[Block]) -> int:
    """Return the column at which the prose of a book is wrapped: 95 % of the longer lines end before it."""
    lengths = sorted(len(line) for block in blocks for line in block.lines if len(line) > 40)
    return lengths[int(0.95 * len(lengths))] if lengths else DEFAULT_WRAP_WIDTH


def is_verse(block: Block, wrap: int) -> bool:
    """Return whether the lines of a block end where its author ended them, as in a poem or an inscription.

    Such lines are clearly shorter than the prose of the book, and start with capital letters.
    """
    if len(block.lines) < 2 or block.width > wrap - 10:
        return False
    capitals = sum(line.lstrip(" \"'“‘_([-—*")[:1].isupper() for line in block.lines)
    return capitals >= 0.75 * len(block.lines)


def unwrap(lines: tuple[str, ...] | list[str]) -> str:
    """Return wrapped lines as one line. A hyphen or a dash at the end of a line joins without a space."""
    joined = lines[0].strip()
    for line in lines[1:]:
        line = line.strip()
        compound = re.fullmatch(r"\w-", joined[-2:]) and not re.match(r"(?:and|or|to)\b", line)
        joined += line if compound or joined.endswith(("--", "—")) else f" {line}"
    return joined
