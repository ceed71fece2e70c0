"""Tokenizers of words and of white space."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers import EOS, EOS_ID, UNK, UNK_ID, WordTokenizer, split_words
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
