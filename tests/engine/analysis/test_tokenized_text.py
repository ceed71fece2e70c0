"""Tokens, words and sentences of a text with their spans, and vocabularies by cut-off."""

import re
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.labelled_lines import LINE_END
from engine.analysis.tokenized_text import tokenize_with_offsets, written_words
from engine.analysis.vocabulary_cutoff import VocabularyCutoffs
from engine.data.dataset import concatenate_lines
from engine.data.lines import Line
from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer, split_words
from tests.support.datasets import encode_lines
from tests.support.open_models import bpe_tokenizer, character_tokenizer

WORDS = split_words("the lamp was lit in high tower before winter came down from north we walked all night")
VOCABULARY = WordTokenizer((UNK, EOS, *WORDS))
OPEN_TOKENIZERS = st.sampled_from([bpe_tokenizer(), character_tokenizer()])
CLOSED_TOKENIZERS = st.sampled_from([WordTokenizer(VOCABULARY.tokens, name) for name in ("words", "whitespace")])

# Any characters, but most often the ones with a special meaning for tokenizers and sentence ends.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.sampled_from(list("aBz9' .!?…\"\n\r\t\x1b\u2028İKſΣ'“”)’_—"))
)
TEXTS = st.text(CHARACTERS, max_size=60)


@given(TEXTS, CLOSED_TOKENIZERS, st.booleans())
def test_spans_and_sentences_of_words_match_the_tokenizer(text, tokenizer, eos_per_line):
    spans, words = tokenizer.spans(text), split_words(text, tokenizer.name)
    assert [span.id for span in spans] == tokenizer.encode(text).tolist()
    previous_end = 0
    for (start, end, _), word in zip(spans, words, strict=True):
        assert previous_end <= start < end <= len(text)
        previous_end = end
        assert split_words(text[start:end], tokenizer.name)[0] == word
    tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=eos_per_line)
    sentences = [tokens.sentence_span(index) for index in range(len(tokens.sentence_starts))]
    assert [index for first, last in sentences for index in range(first, last)] == list(range(len(tokens)))
    assert all(tokens.sentence_index(index) == i for i, span in enumerate(sentences) for index in range(*span))
    assert (tokens.start_offsets[1:] >= tokens.end_offsets[:-1]).all()


@given(TEXTS, CLOSED_TOKENIZERS)
def test_eos_per_line_matches_the_encoding_of_line_mode(text, tokenizer):
    words = tokenize_with_offsets(text + "\n", tokenizer, eos_per_line=True)
    lines = encode_lines([Line(line) for line in (text + "\n").splitlines()], tokenizer)
    assert words.ids.tolist() == (concatenate_lines(lines, "line").tolist() if lines else [])


def test_characters_that_the_tokenizer_cannot_read_are_reported():
    words = tokenize_with_offsets("the lamp ☺ was мир, ☺ lit", VOCABULARY)
    assert [words[index] for index in range(len(words))] == ["the", "lamp", "was", "lit"]
    assert words.skipped_texts() == ["☺", "мир"]
    assert [words.text[start:end] for start, end in words.skipped_spans] == ["☺", "мир", "☺"]
    assert tokenize_with_offsets("☺ мир", WordTokenizer(VOCABULARY.tokens, "whitespace")).skipped_texts() == []


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
def test_sentences_end_at_punctuation_and_line_ends(text, num_sentences):
    assert len(tokenize_with_offsets(text, VOCABULARY).sentence_starts) == num_sentences


# --- open vocabularies ----------------------------------------------------------------------------------------


def words_of(tokens):
    return [tokens.word(index) for index in range(tokens.num_words)]


@given(TEXTS, OPEN_TOKENIZERS, st.booleans())
def test_tokens_words_and_sentences_cover_the_text_exactly(text, tokenizer, eos_per_line):
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


@given(TEXTS, OPEN_TOKENIZERS)
def test_the_ids_are_those_of_training(text, tokenizer):
    lines = LINE_END.split(text)
    expected = concatenate_lines([tokenizer.encode(line) for line in lines], "line")[:-1]
    assert tokenize_with_offsets(text, tokenizer, eos_per_line=True).ids.tolist() == expected.tolist()
    stream = "\n".join(lines)
    encoded = tokenizer.encode_lines([f"{line}\n" for line in lines[:-1]] + [lines[-1]])
    assert tokenize_with_offsets(stream, tokenizer).ids.tolist() == np.concatenate(encoded).tolist()


@pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
def test_words_of_an_open_vocabulary_match_a_hand_written_split(tokenizer):
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


@given(TEXTS, OPEN_TOKENIZERS)
def test_no_token_is_in_two_written_words(text, tokenizer):
    text = re.sub(r"[^\S\n ]|[^\n -\U0010ffff]", " ", text)  # as `sanitize_text` does
    tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
    written = [text[word.start : word.end] for word in written_words(text)]
    assert [word for word in words_of(tokens) if word.strip(" ")] == written


@pytest.mark.slow
@pytest.mark.parametrize("unit", [".", "!'", "\n", ". ", "a"])
def test_a_megabyte_takes_linear_time(unit):
    text = unit * (1_000_000 // len(unit)) + "x"
    assert len(tokenize_with_offsets(text, VOCABULARY, eos_per_line=True).sentence_starts) <= 2
    for tokenizer in (bpe_tokenizer(), character_tokenizer()):
        started = time.process_time()
        tokenize_with_offsets(text[:100_000], tokenizer, eos_per_line=True)
        assert time.process_time() - started < 1.5


lines = st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), max_size=8).map(" ".join), max_size=12)


@given(train=lines, held_out=lines, cutoff=st.integers(1, 9))
def test_sizes_and_unknown_rates_are_those_of_counting(train, held_out, cutoff):
    cutoffs = VocabularyCutoffs(train, held_out)
    counts = Counter(" ".join(train).split())
    kept = {word for word, count in counts.items() if count >= cutoff}
    words = " ".join(held_out).split()
    assert cutoffs.vocabulary_size(cutoff) == len(kept)
    assert cutoffs.unknown_rate(cutoff) == (sum(word not in kept for word in words) / len(words) if words else 0)


@given(train=lines, cutoff=st.integers(1, 5))
def test_tokenizer_is_the_one_of_a_training_with_this_cutoff(train, cutoff):
    tokenizer = VocabularyCutoffs(train, []).tokenizer(cutoff)
    assert tokenizer == WordTokenizer.from_words(" ".join(train).split(), cutoff)
