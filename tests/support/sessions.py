"""Replies as they are saved, and sessions for tests, and a Hypothesis strategy for trees of replies."""

import json

from hypothesis import strategies as st

from engine.data.tokenizers import EOS
from engine.generation.settings import SamplerSettings
from lotr_tui.session.reply import AnswerScore, Reply, Token
from lotr_tui.session.session_file import Session

printable_texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
figures = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18)
tokens = st.builds(
    Token, st.integers(0, 10**6), printable_texts, st.none() | st.floats(-1e18, 0), st.none() | st.floats(0, 1),
    st.integers(1, 10**6), st.none() | st.floats(0, 64), st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)  # fmt: skip
sampler_settings = st.builds(
    SamplerSettings,
    repetition_penalty=st.floats(0.1, 10),
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 1_000_000),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    max_tokens=st.integers(1, 1_000_000),
)


answer_scores = st.builds(AnswerScore, st.integers(1, 64), st.integers(1, 64), figures, figures, st.integers(0, 1000))


@st.composite
def reply_trees(draw):
    replies: list[Reply] = []
    for id in range(draw(st.integers(0, 6))):
        parent = draw(st.none() | st.sampled_from(replies)) if replies else None
        prompt = draw(st.text(max_size=20) if parent is None else st.none() | st.text(max_size=20))
        speaking_as = draw(st.just("") | printable_texts)
        replies.append(
            Reply(
                id=id, parent_id=parent.id if parent else None,
                parent_offset=draw(st.integers(0, len(parent.tokens))) if parent else 0,
                prompt=prompt,
                reply_mode=draw(st.sampled_from(["conversation", "continue", "reply"])),
                tokens=draw(st.lists(tokens, max_size=4)), seed=draw(st.integers(0, 2**63 - 1)),
                settings=draw(sampler_settings),
                reason=draw(st.sampled_from(["eos", "length", "stop", "cancelled", "error"])),
                tokens_per_second=draw(st.floats(0, 1e6)), model=draw(printable_texts),
                unknown_tokens=() if prompt is None else tuple(draw(st.lists(printable_texts, max_size=2))),
                tokenizer=draw(st.sampled_from(["words", "whitespace", "characters", "bpe"])),
                num_reread_tokens=draw(st.integers(0, 3)),
                speaking_as=parent.speaking_as if parent is not None and prompt is None else speaking_as,
                speaker=draw(st.just("") | printable_texts), speaker_prob=draw(st.none() | st.floats(0, 1)),
                score=draw(st.none() | answer_scores),
            )
        )  # fmt: skip
    return replies


def saved_token(text, id=5, piece=None):
    """A token with usual figures; without a piece, a word after another one, or the end of a line."""
    word_piece = "\n" if text == EOS else f" {text}"
    return Token(id, text, -1.5, 0.25, 3, 4.5, word_piece if piece is None else piece)


def saved_reply(id=0, parent_id=None, parent_offset=0, prompt="bilbo is", text="a friend", **changes):
    """A reply with usual figures, whose tokens are the words of `text`, before it joins a tree."""
    return Reply(
        id=id,
        parent_id=parent_id,
        parent_offset=parent_offset,
        prompt=prompt,
        **{
            "reply_mode": "continue", "tokens": [saved_token(word) for word in text.split()], "seed": 7,
            "settings": SamplerSettings(), "reason": "length", "tokens_per_second": 9000.0, "model": "bundled",
            **changes,
        },
    )  # fmt: skip


def session_of(*replies, **changes):
    session = Session(**{"name": "x", "model": "m", "started": 1.0, **changes})
    for reply in replies:
        session.replies[reply.id] = reply
        reply.attach(session.replies.get(reply.parent_id))
    return session


def records_of(session):
    return [reply.record() for reply in session.replies.values()]


def update_settings(store, **changes):
    store.change(**changes)
    return store.save()


def add_reply(session, reply):
    session.replies[reply.id] = reply
    return session.save([reply])


def save_replies(folder, *replies, **changes):
    session = Session(**{"model": "bundled", "folder": folder, **changes})
    for reply in replies:
        add_reply(session, reply)
    session.close()
    return session.path


def session_bytes(*replies):
    return Session("x", "m", 1.0, {reply.id: reply for reply in replies}, replies[-1].id if replies else None).encode()


def header_line(**changes):
    """The line of the session itself, with some fields changed."""
    record = {"version": 5, "model": "m", "started": 1.0, "current_id": None, **changes}
    return json.dumps({"session": record}).encode() + b"\n"


def changed_reply_lines(**changes):
    """Lines of a session with one reply, some of whose fields are changed; a field set to ... is left out."""
    record = json.loads(json.dumps(saved_reply().record())) | changes
    record = {name: value for name, value in record.items() if value is not ...}
    return header_line() + json.dumps({"reply": record}).encode() + b"\n"
