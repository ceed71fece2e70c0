"""Weights mapped from one closed vocabulary to another."""

import numpy as np
import pytest

from engine.data.tokenizers.words import WordTokenizer
from engine.training.transfer.word_mapping import map_to_vocabulary

OLD = WordTokenizer(("<unk>", "<eos>", "ring", "road"))
NEW = WordTokenizer(("<unk>", "<eos>", "road", "hobbit", "ring"))


def array(*rows):
    return np.array(rows, np.float32)


def test_known_words_keep_their_rows_and_a_new_word_gets_the_mean():
    """Worked by hand: the mean of 1, 3, 5, 7 is 4, and that of 10, 20, 30, 60 is 30."""
    embedding = array([1, 10], [3, 20], [5, 30], [7, 60])
    mapped = map_to_vocabulary({"embedding.weight": embedding}, OLD, NEW)
    assert mapped["embedding.weight"].tolist() == [[1, 10], [3, 20], [7, 60], [4, 30], [5, 30]]
    assert mapped["embedding.weight"].dtype == np.float32


def test_output_rows_and_biases_are_mapped_alike():
    weights = {
        "output.weight": array([1], [3], [5], [7]),
        "output.bias": array(0, 2, 4, 6),
        "punctuation_softmax.bias": array([0, 1, 2, 3], [8, 8, 8, 0]),
    }
    mapped = map_to_vocabulary(weights, OLD, NEW)
    assert mapped["output.weight"].tolist() == [[1], [3], [7], [4], [5]]
    assert mapped["output.bias"].tolist() == [0, 2, 6, 3, 4]
    assert mapped["punctuation_softmax.bias"].tolist() == [[0, 1, 3, 1.5, 2], [8, 8, 0, 6, 8]]


def test_other_weights_are_unchanged():
    weights = {"layers.0.weight_hh_l0": array([1, 2, 3, 4]), "punctuation_softmax.gate_bias": array(1, 2, 3, 4)}
    mapped = map_to_vocabulary(weights, OLD, NEW)
    assert all(mapped[name] is weights[name] for name in weights)


@pytest.mark.parametrize("tokenizer", [OLD, WordTokenizer(OLD.tokens)])
def test_the_same_vocabulary_changes_nothing(tokenizer):
    weights = {"embedding.weight": array([1], [2], [3], [4])}
    assert map_to_vocabulary(weights, OLD, tokenizer) == weights
