"""Tokenizers of words and of white space, and the fast tokenizer of large texts."""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.data.dataset import HASH_SLOTS, TokenIndexer
from engine.data.tokenizers import EOS, EOS_ID, UNK, UNK_ID, WORD_PATTERN, Punctuation, WordTokenizer, split_words
from engine.errors import RunError
from tests.support.references import word_tokenizer

ANY_TEXT = st.text(st.characters())
WORDS = st.from_regex(r"[a-z0-9']{1,8}", fullmatch=True)


@given(ANY_TEXT)
def test_words_tokenizer_equals_the_notebook(text):
    assert split_words(text) == re.sub(r"[^a-z0-9']+", " ", text.lower()).split()


class TestWhitespaceTokenizer:
    """The tokenizer for text that is already tokenized, as Penn Treebank."""

    def test_tokens_are_unchanged(self):
        line = " mr. <unk> paid $ N million  for Pierre's \\/ u.s. unit \n"
        assert split_words(line, "whitespace") == [
            *["mr.", "<unk>", "paid", "$", "N", "million", "for", "Pierre's", "\\/", "u.s.", "unit"]
        ]

    def test_unk_and_eos_in_the_text_are_the_special_tokens(self):
        words = ["the", "<unk>", "cat", "<eos>", "the", "<unk>"]
        tokenizer = word_tokenizer(words, 1, "whitespace")
        assert tokenizer.tokens == (UNK, EOS, "the", "cat")
        assert tokenizer.encode(" ".join(words)).tolist() == [2, UNK_ID, 3, EOS_ID, 2, UNK_ID]

    @given(st.lists(st.text(st.characters(), min_size=1), min_size=1))
    def test_vocabulary_survives_a_json_round_trip(self, texts):
        words = [word for text in texts for word in split_words(text, "whitespace") if word not in (UNK, EOS)]
        tokenizer = word_tokenizer([*words, "one"], 1, "whitespace")
        assert WordTokenizer.from_json(tokenizer.to_json(), "here", "whitespace") == tokenizer


NO_WORDS = ["", "two words", "\x1b[2J", "a", EOS, "b" * 1001, 3, None]


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[" * 100_000, "null", '["<unk>", "<eos>"]', '["<eos>", "<unk>", "a"]'),
        *(json.dumps([UNK, EOS, "a", word]) for word in NO_WORDS),
    ],
    ids=lambda content: ascii(content[:40]),
)
def test_error_for_an_invalid_vocabulary_names_the_file(content):
    for tokenizer in ("words", "whitespace"):
        with pytest.raises(RunError, match=r"run/vocabulary\.json"):
            WordTokenizer.from_json(content, "run/vocabulary.json", tokenizer)


def test_a_vocabulary_of_over_a_million_words_is_refused():
    with pytest.raises(RunError, match="at most 1,000,000"):
        WordTokenizer.from_json(json.dumps([UNK, EOS, *map(str, range(1_000_000))]), "a file")


@settings(max_examples=40)
@given(st.lists(WORDS | st.sampled_from([UNK, EOS, "Two words", "\x1b"]), max_size=20), st.lists(WORDS, min_size=1))
def test_unknown_words_decode_to_unk_and_all_others_are_unchanged(words, known):
    tokenizer = word_tokenizer(known, 1)
    expected = [word if word in {UNK, EOS, *known} else UNK for word in words]
    lines = " ".join(expected).replace(f" {EOS}", EOS).replace(f"{EOS} ", EOS).replace(EOS, "\n")
    assert tokenizer.decode([tokenizer.token_to_id.get(word, UNK_ID) for word in words]) == lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hi ☺ мир, frodo!", ["☺", "мир", "frodo"]),
        ("hi – “hi” … hi’hi 。$ + ~ \u200d \x1b", []),
        ("中文。字", ["中文", "字"]),
        ("hi☺️½hi €", ["☺️½", "€"]),
        ("İhi", ["i"]),
    ],
)
def test_unknown_spans_cover_unknown_words_and_skipped_characters_but_no_punctuation(text, expected):
    spans = WordTokenizer((UNK, EOS, "hi")).unknown_spans(text)
    assert [part for _, _, part in spans] == expected
    assert all(text[start:end].lower().startswith(part) for start, end, part in spans)


SIGNS = st.sampled_from("aZ09'-.,!?… \t\u2028\u00a0\u200bKKİẞΣσßéÉ“”\x1c\x85ﬁǅ日")
LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | SIGNS, max_size=40)
    | st.text(st.sampled_from("ab ."), max_size=60),
    max_size=12,
).map(lambda lines: [" ".join(line.split()) for line in lines])


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
    block = indexer.index_block("".join(f"{line}\n" for line in lines))
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
