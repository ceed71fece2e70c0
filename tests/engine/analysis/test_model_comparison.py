"""Comparison of models with different tokenizers on the same text, and of two next-token distributions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.bits_per_character import EncodedText, convert_text, text_bits_per_character
from engine.analysis.model_comparison import Candidate, compare_models
from engine.analysis.next_token_comparison import compare_next_tokens, kl_divergence_bits
from engine.data.tokenizers.bpe import BPETokenizer
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.models.ngram import KneserNey, Unigram
from tests.support.models import UniformModel

LINES = ["The king rides to the sea.", "", "A king, a ship; and the sea!", "They sail: the ship rides."]
TEXT = "".join(f"{line}\n" for line in LINES * 12)
WORDS = WordTokenizer(("<unk>", "<eos>", "the", "king", "rides", "to", "sea", "a", "ship", "and"))


def encode(tokenizer, form="original"):
    return EncodedText(convert_text(TEXT, form), tokenizer, "line").ids


def candidate(name, model, text=TEXT):
    return Candidate(name, model, "line", text)


def candidates():
    bpe, characters = BPETokenizer.train(LINES * 3, 280), CharacterTokenizer([])
    return [
        candidate("words", Unigram(encode(WORDS, "words"), WORDS)),
        candidate("bpe", KneserNey(encode(bpe), bpe, 3)),
        candidate("characters", UniformModel(characters)),
    ]


def test_words_are_compared_with_all_models_and_the_original_text_with_those_that_read_it():
    words, original = compare_models(candidates())
    assert (words.form, original.form) == ("words", "original")
    assert {scores.candidate.name for scores in words.scores} == {"words", "bpe", "characters"}
    assert [scores.candidate.name for scores in original.scores] == ["bpe", "characters"]  # best first
    assert original.num_characters == len(TEXT)
    assert words.num_characters == len(convert_text(TEXT, "words"))
    assert original.scores[1].bits_per_character == pytest.approx(np.log2(257))
    best, second = (scores.bits_per_character for scores in original.scores)
    assert (original.best_two.difference, original.best_two.better_fraction) == (pytest.approx(best - second), 1)
    for scores in original.scores:
        assert scores.bits_per_character == text_bits_per_character(scores.candidate.model, TEXT, "line")
        assert scores.evaluation.unk_rate == 0
        low, high = scores.confidence_interval or (0, 0)
        assert low <= scores.bits_per_character + 1e-9
        assert high >= scores.bits_per_character - 1e-9


def test_models_of_one_form_are_compared_on_it_alone():
    assert [item.form for item in compare_models(candidates()[1:])] == ["original"]
    assert [item.form for item in compare_models(candidates()[:1])] == ["words"]
    (comparison,) = compare_models(candidates()[1:], only_words=True)
    assert (comparison.form, comparison.num_characters) == ("words", len(convert_text(TEXT, "words")))
    in_words = [candidate(item.name, item.model, "the king rides\nto the sea\n" * 20) for item in candidates()]
    (comparison,) = compare_models(in_words)
    assert (comparison.form, len(comparison.scores)) == ("original", 3)


def test_white_space_tokenizers_read_words_too_but_no_empty_lines():
    whitespace = WordTokenizer(("<unk>", "<eos>", "The", "king"), "whitespace")
    words, single_spaces, original = compare_models([*candidates(), candidate("white", UniformModel(whitespace))])
    assert [len(item.scores) for item in (words, single_spaces, original)] == [4, 3, 2]
    assert single_spaces.num_characters == len(TEXT) - 12  # an empty line in each of 12 copies


def test_different_texts_are_refused():
    words, bpe, _ = candidates()
    other = candidate("other", bpe.model, TEXT.replace("sea", "lake"))
    with pytest.raises(CorpusError, match=r"^the splits of words and other are not the same text; choose runs of the"):
        compare_models([words, other])
    other = candidate("other", bpe.model, TEXT.replace(".", " ."))
    assert [item.form for item in compare_models([words, other])] == ["words", "original"]
    with pytest.raises(CorpusError, match="bpe and other are not the same text"):
        compare_models([bpe, other])


WEIGHTS = st.lists(st.floats(0.01, 10), min_size=6, max_size=6)


def log_probs(weights):
    return np.log(np.array(weights) / sum(weights)).astype(np.float32)


@given(WEIGHTS, WEIGHTS)
def test_divergence_is_the_expected_difference_of_bits(first, second):
    p, q = ([weight / sum(each) for weight in each] for each in (first, second))
    expected = math.fsum(a * (math.log2(a) - math.log2(b)) for a, b in zip(p, q, strict=True))
    assert kl_divergence_bits(log_probs(first), log_probs(second)) == pytest.approx(expected, abs=1e-5)


@given(WEIGHTS, WEIGHTS, st.integers(1, 6))
def test_comparison_lists_what_is_likely_in_either(first, second, count):
    p, q = log_probs(first), log_probs(second)
    comparison = compare_next_tokens(p, q, count)
    larger = [max(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    assert sorted((larger[id] for id in comparison.ids.tolist()), reverse=True) == sorted(larger, reverse=True)[:count]
    assert comparison.probs[0] == pytest.approx(np.exp(p[comparison.ids]), abs=1e-6)
    assert comparison.probs[1] == pytest.approx(np.exp(q[comparison.ids]), abs=1e-6)
    assert comparison.best == (int(np.argmax(p)), int(np.argmax(q)))
    assert comparison.agrees == (np.argmax(p) == np.argmax(q))


def test_excluded_token_adds_nothing_to_the_divergence():
    with np.errstate(divide="ignore"):
        first, second = np.log(np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], np.float32))
    assert kl_divergence_bits(first, second) == pytest.approx(1)
    assert kl_divergence_bits(first, first) == 0
    assert kl_divergence_bits(second, first) == math.inf
