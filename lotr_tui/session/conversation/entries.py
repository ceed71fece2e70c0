"""Entries of a transcript, which are exchanges with the model and notes of the app, and their line breaking."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.generation.generate import Done
from lotr_tui.formatting import LINE_END_MARK, describe_finish_reason, displayable, format_generation_speed
from lotr_tui.session.conversation.speaker_labels import ExchangeSpeakers, SpeakerLabel

Span = tuple[int, int, str]
"""Start and end of a part of a text in characters, and the name of its style."""
MAX_LEAD_CHARACTERS = 30
"""Characters of the prompt's last word that are repeated before a reply that continues this word."""
LINE_BREAK_MARK = "↵"
"""Mark of a line break where a branch is shown on one line."""
NUM_COMPARED_WORDS = 3
"""Words of another branch that are shown before its first different token."""


@dataclass(frozen=True)
class Block:
    """Paragraph of an entry."""

    text: str
    style: str = "text"
    indent: int = 0
    spans: tuple[Span, ...] = ()
    is_reply: bool = False
    """True if the text consists of the tokens of a reply."""
    is_beside_names: bool = False
    """True if the text is beside the column with the names of speakers."""
    label: SpeakerLabel | None = None
    """Name in that column on the first line; None if the text belongs to the block above."""


class Note:
    """Line of the app between the exchanges."""

    def __init__(self, text: str) -> None:
        self.text = text

    def blocks(self) -> list[Block]:
        """Return the paragraphs of the note."""
        return [Block(self.text, "muted")]


class Exchange:
    """Prompt and reply, with figures about the reply."""

    def __init__(
        self,
        prompt: str,
        unknown_words: Sequence[str],
        seed: int,
        chain: str,
        *,
        continues_prompt: bool = False,
        noun: str = "word",
        speakers: ExchangeSpeakers | None = None,
        marks_line_ends: bool = True,
    ) -> None:
        """Create an exchange without tokens.

        Args:
            prompt: The prompt, on one line.
            unknown_words: Parts of the prompt that the model does not know.
            seed: Seed of the reply.
            chain: Description of the sampler settings.
            continues_prompt: True if the reply continues the line of the prompt, perhaps in the middle of a word.
            noun: What the figures call a token.
            speakers: Names before the prompt and the reply; None outside conversation mode.
            marks_line_ends: True to show a mark at each line end, which is an `<eos>` of the model.
        """
        self.prompt = prompt
        self.seed = seed
        self.speakers = speakers
        self.choice = ""
        """Reason why the speaker answers, such as `Gollum by your choice`; empty outside conversation mode."""
        self.best_of = ""
        """Number of answers that the reply was chosen from, such as `best of 8`; empty for one."""
        self.pieces: list[str] = []
        """Text that each token adds, with its space; empty for a token that ends inside a character."""
        self.is_generating = True
        self.num_shared_tokens = 0
        """Number of leading tokens that are shared with the reply this one branches off from."""
        self.branch_label = ""
        """Number and name of the branch; empty if there is only one branch."""
        self.other_branches: Sequence[tuple[str, Sequence[str]]] = ()
        """Label and pieces of the branches that are shown for comparison."""
        self._unknown_words = ", ".join(unknown_words)
        self._continued_prompt = prompt if continues_prompt else ""
        self._noun = noun
        self._line_end = LINE_END_MARK if marks_line_ends else ""
        self._chain = chain
        self._ending = "writing"
        self._speed = ""
        self._failure = ""

    @property
    def figures(self) -> str:
        """Branch, reason why the reply ended, seed, sampler settings and speed, on one line.

        In a conversation, the branch comes later, after the choice of the answer and of its speaker.
        """
        seed = f"seed {self.seed}"
        if self.speakers is None:
            figures = [self.branch_label, self._ending, seed, self._chain, self._speed]
        else:
            chain = self._chain.replace("temperature", "T")
            figures = [self._ending, seed, chain, self.best_of, self.choice, self.branch_label, self._speed]
        return " · ".join(filter(None, figures))

    @property
    def shown_pieces(self) -> list[str]:
        """The pieces as they are shown, see `show_pieces`; the lead is part of none of them."""
        return show_pieces(self.pieces, starts_line=not self.lead, line_end=self._line_end)

    @property
    def lead(self) -> str:
        """End of the prompt that the reply continues without a space; empty if it starts with another word."""
        return word_to_continue(self._continued_prompt, self.pieces)

    def token_span(self, index: int) -> tuple[int, int]:
        """Return the start and end of a token in the text of the reply block."""
        start, end = token_span(self.shown_pieces, index)
        offset = len(self.lead)
        return start + offset, end + offset

    def token_index_at(self, character: int) -> int:
        """Return the index of the token at a character of the reply block; -1 after the last token."""
        return token_index_at(self.shown_pieces, max(0, character - len(self.lead)))

    def add_pieces(self, pieces: Iterable[str]) -> None:
        """Append the text of tokens that were generated."""
        self.pieces += map(displayable, pieces)

    def mark_done(self, done: Done) -> None:
        """End the reply, and complete its figures."""
        self.is_generating = False
        is_expected = done.reason == "eos" and self.speakers is not None
        self._ending = "" if is_expected else describe_finish_reason(done, self._noun)
        self._speed = format_generation_speed(done, self._noun)

    def mark_interrupted(self) -> None:
        """End the reply that was being written when its session ended; the tokens generated so far stay."""
        self.is_generating = False
        self._ending = "stopped by an error or the end of the session"

    def mark_failed(self, message: str) -> None:
        """End the reply with an error message; the tokens generated so far stay."""
        self.is_generating = False
        self._ending, self._failure = "", message

    def blocks(self) -> list[Block]:
        """Return the paragraphs of the exchange; without a prompt, a conversation has the answer alone."""
        speakers = self.speakers
        indent = 2 if speakers is None else 0
        blocks = []
        if speakers is None:
            blocks.append(Block(f"❯ {self.prompt}", "prompt", spans=((0, 1, "accent"),)))
        elif self.prompt:
            blocks.append(Block(self.prompt, label=speakers.user))
        if self._unknown_words:
            blocks.append(Block(f"the model does not know: {self._unknown_words}", "warning", indent))
        if self.pieces or self.is_generating or speakers is not None:
            blocks.append(self._reply_block(indent))
        if self._failure:
            blocks.append(Block(self._failure, "warning", indent))
        blocks += [self._other_branch_block(label, pieces, indent + 2) for label, pieces in self.other_branches]
        return blocks if speakers is None else [replace(block, is_beside_names=True) for block in blocks]

    def _reply_block(self, indent: int) -> Block:
        """Return the text of the tokens, with a line break after each end of line."""
        lead, shown = self.lead, self.shown_pieces
        text = lead + "".join(shown)
        if not self.is_generating and text.endswith("\n"):
            text = text[:-1]
        spans: list[Span] = [(0, len(lead), "muted")] if lead else []
        spans += [(match.start(), match.end(), "muted") for match in _LINE_END_MARKS.finditer(text)]
        if 0 < self.num_shared_tokens < len(self.pieces):
            spans.append((*self.token_span(self.num_shared_tokens), "branch"))
        if self.is_generating:
            spans.append((len(text), len(text) + 1, "accent"))
            text += "▌"
        speaker = None if self.speakers is None else self.speakers.answerer
        return Block(text, indent=indent, spans=tuple(spans), is_reply=True, label=speaker)

    def _other_branch_block(self, label: str, pieces: Sequence[str], indent: int) -> Block:
        """Return another branch from shortly before its first different token on, which is highlighted."""
        num_same = 0
        while num_same < min(len(pieces), len(self.pieces)) and pieces[num_same] == self.pieces[num_same]:
            num_same += 1
        first, num_words = num_same, 0
        while first > 0 and num_words < NUM_COMPARED_WORDS:
            first -= 1
            num_words += pieces[first][:1].isspace() or pieces[first - 1].endswith("\n")
        shown = [piece.replace("\n", f" {self._line_end or LINE_BREAK_MARK} ") for piece in pieces[first:]]
        shown[:1] = [piece.lstrip() for piece in shown[:1]]
        lead = f"{label}: " + ("… " if first else word_to_continue(self._continued_prompt, pieces))
        spans: tuple[Span, ...] = ((0, len(label) + 1, "muted"),)
        if num_same < len(pieces):
            start, end = token_span(shown, num_same - first)
            spans += ((len(lead) + start, len(lead) + end, "branch"),)
        return Block(lead + "".join(shown), "text", indent, spans)


def word_to_continue(prompt: str, pieces: Sequence[str]) -> str:
    """Return the last word of a prompt if the pieces continue it; empty if they start with another word."""
    if not prompt or next(filter(None, pieces), " ")[0].isspace():
        return ""
    word = prompt.rpartition(" ")[2]
    return word if len(word) <= MAX_LEAD_CHARACTERS else f"…{word[-MAX_LEAD_CHARACTERS:]}"


_LINE_END_MARKS = re.compile(f"{LINE_END_MARK}(?=\n|$)")


def show_pieces(pieces: Sequence[str], *, starts_line: bool = True, line_end: str = LINE_END_MARK) -> list[str]:
    """Return the pieces of a text as they are shown: without the first space, and with a mark at each line end.

    Args:
        pieces: Text that each token adds.
        starts_line: True if the text starts a line; False if other text of the line comes before it.
        line_end: Mark at a line end; empty for a blank, which makes room for the cursor.
    """
    shown = list(pieces)
    if starts_line:
        shown[:1] = [piece.removeprefix(" ") for piece in shown[:1]]
    is_line_empty = starts_line
    for index, piece in enumerate(shown):
        if "\n" in piece:
            *ended_lines, last = piece.split("\n")
            marks = []
            for line in ended_lines:  # the mark stays on the line of the word before it
                space = "" if line_end and is_line_empty and not line else "\N{NO-BREAK SPACE}"
                marks.append(f"{line}{space}{line_end}\n")
                is_line_empty = True
            shown[index] = "".join(marks) + last
            piece = last
        is_line_empty = is_line_empty and not piece
    return shown


def token_span(shown_pieces: Sequence[str], index: int) -> tuple[int, int]:
    """Return the start and end of a token, without the white space around it, in the joined pieces.

    A token that ends inside a character has the span of the character, which a later token completes.
    """
    start = sum(map(len, shown_pieces[:index]))
    piece = shown_pieces[index]
    text = piece.strip() or piece
    start += piece.index(text)
    return start, start + max(1, len(text))


def token_index_at(shown_pieces: Sequence[str], character: int) -> int:
    """Return the index of the token at a character, or before the space there, in the joined pieces.

    The result is -1 after the character that follows the last token, which is the cursor of a text in progress.
    """
    found, end = -1, 0
    for index, piece in enumerate(shown_pieces):
        text = piece.strip() or piece
        start, end = end + piece.index(text), end + len(piece)
        if start > character:
            return found
        if text:
            found = index
    return found if character <= end else -1
