"""Entries of a transcript, which are exchanges with the model and notes of the app, and their line breaking."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rich.cells import cell_len

from engine.data.vocabulary import EOS
from engine.generation.generate import Done, TokenEvent
from lotr_tui.formatting import LINE_END_MARK, describe_finish_reason, format_generation_speed, format_token

Span = tuple[int, int, str]
"""Start and end of a part of a text in characters, and the name of its style."""


@dataclass(frozen=True)
class Block:
    """Paragraph of an entry."""

    text: str
    style: str = "text"
    indent: int = 0
    spans: tuple[Span, ...] = ()
    is_reply: bool = False
    """True if the text consists of the tokens of a reply."""


class Note:
    """Line of the app between the exchanges."""

    def __init__(self, text: str) -> None:
        self.text = text

    def blocks(self) -> list[Block]:
        """Return the paragraphs of the note."""
        return [Block(self.text, "muted")]


class Exchange:
    """Prompt and reply, with figures about the reply."""

    def __init__(self, prompt: str, unknown_words: Sequence[str], seed: int, chain: str) -> None:
        """Create an exchange without tokens; `chain` describes the sampler settings."""
        self.prompt = prompt
        self.tokens: list[str] = []
        self.is_generating = True
        self.num_shared_tokens = 0
        """Number of leading tokens that are shared with the reply this one branches off from."""
        self.branch_label = ""
        """Number and name of the branch; empty if there is only one branch."""
        self.other_branches: Sequence[tuple[str, Sequence[str]]] = ()
        """Label and tokens of the branches that are shown for comparison."""
        self._unknown_words = ", ".join(unknown_words)
        self._sampling = (f"seed {seed}", chain)
        self._ending = "writing"
        self._speed = ""
        self._failure = ""

    @property
    def figures(self) -> str:
        """Branch, reason why the reply ended, seed, sampler settings and speed, on one line."""
        return " · ".join(filter(None, [self.branch_label, self._ending, *self._sampling, self._speed]))

    @property
    def shown_tokens(self) -> list[str]:
        """The tokens as they are shown: `<eos>` as a mark of the end of a line."""
        return [LINE_END_MARK if token == EOS else format_token(token) for token in self.tokens]

    def add_events(self, events: Sequence[TokenEvent | Done]) -> None:
        """Append the tokens that were generated since the last call, and complete the figures at the end."""
        for event in events:
            if isinstance(event, TokenEvent):
                self.tokens.append(event.text)
            else:
                self.is_generating = False
                self._ending = describe_finish_reason(event)
                self._speed = format_generation_speed(event)

    def mark_interrupted(self) -> None:
        """End the reply that was being written when its session ended; the tokens generated so far stay."""
        self.is_generating = False
        self._ending = "stopped by an error or the end of the session"

    def mark_failed(self, message: str) -> None:
        """End the reply with an error message; the tokens generated so far stay."""
        self.is_generating = False
        self._ending, self._failure = "", message

    def blocks(self) -> list[Block]:
        """Return the paragraphs of the exchange."""
        blocks = [Block(f"❯ {self.prompt}", "prompt", spans=((0, 1, "accent"),))]
        if self._unknown_words:
            blocks.append(Block(f"the model does not know: {self._unknown_words}", "warning", 2))
        if self.tokens or self.is_generating:
            blocks.append(self._reply_block())
        if self._failure:
            blocks.append(Block(self._failure, "warning", 2))
        blocks += [self._other_branch_block(label, tokens) for label, tokens in self.other_branches]
        return blocks

    def _reply_block(self) -> Block:
        """Return the tokens, with a line break after each end of line."""
        shown = self.shown_tokens
        line_ends = [index for index, token in enumerate(self.tokens) if token == EOS]
        words = [token + " " for token in shown]
        for index in line_ends:
            words[index] = LINE_END_MARK + "\n"
            if index:  # the mark stays on the line of the word before it
                words[index - 1] = shown[index - 1] + "\N{NO-BREAK SPACE}"
        text = "".join(words)
        if not self.is_generating or text.endswith(" "):
            text = text[:-1]
        spans: list[Span] = [(*token_span(shown, index), "muted") for index in line_ends]
        if 0 < self.num_shared_tokens < len(self.tokens):
            spans.append((*token_span(shown, self.num_shared_tokens), "branch"))
        if self.is_generating:
            spans.append((len(text), len(text) + 1, "accent"))
            text += "▌"
        return Block(text, indent=2, spans=tuple(spans), is_reply=True)

    def _other_branch_block(self, label: str, tokens: Sequence[str]) -> Block:
        """Return another branch from shortly before its first different token on, which is highlighted."""
        num_same = 0
        while num_same < min(len(tokens), len(self.tokens)) and tokens[num_same] == self.tokens[num_same]:
            num_same += 1
        shown = [format_token(token) for token in tokens[max(0, num_same - 3) :]]
        lead = f"{label}: " + ("… " if num_same > 3 else "")
        spans: tuple[Span, ...] = ((0, len(label) + 1, "muted"),)
        if num_same < len(tokens):
            start, end = token_span(shown, min(3, num_same))
            spans += ((len(lead) + start, len(lead) + end, "branch"),)
        return Block(lead + " ".join(shown), "text", 4, spans)


def token_span(tokens: Sequence[str], index: int) -> tuple[int, int]:
    """Return the start and end of a token, in characters of the tokens joined by one character each."""
    start = sum(len(token) + 1 for token in tokens[:index])
    return start, start + len(tokens[index])


def token_index_at(tokens: Sequence[str], offset: int) -> int:
    """Return the index of the token at a character or before the space there; -1 after the last token."""
    for index, end in enumerate(accumulate(len(token) + 1 for token in tokens)):
        if offset < end:
            return index
    return -1


_NOT_SPACE = re.compile(r"[^ ]+")


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """Break a paragraph between words into lines of at most `width` cells. Return the start and end of each line.

    A word wider than `width` is broken. The spaces between two lines belong to neither.
    """
    width = max(1, width)
    if text.isascii() and "  " not in text:
        return _wrap_ascii(text, width)
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
                cut = _fitting_length(text[start:word_end], width)
                lines.append((start, start + cut))
                start += cut
            end = word_end
        lines.append((start, max(start, end)))
        offset += len(line) + 1
    return lines


def _wrap_ascii(text: str, width: int) -> list[tuple[int, int]]:
    """Wrap ASCII text without double spaces, as `wrap` does, but fast enough for thousands of replies."""
    lines: list[tuple[int, int]] = []
    start = 0
    for line in text.split("\n"):
        next_start = start + len(line) + 1
        end = start + len(line.rstrip(" "))
        while end - start > width:
            space = text.rfind(" ", start + 1, start + width + 1)
            cut = space if space > 0 else start + width
            lines.append((start, cut))
            start = cut + 1 if space > 0 else cut
        lines.append((start, end if end > start else start))
        start = next_start
    return lines


def _fitting_length(text: str, width: int) -> int:
    """Return how many characters fit into `width` cells; at least one, even if it is wider."""
    cells = 0
    for index, character in enumerate(text):
        cells += cell_len(character)
        if cells > width:
            return max(1, index)
    return len(text)
