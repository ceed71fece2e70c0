"""Comparison of models with different tokenizers on the same text."""

import numpy as np
import pytest

from engine.analysis.bits_per_character import EncodedText, convert_text, text_bits_per_character
from engine.analysis.model_comparison import Candidate, compare_models
from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.data.tokenizers.bpe import BPETokenizer
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey, Unigram
from tests.support.models import UniformModel

LINES = ["The king rides to the sea.", "", "A king, a ship; and the sea!", "They sail: the ship rides."]
TEXT = "".join(f"{line}\n" for line in LINES * 12)
WORDS = WordTokenizer(("<unk>", "<eos>", "the", "king", "rides", "to", "sea", "a", "ship", "and"))


def encode(tokenizer: Tokenizer, form: str = "original") -> TokenIds:
    return EncodedText(convert_text(TEXT, form), tokenizer, "line").ids  # type: ignore[arg-type]


def candidate(name: str, model: LanguageModel, text: str = TEXT) -> Candidate:
    return Candidate(name, model, "line", text)


def candidates() -> list[Candidate]:
    bpe, characters = BPETokenizer.train(LINES * 3, 280), CharacterTokenizer([])
    return [
        candidate("words", Unigram(encode(WORDS, "words"), WORDS)),
        candidate("bpe", KneserNey(encode(bpe), bpe, 3)),
        candidate("characters", UniformModel(characters)),
    ]


def test_words_are_compared_with_all_models_and_the_original_text_with_those_that_read_it() -> None:
    words, original = compare_models(candidates())
    assert (words.form, original.form) == ("words", "original")
    assert {scores.candidate.name for scores in words.scores} == {"words", "bpe", "characters"}
    assert [scores.candidate.name for scores in original.scores] == ["bpe", "characters"]  # best first
    assert original.num_characters == len(TEXT)
    assert words.num_characters == len(convert_text(TEXT, "words"))
    assert original.scores[1].bits_per_character == pytest.approx(np.log2(257))
    for scores in original.scores:
        assert scores.bits_per_character == text_bits_per_character(scores.candidate.model, TEXT, "line")
        assert scores.evaluation.unk_rate == 0
        low, high = scores.confidence_interval or (0, 0)
        assert low <= scores.bits_per_character + 1e-9
        assert high >= scores.bits_per_character - 1e-9


def test_the_order_of_the_models_does_not_matter() -> None:
    def figures(order: list[int]) -> list[object]:
        models = candidates()
        return [
            (item.form, item.best_two, [(scores.candidate.name, scores.bits_per_character) for scores in item.scores])
            for item in compare_models([models[index] for index in order])
        ]

    assert figures([0, 1, 2]) == figures([2, 1, 0]) == figures([1, 2, 0])


def test_only_words_is_one_comparison_of_all_models() -> None:
    (comparison,) = compare_models(candidates()[1:], only_words=True)
    assert comparison.form == "words"
    assert comparison.num_characters == len(convert_text(TEXT, "words"))


def test_models_of_one_form_are_compared_on_it_alone() -> None:
    assert [item.form for item in compare_models(candidates()[1:])] == ["original"]
    assert [item.form for item in compare_models(candidates()[:1])] == ["words"]


def test_a_text_that_is_written_in_words_is_original_for_all() -> None:
    text = "the king rides\nto the sea\n" * 20
    models = [candidate(item.name, item.model, text) for item in candidates()]
    (comparison,) = compare_models(models)
    assert comparison.form == "original"
    assert len(comparison.scores) == 3


def test_white_space_tokenizers_read_words_too_but_no_empty_lines() -> None:
    whitespace = WordTokenizer(("<unk>", "<eos>", "The", "king"), "whitespace")
    words, single_spaces, original = compare_models([*candidates(), candidate("white", UniformModel(whitespace))])
    assert [len(item.scores) for item in (words, single_spaces, original)] == [4, 3, 2]
    assert single_spaces.num_characters == len(TEXT) - 12  # an empty line in each of 12 copies


def test_a_model_is_as_good_as_itself() -> None:
    model = candidates()[0].model
    (comparison,) = compare_models([candidate("one", model), candidate("two", model)])
    assert comparison.best_two is not None
    assert comparison.best_two.difference == 0
    assert comparison.best_two.better_fraction == 0.5


def test_the_best_two_are_compared_block_by_block() -> None:
    _, original = compare_models(candidates())
    best_two = original.best_two
    assert best_two is not None
    first, second = original.scores
    assert best_two.difference == pytest.approx(first.bits_per_character - second.bits_per_character)
    assert best_two.better_fraction == 1
    (alone,) = compare_models(candidates()[1:2])
    assert alone.best_two is None


def test_different_texts_are_refused() -> None:
    models = candidates()
    other = candidate("other", models[1].model, TEXT.replace("sea", "lake"))
    with pytest.raises(
        CorpusError, match=r"^the splits of words and other are not the same text; choose runs of the same"
    ):
        compare_models([models[0], other])


def test_texts_that_differ_in_punctuation_only_are_compared_by_words() -> None:
    models = candidates()
    other = candidate("other", models[1].model, TEXT.replace(".", " ."))
    assert [item.form for item in compare_models([models[0], other])] == ["words", "original"]
    with pytest.raises(CorpusError, match="bpe and other are not the same text"):
        compare_models([models[1], other])
