"""What stands in a transcript: exchanges with the model, and notes of our own; and how they break into lines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rich.cells import cell_len

from engine.generation.generate import Done, TokenEvent
from lotr_tui.formatting import ending

Span = tuple[int, int, str]
"""From a character to another, and the name of a style."""


@dataclass(frozen=True)
class Block:
    """A paragraph."""

    plain: str
    style: str = "text"
    indent: int = 0
    spans: tuple[Span, ...] = ()
    walked: bool = False
    """Whether it is the words of a reply."""


class Note:
    """A line of our own between the exchanges."""

    def __init__(self, text: str) -> None:
        self.text = text

    def blocks(self) -> list[Block]:
        """The paragraphs."""
        return [Block(self.text, "muted")]


class Exchange:
    """A prompt, the model's words, and how they came about."""

    def __init__(self, prompt: str, unknown: Sequence[str], seed: int, chain: str) -> None:
        self.prompt = prompt
        self.words: list[str] = []
        self.notes = [f"seed {seed}", chain]
        self.writing = True
        self.shared = 0
        """So many of the words are those of the reply that this one branches off from."""
        self.mark = ""
        """Which branch this is, where there are several."""
        self.others: Sequence[tuple[str, Sequence[str]]] = ()
        """To compare with: other branches, each with its mark."""
        self._unknown = ", ".join(unknown)

    def add(self, events: Sequence[TokenEvent | Done]) -> None:
        """Take in what has come since the last call."""
        for event in events:
            if isinstance(event, TokenEvent):
                self.words.append(event.text)
            else:
                self.writing = False
                self.notes += [f"{event.tokens_per_second:,.0f} words/s", ending(event)]

    def fail(self, message: str) -> None:
        """No more words come; those that came stay."""
        self.writing = False
        self.notes.append(f"broken off: {message}")

    def blocks(self) -> list[Block]:
        """The paragraphs."""
        blocks = [Block(f"❯ {self.prompt}", "prompt", spans=((0, 1, "accent"),))]
        if self._unknown:
            blocks.append(Block(f"not in the vocabulary, read as <unk>: {self._unknown}", "warning", 2))
        if self.words or self.writing:
            text = " ".join(self.words)
            spans: list[Span] = []
            if 0 < self.shared < len(self.words):
                spans.append((*word_place(self.words, self.shared), "branch"))
            if self.writing:
                spans.append((len(text), len(text) + 1, "accent"))
                text += "▌"
            blocks.append(Block(text, indent=2, spans=tuple(spans), walked=True))
        if not self.writing:
            blocks.append(Block(" · ".join([self.mark, *self.notes] if self.mark else self.notes), "muted", 2))
        blocks += [self._other(mark, words) for mark, words in self.others]
        return blocks

    def _other(self, mark: str, words: Sequence[str]) -> Block:
        """Another branch from the last word it shares with this one; the first that differs is marked."""
        same = 0
        while same < min(len(words), len(self.words)) and words[same] == self.words[same]:
            same += 1
        shown = words[max(0, same - 3) :]
        lead = f"{mark}: " + ("… " if same > 3 else "")
        spans: tuple[Span, ...] = ((0, len(mark) + 1, "muted"),)
        if same < len(words):
            start, end = word_place(shown, min(3, same))
            spans += ((len(lead) + start, len(lead) + end, "branch"),)
        return Block(lead + " ".join(shown), "text", 4, spans)


def word_place(words: Sequence[str], index: int) -> tuple[int, int]:
    """Where a word begins and ends among the characters of all, divided by spaces."""
    start = sum(len(word) + 1 for word in words[:index])
    return start, start + len(words[index])


def word_at(words: Sequence[str], character: int) -> int:
    """The word that a character belongs to, the space behind it included; -1 behind the last one."""
    for index, end in enumerate(accumulate(len(word) + 1 for word in words)):
        if character < end:
            return index
    return -1


_NOT_SPACE = re.compile(r"[^ ]+")


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """Break a paragraph between words into lines of at most `width` cells: the start and end of each.

    A word that is wider than that is broken. The spaces between two lines belong to neither.
    """
    width = max(1, width)
    if text.isascii() and "  " not in text:
        return _wrap_plain(text, width)
    cells = len if text.isascii() else cell_len
    lines: list[tuple[int, int]] = []
    offset = 0
    for line in text.split("\n"):
        start = end = offset
        for match in _NOT_SPACE.finditer(line):
            word_start, word_end = offset + match.start(), offset + match.end()
            if end > start and cells(text[start:word_end]) > width:
                lines.append((start, end))
                start = word_start
            while cells(text[start:word_end]) > width:
                cut = _fitting(text[start:word_end], width)
                lines.append((start, start + cut))
                start += cut
            end = word_end
        lines.append((start, max(start, end)))
        offset += len(line) + 1
    return lines


def _wrap_plain(text: str, width: int) -> list[tuple[int, int]]:
    """The same where a character is a cell and a space divides words: thousands of replies in no time."""
    lines: list[tuple[int, int]] = []
    start = 0
    for line in text.split("\n"):
        following = start + len(line) + 1
        end = start + len(line.rstrip(" "))
        while end - start > width:
            space = text.rfind(" ", start + 1, start + width + 1)
            cut = space if space > 0 else start + width
            lines.append((start, cut))
            start = cut + 1 if space > 0 else cut
        lines.append((start, end if end > start else start))
        start = following
    return lines


def _fitting(text: str, width: int) -> int:
    """How many characters fit; at least one, though it be wider."""
    cells = 0
    for number, character in enumerate(text):
        cells += cell_len(character)
        if cells > width:
            return max(1, number)
    return len(text)
