"""Line breaking of paragraphs, and comparison of branches."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.data.tokenizers.base import EOS, EOS_ID, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.generate import Done
from lotr_tui.session.transcript import Exchange, show_pieces, token_index_at, token_span, wrap

WORDS = st.lists(st.text("abcdé漢字", min_size=1, max_size=12), min_size=1, max_size=30)


@given(WORDS, st.integers(2, 20))
def test_wrapped_lines_fit_and_contain_all_characters(words, width):
    text = " ".join(words)
    lines = wrap(text, width)
    assert all(cell_len(text[start:end]) <= width for start, end in lines)
    assert "".join(text[start:end] for start, end in lines).replace(" ", "") == "".join(words)


def finished_exchange(*words):
    exchange = Exchange("the lamp", (), 3, "greedy")
    pieces = WordTokenizer((UNK, EOS, *words)).pieces(
        [EOS_ID if word == EOS else words.index(word) + 2 for word in words]
    )
    exchange.add_pieces(pieces)
    exchange.mark_done(Done("eos", 3, len(words), 100.0))
    return exchange


def test_compared_branches_are_shown_from_shortly_before_the_difference():
    exchange = finished_exchange("a", "b", "c", "d", "e", "f")
    exchange.other_branches = [("branch 2 of 3", ["a", " b", " c", " d", " X", " f"]), ("branch 3 of 3", ["Y"])]
    first, second = exchange.blocks()[-2:]
    assert first.text == "branch 2 of 3: … b c d X f"
    assert second.text == "branch 3 of 3: Y"
    marked = [b.text[s:e] for b in (first, second) for s, e, style in b.spans if style == "branch"]
    assert marked == ["X", "Y"]


PIECES = st.lists(
    st.sampled_from([" king", "dom", ",", " ", "", "\n", "日", " 本", "\n\n", "é"]), min_size=1, max_size=20
)


@given(PIECES, st.booleans())
def test_each_token_has_its_characters_or_those_of_the_character_that_it_is_part_of(pieces, starts_line):
    shown = show_pieces(pieces, starts_line=starts_line)
    text = "".join(shown)
    assert text.replace("¶", "").replace("\xa0", "").lstrip(" ") == "".join(pieces).lstrip(" ")
    for index, piece in enumerate(pieces):
        start, end = token_span(shown, index)
        if piece.strip():
            assert text[start:end] == piece.strip()
            assert token_index_at(shown, start) == index
        elif "\n" in piece:
            assert text[start:end].startswith("¶")
        assert end > start


def test_reply_that_continues_a_word_is_shown_with_its_beginning():
    exchange = Exchange("The old wiz", (), 3, "greedy", continues_prompt=True, noun="token")
    exchange.add_pieces(["ard", ",", " said"])
    exchange.other_branches = [("branch 2 of 2", ["ened", " man"]), ("branch 3 of 3", [" of"])]
    block = next(block for block in exchange.blocks() if block.is_reply)
    assert block.text == "wizard, said▌"
    assert (0, 3, "muted") in block.spans
    assert [block.text[slice(*exchange.token_span(index))] for index in range(3)] == ["ard", ",", "said"]
    assert [exchange.token_index_at(character) for character in (0, 3, 6, 7, 8)] == [0, 0, 1, 1, 2]
    assert [block.text for block in exchange.blocks()[-2:]] == ["branch 2 of 2: wizened man", "branch 3 of 3: of"]
    exchange.mark_done(Done("length", 3, 3, 1200.0))
    assert "stopped at 3 tokens · seed 3 · greedy · 1,200 tokens/s" in exchange.figures
    long_word = Exchange("x" * 500, (), 3, "greedy", continues_prompt=True)
    long_word.add_pieces(["y"])
    assert next(block for block in long_word.blocks() if block.is_reply).text == "…" + "x" * 30 + "y▌"
