"""The fast tokenizer of large texts equals the plain tokenizer."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.data.dataset import HASH_SLOTS, TokenIndexer
from engine.data.tokenizers import WORD_PATTERN, Punctuation, split_words

SIGNS = st.sampled_from("aZ09'-.,!?… \t\u2028\u00a0\u200bKKİẞΣσßéÉ“”\x1c\x85ﬁǅ日")
LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | SIGNS, max_size=40)
    | st.text(st.sampled_from("ab ."), max_size=60),
    max_size=12,
).map(lambda lines: [" ".join(line.split()) for line in lines])


def join_lines(lines):
    return "".join(line + "\n" for line in lines)


def naive_punctuation(line, tokenizer):
    """Return the punctuation class after each token, from the gaps between the tokens."""
    if tokenizer == "whitespace":
        words = split_words(line, tokenizer)
        return [Punctuation.NONE] * (len(words) - 1) + [Punctuation.LINE_END] * bool(words)
    gaps = WORD_PATTERN.split(line.lower())[1:]
    strongest = [re.search("[.!?…]", gap) for gap in gaps]
    marks = [
        Punctuation.NONE if gap.isspace() else Punctuation.SENTENCE_END if ends else Punctuation.COMMA
        for gap, ends in zip(gaps, strongest, strict=True)
    ]
    return marks[:-1] + [Punctuation.LINE_END] * bool(gaps)


def check(lines, tokenizer, indexer):
    block = indexer.index_block(join_lines(lines))
    words = [split_words(line, tokenizer) for line in lines]
    tokens = [token.decode() for token in indexer.ids]
    assert [tokens[id] for id in block.ids] == [word for line_words in words for word in line_words]
    assert block.line_lengths.tolist() == [len(line_words) for line_words in words]
    assert block.punctuation.tolist() == [mark for line in lines for mark in naive_punctuation(line, tokenizer)]


@settings(max_examples=100)
@given(st.lists(LINES, min_size=1, max_size=4), st.sampled_from(["words", "whitespace"]))
@example([["300 \u212a, it is \u0130stanbul…"], ["\u03a3\u03a3. odd\u03a3 a"]], "words")
def test_any_text_is_tokenized_like_the_plain_tokenizer(blocks, tokenizer):
    indexer = TokenIndexer(tokenizer)
    for lines in blocks:
        check(lines, tokenizer, indexer)
    words = [word for lines in blocks for line in lines for word in split_words(line, tokenizer)]
    tokens = [token.decode() for token in indexer.ids]
    assert tokens == list(dict.fromkeys(["<unk>", "<eos>", *words])), "ids are in order of first appearance"


def test_words_in_the_same_hash_slot_have_different_ids():
    indexer = TokenIndexer()
    num_words = 6000
    assert num_words**2 / 2 > 20 * HASH_SLOTS, "pairs of words share a slot"
    for _ in range(2):
        check([" ".join(f"w{number}" for number in range(num_words))], "words", indexer)
