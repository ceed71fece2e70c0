"""Tests of the bits of written lines against a naive sum of the log-probabilities of a model."""

import math

import numpy as np
import pytest

from engine.analysis.bits_per_character import text_bits_per_character
from engine.analysis.model_comparison import Candidate, compare_models
from engine.analysis.written_bits import lines_with_words, measure_written_bits
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer
from engine.models.ngram import KneserNey, Unigram
from engine.models.orthography import OrthographyModel
from engine.models.spelling import SpellingModel
from tests.support.models import naive_bits

TRAIN = ["The road goes on.", "Where is the road, then?", "The lamp is lit."]
LINES = ["The lamp is on?", "Where: the MINE of Moria."]


def test_model_of_words_pays_for_spelling_and_writing():
    tokenizer = WordTokenizer.from_words([word for line in TRAIN for word in line.lower().strip(".?").split()], 1)
    ids = np.array([id for line in TRAIN for id in [*tokenizer.encode(line), EOS_ID]], np.int32)
    model, orthography = KneserNey(ids, tokenizer, 3), OrthographyModel(TRAIN, "words")
    result = measure_written_bits(model, "line", LINES, orthography)
    read = [id for line in LINES for id in [*tokenizer.encode(line).tolist(), EOS_ID]]
    spelling = SpellingModel(tokenizer.tokens[2:])
    expected = naive_bits(model, read) - spelling.unknown_log_probs(["mine", "of", "moria"]).sum() / math.log(2)
    assert result.token_bits == pytest.approx(expected, rel=1e-5)
    assert result.orthography_bits == pytest.approx(sum(orthography.bits(line) for line in LINES))
    assert result.num_characters == sum(map(len, LINES)) + 2
    total = (result.token_bits + result.orthography_bits) / result.num_characters
    assert result.bits_per_character == pytest.approx(total)
    # `lotr-tui eval` states the bits of the words per character of the lower-case words.
    (comparison,) = compare_models([Candidate("words", model, "line", "\n".join(LINES))])
    assert result.token_bits / comparison.num_characters == pytest.approx(comparison.scores[0].bits_per_character)


def test_open_vocabulary_pays_for_its_tokens_only():
    tokenizer = CharacterTokenizer.from_lines(TRAIN, 1)
    ids = np.array([id for line in TRAIN for id in [*tokenizer.encode(line), EOS_ID]], np.int32)
    model = KneserNey(ids, tokenizer, 3)
    result = measure_written_bits(model, "line", LINES, None)
    assert result.orthography_bits == 0
    assert result.bits_per_character == pytest.approx(text_bits_per_character(model, "\n".join(LINES), "line"))


def test_speaker_of_a_dialogue_is_given():
    tokenizer = CharacterTokenizer.from_lines(TRAIN, 1).with_cast(("BILBO", "SOMEONE"))
    speaker = tokenizer.speaker_id("SOMEONE")
    train = [id for line in TRAIN for id in [speaker, *tokenizer.encode(line).tolist(), EOS_ID]]
    model = Unigram(np.array(train, np.int32), tokenizer)
    result = measure_written_bits(model, "dialogue", LINES, None)
    text_ids = [id for line in LINES for id in [*tokenizer.encode(line).tolist(), EOS_ID]]
    assert result.token_bits == pytest.approx(naive_bits(model, text_ids), rel=1e-5)
    assert result.num_characters == sum(map(len, LINES)) + 2  # a colon in a line is not the end of a name


def test_lines_without_a_word_are_left_out():
    lines = ["", "...", "a", "¿?", "No."]
    assert list(lines_with_words(lines, "words")) == ["a", "No."]
    assert list(lines_with_words(lines, "whitespace")) == lines[1:]
