"""Entries of a transcript, which are replies and notes of the app, as paragraphs."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from engine.generation.generate import Done
from engine.generation.turns import answer_score
from lotr_tui import formatting
from lotr_tui.session.cast import UNCAST_STYLE, shown_name, speaker_style
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import reads_line_ends

Span = tuple[int, int, str]  # start and end of a part of a text in characters, and the name of its style
MAX_LEAD_CHARACTERS = 30  # of the prompt's last word that are repeated before a reply that continues this word
_LINE_END_MARKS = re.compile(f"{formatting.LINE_END_MARK}(?=\n|$)")


class Note(NamedTuple):
    """Line of the app between the replies."""

    text: str


Entry = Note | Reply


class SpeakerLabel(NamedTuple):
    """Name before a line of a conversation."""

    text: str
    style: str = UNCAST_STYLE
    mark: str = ""  # before the name; empty for a line of the model


class Block(NamedTuple):
    """Paragraph of an entry."""

    text: str
    style: str = "text"
    indent: int = 0
    spans: tuple[Span, ...] = ()
    is_reply: bool = False  # True if the text consists of the tokens of a reply
    is_beside_names: bool = False
    label: SpeakerLabel | None = None  # on the first line; None if the text belongs to the block above


def entry_blocks(entry: Entry) -> list[Block]:
    """Return the paragraphs of an entry; without a prompt, a conversation has the answer alone."""
    if isinstance(entry, Note):
        return [Block(entry.text, "muted")]
    labels = speaker_labels(entry)
    indent = 2 if labels is None else 0
    blocks = []
    if labels is None:
        blocks.append(Block(f"❯ {entry.prompt}", "prompt", spans=((0, 1, "accent"),)))
    elif entry.prompt:
        blocks.append(Block(entry.prompt, label=labels[0]))
    if entry.unknown_tokens:
        blocks.append(Block(f"the model does not know: {', '.join(entry.unknown_tokens)}", "warning", indent))
    if entry.tokens or entry.is_generating or labels is not None:
        lead, shown = _shown_pieces(entry)
        text = lead + "".join(shown)
        if not entry.is_generating and text.endswith("\n"):
            text = text[:-1]
        spans: list[Span] = [(0, len(lead), "muted")] if lead else []
        spans += [(match.start(), match.end(), "muted") for match in _LINE_END_MARKS.finditer(text)]
        if 0 < entry.num_shared_tokens < len(entry.tokens) and not entry.is_continuation:
            spans.append((*token_span(entry, entry.num_shared_tokens), "branch"))
        if entry.is_generating:
            spans.append((len(text), len(text) + 1, "accent"))
            text += "▌"
        label = None if labels is None else labels[1]
        blocks.append(Block(text, indent=indent, spans=tuple(spans), is_reply=True, label=label))
    if entry.failure:
        blocks.append(Block(entry.failure, "warning", indent))
    return blocks if labels is None else [block._replace(is_beside_names=True) for block in blocks]


def speaker_labels(reply: Reply) -> tuple[SpeakerLabel, SpeakerLabel] | None:
    """Return the names of the user and of who answers; None outside of a conversation."""
    if reply.reply_mode != "conversation":
        return None
    cast, user = reply.session_model.cast, reply.speaking_as
    said = SpeakerLabel(shown_name(user) if user else "You", speaker_style(user, cast), mark="❯")
    if reply.is_chat:
        return said, SpeakerLabel(reply.session_model.label)
    return said, SpeakerLabel(shown_name(reply.speaker), speaker_style(reply.speaker, cast))


def answer_page(reply: Reply) -> str:
    """Return the number of an answer among the answers of its turn; empty if it is the only one."""
    answers = reply.turn.replies
    return f"‹ {answers.index(reply) + 1}/{len(answers)} ›" if len(answers) > 1 and reply in answers else ""


def reply_figures(reply: Reply) -> str:
    """Return the figures of a reply on one line, which may be cut: first its number and what reproduces it."""
    is_conversation, score = reply.reply_mode == "conversation", reply.score
    num_tokens = reply.settings.max_tokens if reply.reason == "length" else len(reply.own_tokens)
    done = Done(reply.reason, reply.seed, num_tokens, reply.tokens_per_second)
    speed = ending = best_of = choice = ""
    if reply.is_generating:
        ending = "writing"
    elif reply.reason == "error" and not reply.failure:
        ending = "stopped by an error or the end of the session"
    elif not reply.failure:
        speed = formatting.format_generation_speed(done, reply.noun)
        ending = "" if reply.has_ended_line and is_conversation else formatting.describe_finish_reason(done, reply.noun)
    page, seed, chain = answer_page(reply), f"seed {reply.seed}", reply.settings.describe()
    strength = formatting.describe_strengths(reply.strengths)
    if not is_conversation:
        return " · ".join(filter(None, [page, ending, seed, strength, chain, speed]))
    if score is not None:
        first = reply.id - score.rank + 1  # the answers that are drawn together follow each other, the best one first
        seeds = [each.seed for each in reply.turn.replies if 0 <= each.id - first < score.num_answers]
        place = f"best of {score.num_answers}" if score.rank == 1 else f"rank {score.rank} of {score.num_answers}"
        drawn = f" from seed {min(seeds)}" if len(seeds) == score.num_answers else ""
        best_of = f"{place}{drawn} ({answer_score(score.log_prob - score.log_prob_alone, score.num_tokens):+.1f})"
    if reply.speaker:
        by = "your choice" if reply.speaker_prob is None else f"the model, {100 * reply.speaker_prob:.0f} %"
        choice = f"{shown_name(reply.speaker)} by {by}"
    temperature, *filters = sorted(chain.replace("temperature", "T").split(" → "), key=lambda stage: "T " not in stage)
    parts = [page, seed, temperature, strength, best_of, ending, choice, " → ".join(filters), speed]
    return " · ".join(filter(None, parts))


def token_span(reply: Reply, index: int) -> tuple[int, int]:
    """Return the start and end of a token in the text of the reply block, or of the character that it is a part of."""
    lead, shown = _shown_pieces(reply)
    text = shown[index].strip() or shown[index]
    start = len(lead) + sum(map(len, shown[:index])) + shown[index].index(text)
    return start, start + max(1, len(text))


def token_index_at(reply: Reply, character: int) -> int:
    """Return the index of the token at a character, or before the space there; -1 after the last token."""
    lead, shown = _shown_pieces(reply)
    character, found, end = max(0, character - len(lead)), -1, 0
    for index, piece in enumerate(shown):
        text = piece.strip() or piece
        start, end = end + piece.index(text), end + len(piece)
        if start > character:
            return found
        found = index if text else found
    return found if character <= end else -1


def _shown_pieces(reply: Reply) -> tuple[str, list[str]]:
    """Return the end of the prompt that the reply continues, and the pieces with marks or blanks at line ends."""
    pieces = [formatting.displayable(token.piece) for token in reply.tokens]
    lead = word_to_continue(reply.prompt or "", pieces) if reply.reply_mode == "continue" else ""
    line_end = "" if reads_line_ends(reply.session_model.model) else formatting.LINE_END_MARK
    shown, is_line_empty = [], not lead
    for index, piece in enumerate(pieces):
        *ended_lines, last = (piece.removeprefix(" ") if not lead and not index else piece).split("\n")
        text = ""
        for line in ended_lines:  # the mark stays on the line of the word before it
            is_line_empty = is_line_empty and not line
            text += line + ("" if line_end and is_line_empty else "\N{NO-BREAK SPACE}") + f"{line_end}\n"
            is_line_empty = True
        shown.append(text + last)
        is_line_empty = is_line_empty and not last
    return lead, shown


def word_to_continue(prompt: str, pieces: Sequence[str]) -> str:
    """Return the last word of a prompt if the pieces continue it; empty if they start with another word."""
    if not prompt or next(filter(None, pieces), " ")[0].isspace():
        return ""
    word = prompt.rpartition(" ")[2]
    return word if len(word) <= MAX_LEAD_CHARACTERS else f"…{word[-MAX_LEAD_CHARACTERS:]}"
