"""Tokens, words and sentences of a text, with their spans, for closed and open vocabularies."""

import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.labelled_lines import LINE_END
from engine.analysis.tokenized_text import TokenizedText, tokenize_with_offsets, written_words
from engine.data.dataset import concatenate_lines
from engine.data.lines import Line
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, Tokenizer
from engine.data.tokenizers.words import WordTokenizer, WordTokenizerName, split_words
from tests.support.datasets import encode_lines
from tests.support.open_models import bpe_tokenizer, character_tokenizer

WORDS = split_words("the lamp was lit in high tower before winter came down from north we walked all night")
VOCABULARY = WordTokenizer((UNK, EOS, *WORDS))
OPEN_TOKENIZERS = [bpe_tokenizer(), character_tokenizer()]

# Any characters, but most often the ones with a special meaning for tokenizers and sentence ends.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.sampled_from(list("aBz9' .!?…\"\n\r\t\x1b\u2028İKſΣ'“”)’_—"))
)
TEXTS = st.text(CHARACTERS, max_size=60)


@given(TEXTS, st.sampled_from(["words", "whitespace"]))
def test_spans_match_the_tokenizer(text: str, name: WordTokenizerName) -> None:
    tokenizer = WordTokenizer(VOCABULARY.tokens, name)
    spans = tokenizer.spans(text)
    assert [span.id for span in spans] == tokenizer.encode(text).tolist()
    words = split_words(text, name)
    previous_end = 0
    for (start, end, _), word in zip(spans, words, strict=True):
        assert previous_end <= start < end <= len(text)
        previous_end = end
        assert split_words(text[start:end], name)[0] == word


@given(TEXTS, st.sampled_from(["words", "whitespace"]), st.booleans())
def test_every_token_is_in_exactly_one_sentence(text: str, name: WordTokenizerName, eos_per_line: bool) -> None:
    tokenizer = WordTokenizer(VOCABULARY.tokens, name)
    words = tokenize_with_offsets(text, tokenizer, eos_per_line=eos_per_line)
    spans = [words.sentence_span(index) for index in range(len(words.sentence_starts))]
    assert [index for first, last in spans for index in range(first, last)] == list(range(len(words)))
    assert all(
        words.sentence_index(index) == sentence
        for sentence, (first, last) in enumerate(spans)
        for index in range(first, last)
    )
    assert (words.start_offsets[1:] >= words.end_offsets[:-1]).all()


@given(TEXTS, st.sampled_from(["words", "whitespace"]))
def test_eos_per_line_matches_the_encoding_of_line_mode(text: str, name: WordTokenizerName) -> None:
    tokenizer = WordTokenizer(VOCABULARY.tokens, name)
    words = tokenize_with_offsets(text + "\n", tokenizer, eos_per_line=True)
    lines = encode_lines([Line(line) for line in (text + "\n").splitlines()], tokenizer)
    expected: list[int] = concatenate_lines(lines, "line").tolist() if lines else []
    assert words.ids.tolist() == expected


def test_characters_that_the_tokenizer_cannot_read_are_reported() -> None:
    words = tokenize_with_offsets("the lamp ☺ was мир, ☺ lit", VOCABULARY)
    assert [words[index] for index in range(len(words))] == ["the", "lamp", "was", "lit"]
    assert words.skipped_texts() == ["☺", "мир"]
    assert [words.text[start:end] for start, end in words.skipped_spans] == ["☺", "мир", "☺"]
    assert tokenize_with_offsets("☺ мир", WordTokenizer(VOCABULARY.tokens, "whitespace")).skipped_texts() == []


def test_tokens_are_returned_as_written() -> None:
    text = "The LAMP, was lit!\n\n  Gandalf came..."
    words = tokenize_with_offsets(text, VOCABULARY)
    assert [words[index] for index in range(len(words))] == ["The", "LAMP", "was", "lit", "Gandalf", "came"]
    assert [VOCABULARY.tokens[i] for i in words.ids] == ["the", "lamp", "was", "lit", UNK, "came"]
    assert words.unknown_mask.tolist() == [False, False, False, False, True, False]
    assert [words.sentence_span(index) for index in range(2)] == [(0, 4), (4, 6)]


def test_an_eos_belongs_to_the_sentence_it_ends() -> None:
    words = tokenize_with_offsets("the lamp. was lit. \r\n\r\nwinter came\nnight", VOCABULARY, eos_per_line=True)
    spans = [words.sentence_span(index) for index in range(4)]
    assert [words.ids[first:last].tolist() for first, last in spans] == [
        VOCABULARY.encode_words(["the", "lamp"]).tolist(),
        [*VOCABULARY.encode_words(["was", "lit"]).tolist(), EOS_ID],
        [*VOCABULARY.encode_words(["winter", "came"]).tolist(), EOS_ID],
        VOCABULARY.encode_words(["night"]).tolist(),
    ]
    assert words[4] == "\r\n"


@pytest.mark.parametrize(
    ("text", "num_sentences"),
    [
        ("the lamp. was lit", 2),
        ("3.5 night", 1),
        ("the.lamp", 1),
        ('"the lamp!" was lit', 2),
        ("the lamp … was", 2),
        ("the lamp?!... was", 2),
        ("... the lamp", 1),
        ("the lamp\nwas", 2),
        ("", 0),
        (" .!? \n", 0),
    ],
)
def test_sentences_end_at_punctuation_and_line_ends(text: str, num_sentences: int) -> None:
    assert len(tokenize_with_offsets(text, VOCABULARY).sentence_starts) == num_sentences


def test_the_whitespace_tokenizer_keeps_punctuation_in_words() -> None:
    words = tokenize_with_offsets("The end. of <unk> Inc . now", WordTokenizer((UNK, EOS, "of"), "whitespace"))
    assert [words[index] for index in range(len(words))] == ["The", "end.", "of", "<unk>", "Inc", ".", "now"]
    assert words.sentence_starts.tolist() == [0, 2, 6]
    assert words.ids.tolist() == [0, 0, 2, 0, 0, 0, 0]


# --- open vocabularies ----------------------------------------------------------------------------------------


def words_of(tokens: TokenizedText) -> list[str]:
    return [tokens.word(index) for index in range(tokens.num_words)]


@pytest.mark.parametrize("tokenizer", OPEN_TOKENIZERS, ids=["bpe", "characters"])
@pytest.mark.parametrize("eos_per_line", [True, False])
def test_tokens_words_and_sentences_cover_the_text_exactly(tokenizer: Tokenizer, *, eos_per_line: bool) -> None:
    @given(TEXTS)
    def check(text: str) -> None:
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=eos_per_line)
        assert "".join(tokens[index] for index in range(len(tokens))) == text
        assert (tokens.start_offsets[1:] == tokens.end_offsets[:-1]).all()
        word_tokens = list(zip(tokens.word_starts.tolist(), tokens.word_ends.tolist(), strict=True))
        assert [token for start, end in word_tokens for token in range(start, end)] == list(range(len(tokens)))
        assert all(tokens.word_index(token) == i for i, span in enumerate(word_tokens) for token in range(*span))
        # A word begins and ends with whole characters, and leaves out only the spaces before it.
        position = 0
        for start, end in zip(*map(np.ndarray.tolist, tokens.word_spans), strict=True):
            assert start < end
            assert not text[position:start].strip(" ")
            position = end
        assert position == len(text)
        sentences = [tokens.sentence_span(index) for index in range(len(tokens.sentence_starts))]
        assert [word for first, last in sentences for word in range(first, last)] == list(range(tokens.num_words))

    check()


@pytest.mark.parametrize("tokenizer", OPEN_TOKENIZERS, ids=["bpe", "characters"])
def test_the_ids_are_those_of_training(tokenizer: Tokenizer) -> None:
    @given(TEXTS)
    def check(text: str) -> None:
        lines = LINE_END.split(text)
        expected = concatenate_lines([tokenizer.encode(line) for line in lines], "line")[:-1]
        assert tokenize_with_offsets(text, tokenizer, eos_per_line=True).ids.tolist() == expected.tolist()
        stream = "\n".join(lines)
        encoded = tokenizer.encode_lines([f"{line}\n" for line in lines[:-1]] + [lines[-1]])
        assert tokenize_with_offsets(stream, tokenizer).ids.tolist() == np.concatenate(encoded).tolist()

    check()


@pytest.mark.parametrize("tokenizer", OPEN_TOKENIZERS, ids=["bpe", "characters"])
def test_words_of_an_open_vocabulary_match_a_hand_written_split(tokenizer: Tokenizer) -> None:
    text = "The wizard's staff, “Éowyn” said…\n\n  'Tis 3.5 half-elves; snake_case?! 😀 é’s \nthe end  "
    tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
    expected = [
        *["The", "wizard's", "staff", ",", "“", "Éowyn", "”", "said", "…", "\n", "\n"],
        *["'Tis", "3", ".", "5", "half", "-", "elves", ";", "snake", "_", "case", "?!", "😀", "é’s", "\n"],
        *["the", "end", "  "],
    ]
    assert words_of(tokens) == expected
    assert [word for word, is_word in zip(expected, tokens.has_letters, strict=True) if is_word] == [
        *["The", "wizard's", "staff", "Éowyn", "said", "'Tis", "3", "5", "half", "elves", "snake", "case", "é’s"],
        *["the", "end"],
    ]
    assert not tokens.unknown_mask.any()
    sentences = [tokens.sentence_span(index) for index in range(len(tokens.sentence_starts))]
    assert [expected[first] for first, _ in sentences] == ["The", "'Tis", "😀", "the"]


@pytest.mark.parametrize("tokenizer", OPEN_TOKENIZERS, ids=["bpe", "characters"])
def test_no_token_is_in_two_written_words(tokenizer: Tokenizer) -> None:
    @given(TEXTS)
    def check(text: str) -> None:
        text = re.sub(r"[^\S\n ]|[^\n -\U0010ffff]", " ", text)  # as `sanitize_text` does
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
        written = [text[word.start : word.end] for word in written_words(text)]
        assert [word for word in words_of(tokens) if word.strip(" ")] == written

    check()


def test_the_bytes_of_a_character_are_one_word() -> None:
    tokens = tokenize_with_offsets("a 😀b", character_tokenizer())
    assert [tokens[index] for index in range(len(tokens))] == ["a", " ", "😀", "", "", "", "b"]
    assert tokens.word_starts.tolist() == [0, 1, 6]


def test_empty_lines_end_in_eos_in_an_open_vocabulary() -> None:
    tokens = tokenize_with_offsets("\n\na\n", character_tokenizer(), eos_per_line=True)
    assert [id == EOS_ID for id in tokens.ids.tolist()] == [True, True, False, True]
    assert words_of(tokens) == ["\n", "\n", "a", "\n"]
    stream = tokenize_with_offsets("\n\na\n", character_tokenizer())
    assert EOS_ID not in stream.ids
    assert words_of(stream) == ["\n", "\n", "a", "\n"]


# --- long texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", OPEN_TOKENIZERS, ids=["bpe", "characters"])
@pytest.mark.parametrize("text", ["The lamp, in the tower.\n" * 4000, "\n" * 100_000, "." * 100_000, "a" * 100_000])
def test_a_hundred_kilobytes_of_an_open_vocabulary_take_well_under_a_second(tokenizer: Tokenizer, text: str) -> None:
    started = time.process_time()
    tokenize_with_offsets(text, tokenizer, eos_per_line=True)
    assert time.process_time() - started < 0.7


@pytest.mark.parametrize("text", ["." * 1_000_000 + "x", "!'" * 500_000 + "x", "\n" * 1_000_000, ". " * 500_000])
def test_a_megabyte_of_punctuation_takes_linear_time(text: str) -> None:
    assert len(tokenize_with_offsets(text, VOCABULARY, eos_per_line=True).sentence_starts) <= 2
