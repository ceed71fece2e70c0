"""Subword matrices against hand-written ones, and LSTMs whose words share subword embeddings."""

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.models.lstm import LSTMModel
from engine.models.subword_embeddings import build_subword_matrix
from tests.support.training import NO_DROPOUT

WORDS = ("<unk>", "<eos>", "abc", "abd", "xyz", "frodo's", "frodo", "aaa", "a", "baggins", "bagginses")
VOCABULARY = WordTokenizer(WORDS)


def to_dense(subwords, vocabulary_size):
    """Return the matrix `[vocabulary, subwords]`."""
    matrix = np.zeros((vocabulary_size, subwords.num_subwords))
    for row, column, value in zip(subwords.token_ids, subwords.subword_ids, subwords.values, strict=True):
        assert matrix[row, column] == 0, "duplicate entry"
        matrix[row, column] = value
    return matrix


def subwords_of(word):
    """Return every run of 2 to 5 characters of ^word$."""
    subwords, marked = set(), "^" + word + "$"
    for first in range(len(marked)):
        for last in range(first + 1, min(first + 5, len(marked))):
            subwords.add(marked[first : last + 1])
    return subwords


def test_the_matrix_matches_subwords_collected_character_by_character():
    subwords = build_subword_matrix(VOCABULARY)
    words_with = {}
    for token, word in enumerate(WORDS[2:], 2):
        for subword in subwords_of(word):
            words_with.setdefault(subword, set()).add(token)
    shared = sorted(sorted(tokens) for tokens in words_with.values() if len(tokens) >= 2)
    matrix = to_dense(subwords, len(WORDS))
    assert sorted(np.flatnonzero(column).tolist() for column in matrix.T) == shared
    norms = np.sqrt((matrix**2).sum(axis=1))  # 1 for words with subwords, since values are 1 / sqrt(count)
    assert norms == pytest.approx([0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1], abs=1e-6)
    for row in matrix:
        assert len(set(row[row > 0].tolist())) <= 1


def test_unk_and_eos_have_no_subwords():
    subwords = build_subword_matrix(
        WordTokenizer(("<unk>", "<eos>", "unk", "unknown", "eos", "<unk>s", "<eos>s"), "whitespace")
    )
    assert subwords.num_subwords > 0
    assert not {UNK_ID, EOS_ID} & set(subwords.token_ids.tolist())
    assert to_dense(subwords, 7)[[UNK_ID, EOS_ID]].sum() == 0


def make_model(tie_weights=True, seed=0):
    config = ModelConfig(embedding_size=6, hidden_size=6, tie_weights=tie_weights, **NO_DROPOUT)
    return LSTMModel(config, len(WORDS), torch.Generator().manual_seed(seed), build_subword_matrix(VOCABULARY))


def word_and_subword_embeddings(model):
    return model.embedding.weight.detach().numpy().copy(), model.subword_embedding.detach().numpy().copy()


@pytest.mark.parametrize("tie_weights", [True, False])
def test_exported_embeddings_are_sums_of_word_and_subword_embeddings(tie_weights):
    model = make_model(tie_weights)
    word_embeddings, subword_embeddings = word_and_subword_embeddings(model)
    assert np.abs(subword_embeddings).max() > 0.05, "initialized with zeros"
    expected = word_embeddings + to_dense(build_subword_matrix(VOCABULARY), len(WORDS)) @ subword_embeddings
    weights = model.export_weights()
    assert weights["embedding.weight"] == pytest.approx(expected, abs=1e-6)
    assert "subword_embedding" not in weights
    assert weights.keys() == {name for name, _ in model.named_parameters()} - {"subword_embedding"}
    # The input embeddings are these sums, and with tied weights the output layer as well.
    ids = torch.arange(len(WORDS))[:, None]
    without_subwords = LSTMModel(
        ModelConfig(embedding_size=6, hidden_size=6, tie_weights=tie_weights), len(WORDS), torch.Generator()
    )
    without_subwords.load_weights(weights)
    expected_logits = without_subwords(ids, without_subwords.initial_state(1))[0]
    torch.testing.assert_close(model(ids, model.initial_state(1))[0], expected_logits)


def test_a_subword_gets_the_weighted_sum_of_the_gradients_of_its_words():
    model = make_model(tie_weights=False)
    ids = torch.tensor([6, 6, 9, 6, 9])[:, None]
    logits, _, _, _ = model(ids, model.initial_state(1))
    logits.pow(2).sum().backward()
    word_gradients = model.embedding.weight.grad
    expected = to_dense(build_subword_matrix(VOCABULARY), len(WORDS)).T @ word_gradients.numpy()
    assert model.subword_embedding.grad.numpy() == pytest.approx(expected, abs=1e-5)
