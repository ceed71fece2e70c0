"""Line breaking of paragraphs, and comparison of branches."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.generation.settings import SamplerSettings
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.transcript import entry_blocks, reply_figures, token_index_at, token_span
from lotr_tui.widgets.drawing import wrap
from tests.support.app import make_decoder
from tests.support.sessions import saved_reply, saved_token

GREEDY = SamplerSettings(temperature=0)
WORDS = st.lists(st.text("abcdé漢字", min_size=1, max_size=12), min_size=1, max_size=30)


@given(WORDS, st.integers(2, 20))
def test_wrapped_lines_fit_and_contain_all_characters(words, width):
    text = " ".join(words)
    lines = wrap(text, width)
    assert all(cell_len(text[start:end]) <= width for start, end in lines)
    assert "".join(text[start:end] for start, end in lines).replace(" ", "") == "".join(words)


def replies_of(prompt, *branches, **changes):
    """Branches of one turn, each with tokens of the given pieces, of which the first is compared with the others."""
    replies = []
    for id, pieces in enumerate(branches):
        tokens = [saved_token("x", piece=piece) for piece in pieces]
        fields = {"seed": 3, "settings": GREEDY, "tokens": tokens, **changes}
        reply = saved_reply(id, replies[0].id if id else None, prompt=None if id else prompt, **fields)
        reply.session_model = SessionModel("test", "", make_decoder())
        reply.attach(replies[0] if id else None)
        replies.append(reply)
    return replies


PIECES = st.lists(
    st.sampled_from([" king", "dom", ",", " ", "", "\n", "日", " 本", "\n\n", "é"]), min_size=1, max_size=20
)


@given(PIECES, st.sampled_from(["continue", "reply"]))
def test_each_token_has_its_characters_or_those_of_the_character_that_it_is_part_of(pieces, reply_mode):
    (reply,) = replies_of("a", pieces, reply_mode=reply_mode)
    reply.is_generating = True
    text = entry_blocks(reply)[-1].text
    first = next(filter(None, pieces), " ")
    shown = text.removeprefix("a" if reply_mode == "continue" and not first[0].isspace() else "").rstrip("▌")
    assert shown.replace("¶", "").replace("\xa0", "").lstrip(" ") == "".join(pieces).lstrip(" ")
    for index, piece in enumerate(pieces):
        start, end = token_span(reply, index)
        if piece.strip():
            assert text[start:end] == piece.strip()
            assert token_index_at(reply, start) == index
        elif "\n" in piece:
            assert text[start:end].startswith("¶")
        assert end > start


def test_reply_that_continues_a_word_is_shown_with_its_beginning():
    branches = ["ard", ",", " said"], ["ened", " man"], [" of"]
    reply, *_ = replies_of("The old wiz", *branches, tokenizer="bpe", settings=replace(GREEDY, max_tokens=3))
    reply.is_generating = True
    blocks = entry_blocks(reply)
    block = next(block for block in blocks if block.is_reply)
    assert block.text == "wizard, said▌"
    assert (0, 3, "muted") in block.spans
    assert [block.text[slice(*token_span(reply, index))] for index in range(3)] == ["ard", ",", "said"]
    assert [token_index_at(reply, character) for character in (0, 3, 6, 7, 8)] == [0, 0, 1, 1, 2]
    reply.is_generating = False
    assert "stopped at 3 tokens · seed 3 · greedy (temperature 0) · 9,000 tokens/s" in reply_figures(reply)
    long_word, *_ = replies_of("x" * 500, ["y"])
    assert next(block for block in entry_blocks(long_word) if block.is_reply).text == "…" + "x" * 30 + "y"
