"""Replies of a saved session as printable texts, for its exports."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from engine.errors import printable
from engine.generation.generate import Done
from lotr_tui.formatting import describe_finish_reason, format_generation_speed, plural
from lotr_tui.session.saved_session import SavedReply, SavedSession, join_pieces

MAX_ANCESTORS = 100
"""Replies that are searched for the beginning of a line."""


@dataclass(frozen=True)
class FormattedReply:
    """Reply as printable texts."""

    title: str
    prompt: tuple[str, ...]
    """Lines of the prompt that are not blank; empty if the reply has no prompt."""
    shared_text: str
    """Text of the parent before a branch."""
    text: str
    """Text of the reply, from the beginning of the word that it starts in."""
    footer: str
    """Seed, sampler settings, speed and end of the reply."""


def format_heading(session: SavedSession) -> tuple[str, str]:
    """Return the title of an export, and a line with the model, the time and the number of replies."""
    num_shown = sum(reply.score is None or reply.score.rank == 1 for reply in session.replies)
    replies = plural(num_shown, "reply", "replies")
    started = f"{datetime.fromtimestamp(session.started):%Y-%m-%d %H:%M}"
    return printable(f"lotr-tui session {session.name}"), printable(f"{session.model} · {started} · {replies}")


def format_replies(session: SavedSession, left_out: AbstractSet[int] = frozenset()) -> Iterator[FormattedReply]:
    """Yield the replies except those with the ids `left_out`, in the order of their generation, numbered from 1."""
    replies = [reply for reply in session.replies if reply.id not in left_out]
    numbers = {reply.id: number for number, reply in enumerate(replies, 1)}
    for reply in replies:
        title = [str(numbers[reply.id])]
        before, text = _text_before(session, reply), join_pieces(reply.tokens)
        if text and not text[0].isspace():
            word_start = len(before) - len(_last_word(before))
            before, text = before[:word_start], before[word_start:] + text
        shared_text = ""
        if reply.parent_id is not None:
            parent = session.replies_by_id[reply.parent_id]
            if reply.parent_offset == len(parent.tokens):
                title.append(f"continues {numbers[parent.id]}")
            else:
                title.append(f"branches off {numbers[parent.id]} after {plural(reply.parent_offset, reply.token_noun)}")
                shared_text = before
        if reply.name:
            title.append(reply.name)
        yield FormattedReply(
            title=printable(" · ".join(title)),
            prompt=tuple(filter(None, (printable(line) for line in (reply.prompt or "").splitlines()))),
            shared_text=printable(shared_text),
            text=printable(text),
            footer=printable(" · ".join(_footer_parts(session, reply))),
        )


def _text_before(session: SavedSession, reply: SavedReply) -> str:
    """Return the tokens of the parent before a reply, or the last word of its prompt, from the start of a word on."""
    before = ""
    is_parent = True
    for _ in range(MAX_ANCESTORS):
        if reply.prompt is not None or reply.parent_id is None:
            return (_last_word(reply.prompt or "") if reply.reply_mode == "continue" else "") + before
        parent = session.replies_by_id[reply.parent_id]
        text = join_pieces(parent.tokens[: reply.parent_offset])
        added = text if is_parent else _last_word(text)
        before = added + before
        if before[:1].isspace() or added != text:
            break
        reply, is_parent = parent, False
    return before


def _last_word(text: str) -> str:
    """Return the word that a text ends in; empty if it ends in white space."""
    return "" if not text or text[-1].isspace() else text.rsplit(maxsplit=1)[-1]


def _footer_parts(session: SavedSession, reply: SavedReply) -> Iterator[str]:
    """Yield the parts of a reply's footer; the model is named if the session began with another one."""
    if reply.model != session.model:
        yield reply.model
    if reply.reply_mode == "reply":
        yield "reply"
    if reply.unknown_tokens:
        yield f"the model does not know: {', '.join(reply.unknown_tokens)}"
    yield f"seed {reply.seed}"
    yield reply.settings.describe()
    done = Done(reply.reason, reply.seed, len(reply.tokens), reply.tokens_per_second)
    if speed := format_generation_speed(done, reply.token_noun):
        yield speed
    yield describe_finish_reason(done, reply.token_noun)
