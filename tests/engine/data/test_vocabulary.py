"""Tokenizers and vocabularies."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.vocabulary import EOS, EOS_ID, UNK, UNK_ID, Vocabulary, tokenize
from engine.errors import RunError

ANY_TEXT = st.text(st.characters())
WORDS = st.from_regex(r"[a-z0-9']{1,8}", fullmatch=True)


@given(ANY_TEXT)
def test_words_consist_of_letters_digits_and_apostrophes(text):
    assert all(re.fullmatch(r"[a-z0-9']+", word) for word in tokenize(text))


@given(ANY_TEXT)
def test_tokenizing_is_idempotent(text):
    words = tokenize(text)
    assert tokenize(" ".join(words)) == words


@given(ANY_TEXT, ANY_TEXT)
def test_tokens_do_not_span_lines(one, other):
    assert tokenize(one + "\n" + other) == tokenize(one) + tokenize(other)


@given(ANY_TEXT)
def test_words_tokenizer_equals_the_notebook(text):
    assert tokenize(text) == re.sub(r"[^a-z0-9']+", " ", text.lower()).split()


def test_examples_from_the_notebook():
    assert tokenize("Don't! Bilbo-Baggins,  says   3 times: 'no'\u00a0.") == [
        *["don't", "bilbo", "baggins", "says", "3", "times", "'no'"]
    ]
    assert tokenize("Théoden") == ["th", "oden"]
    assert tokenize("... — !") == []


class TestWhitespaceTokenizer:
    """The tokenizer for text that is already tokenized, as Penn Treebank."""

    def test_tokens_are_unchanged(self):
        line = " mr. <unk> paid $ N million  for Pierre's \\/ u.s. unit \n"
        assert tokenize(line, "whitespace") == [
            *["mr.", "<unk>", "paid", "$", "N", "million", "for", "Pierre's", "\\/", "u.s.", "unit"]
        ]

    def test_unk_and_eos_in_the_text_are_the_special_tokens(self):
        words = ["the", "<unk>", "cat", "<eos>", "the", "<unk>"]
        vocabulary = Vocabulary.from_tokens(words, 1, "whitespace")
        assert vocabulary.tokens == (UNK, EOS, "the", "cat")
        assert vocabulary.encode(words).tolist() == [2, UNK_ID, 3, EOS_ID, 2, UNK_ID]

    @given(ANY_TEXT)
    def test_tokens_contain_no_control_characters(self, text):
        words = tokenize(text, "whitespace")
        assert all(word.isprintable() and word.split() == [word] for word in words)

    @given(st.lists(st.text(st.characters(), min_size=1), min_size=1))
    def test_vocabulary_survives_a_json_round_trip(self, texts):
        words = [word for text in texts for word in tokenize(text, "whitespace") if word not in (UNK, EOS)]
        vocabulary = Vocabulary.from_tokens([*words, "one"], 1, "whitespace")
        assert Vocabulary.from_json(vocabulary.to_json(), "here", "whitespace") == vocabulary

    @pytest.mark.parametrize("word", ["two words", "", "a\u001b[2J", "a\n", "\u202e", "x" * 1001])
    def test_entries_that_the_tokenizer_cannot_produce_are_refused(self, word):
        with pytest.raises(RunError, match="not words"):
            Vocabulary.from_json(json.dumps([UNK, EOS, word]), "here", "whitespace")

    def test_vocabulary_uses_its_tokenizer(self):
        assert Vocabulary((UNK, EOS, "a"), "whitespace").tokenize("Mr. A") == ["Mr.", "A"]
        assert Vocabulary((UNK, EOS, "a")).tokenize("Mr. A") == ["mr", "a"]


@given(st.lists(WORDS, max_size=60), st.integers(1, 4))
def test_frequent_words_are_in_order_of_first_appearance(words, min_count):
    vocabulary = Vocabulary.from_tokens(words, min_count)
    assert vocabulary.tokens[:2] == (UNK, EOS)
    expected = [word for word in dict.fromkeys(words) if words.count(word) >= min_count]
    assert list(vocabulary.tokens[2:]) == expected


@given(st.lists(WORDS, min_size=1))
def test_decoding_ids_of_known_words_gives_the_words(words):
    vocabulary = Vocabulary.from_tokens(words, 1)
    ids = vocabulary.encode(words)
    assert ids.dtype == np.int32
    assert vocabulary.decode(ids) == " ".join(words)
    assert UNK_ID not in ids
    assert EOS_ID not in ids


def test_unknown_words_become_unk():
    vocabulary = Vocabulary.from_tokens(["a", "b"], 1)
    assert vocabulary.encode(["a", "zzz", "b"]).tolist() == [2, UNK_ID, 3]
    assert "zzz" not in vocabulary
    assert "a" in vocabulary
    assert vocabulary.encode([]).tolist() == []


@given(st.lists(WORDS, min_size=1))
def test_vocabulary_survives_a_json_round_trip(words):
    vocabulary = Vocabulary.from_tokens(words, 1)
    assert Vocabulary.from_json(vocabulary.to_json(), "here") == vocabulary


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        "null",
        "{}",
        "[]",
        '["<unk>", "<eos>"]',
        '["<eos>", "<unk>", "a"]',
        '["a", "b", "c"]',
        '["<unk>", "<eos>", "a", "a"]',
        '["<unk>", "<eos>", "a", "<eos>"]',
        '["<unk>", "<eos>", ""]',
        '["<unk>", "<eos>", "two words"]',
        '["<unk>", "<eos>", "A"]',
        '["<unk>", "<eos>", "a\\n"]',
        '["<unk>", "<eos>", "\\u001b[2J"]',
        '["<unk>", "<eos>", 3]',
        '["<unk>", "<eos>", ["a"]]',
        '["<unk>", "<eos>", {"a": 1}]',
        '["<unk>", "<eos>", null]',
    ],
)
def test_error_for_an_invalid_vocabulary_names_the_file(content):
    with pytest.raises(RunError, match=r"run/vocabulary\.json"):
        Vocabulary.from_json(content, "run/vocabulary.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from([UNK, EOS, "a", "b"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(JSON | st.lists(JSON, max_size=4).map(lambda rest: [UNK, EOS, *rest]))
def test_any_json_is_a_vocabulary_or_refused(value):
    try:
        vocabulary = Vocabulary.from_json(json.dumps(value), "here")
    except RunError:
        return
    assert list(vocabulary.tokens) == value
    assert len(vocabulary.token_to_id) == len(vocabulary) > 2


@given(st.lists(WORDS | st.sampled_from([UNK, EOS, "Two words", "\x1b"]), max_size=20), st.lists(WORDS, min_size=1))
def test_unknown_words_decode_to_unk_and_all_others_are_unchanged(words, known):
    vocabulary = Vocabulary.from_tokens(known, 1)
    expected = [word if word in {UNK, EOS, *known} else UNK for word in words]
    assert vocabulary.decode(vocabulary.encode(words)) == " ".join(expected)


@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(1, 10**6), st.sampled_from(["words", "whitespace"]))
def test_a_truncated_vocabulary_is_refused_in_one_line(words, length, tokenizer):
    text = Vocabulary.from_tokens(words, 1, tokenizer).to_json()
    with pytest.raises(RunError) as caught:
        Vocabulary.from_json(text[: length % len(text)], "run/vocabulary.json", tokenizer)
    assert str(caught.value) == "run/vocabulary.json is not JSON; the run is damaged"


@given(ANY_TEXT, st.sampled_from(["words", "whitespace"]))
def test_token_spans_match_the_tokenizer(text, tokenizer):
    vocabulary = Vocabulary((UNK, EOS, "a"), tokenizer)
    spans = list(vocabulary.token_spans(text))
    assert [word for _, _, word in spans] == vocabulary.tokenize(text)
    assert all(0 <= start < end <= len(text) for start, end, _ in spans)
    assert [start for start, _, _ in spans] == sorted(start for start, _, _ in spans)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hi ☺ мир, frodo!", ["☺", "мир", "frodo"]),
        ("hi – “hi” … hi’hi 。$ + ~ \u200d \x1b", []),
        ("中文。字", ["中文", "字"]),
        ("hi☺️½hi €", ["☺️½", "€"]),
        ("e\u0301 hi", ["e"]),
        ("İhi", ["i"]),
    ],
)
def test_unknown_spans_cover_unknown_words_and_skipped_characters_but_no_punctuation(text, expected):
    spans = Vocabulary((UNK, EOS, "hi")).unknown_spans(text)
    assert [part for _, _, part in spans] == expected
    assert all(text[start:end].lower().startswith(part) for start, end, part in spans)


@given(ANY_TEXT, st.sampled_from(["words", "whitespace"]))
def test_unknown_spans_are_printable_and_contain_the_unknown_tokens_in_text_order(text, tokenizer):
    vocabulary = Vocabulary((UNK, EOS, "a"), tokenizer)
    spans = vocabulary.unknown_spans(text)
    assert spans == sorted(spans)
    assert all(part.isprintable() and 0 <= start < end <= len(text) for start, end, part in spans)
    words = [span for span in vocabulary.token_spans(text) if span[2] not in vocabulary]
    assert [span for span in spans if span in words] == words
    assert tokenizer == "words" or spans == words


@pytest.mark.parametrize("tokenizer", ["words", "whitespace"])
def test_endless_words_are_not_part_of_a_vocabulary(tokenizer):
    longest = "a" * 1000
    vocabulary = Vocabulary.from_tokens([longest, longest + "b"], 1, tokenizer)
    assert vocabulary.tokens == (UNK, EOS, longest)
    assert Vocabulary.from_json(vocabulary.to_json(), "here", tokenizer) == vocabulary
    with pytest.raises(RunError, match="not words of at most 1,000 characters"):
        Vocabulary.from_json(json.dumps([UNK, EOS, longest + "b"]), "here", tokenizer)
