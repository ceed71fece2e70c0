"""Subword matrices against hand-written ones, and LSTMs whose words share subword embeddings."""

import math

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.models.lstm import LSTMModel
from engine.models.subword_embeddings import SubwordMatrix, build_subword_matrix
from tests.support.training import NO_DROPOUT

WORDS = ("<unk>", "<eos>", "abc", "abd", "xyz", "frodo's", "frodo", "aaa", "a", "baggins", "bagginses")
VOCABULARY = WordTokenizer(WORDS)


def to_dense(subwords: SubwordMatrix, vocabulary_size: int) -> np.ndarray:
    """Return the matrix `[vocabulary, subwords]`."""
    matrix = np.zeros((vocabulary_size, subwords.num_subwords))
    for row, column, value in zip(subwords.token_ids, subwords.subword_ids, subwords.values, strict=True):
        assert matrix[row, column] == 0, "duplicate entry"
        matrix[row, column] = value
    return matrix


def subwords_of(word: str) -> set[str]:
    """Return every run of 2 to 5 characters of ^word$."""
    subwords, marked = set(), "^" + word + "$"
    for first in range(len(marked)):
        for last in range(first + 1, min(first + 5, len(marked))):
            subwords.add(marked[first : last + 1])
    return subwords


def test_subwords_of_two_words_match_a_hand_calculation() -> None:
    """^abc$ and ^abd$ share ^a, ab and ^ab. The subwords of xyz and b occur in one word only."""
    subwords = build_subword_matrix(WordTokenizer(("<unk>", "<eos>", "abc", "abd", "xyz", "b")))
    assert subwords.num_subwords == 3
    assert sorted(subwords.token_ids.tolist()) == [2, 2, 2, 3, 3, 3]
    assert sorted(subwords.subword_ids.tolist()) == [0, 0, 1, 1, 2, 2]
    assert subwords.values.tolist() == pytest.approx([1 / math.sqrt(3)] * 6)
    assert subwords.values.dtype == np.float32


def test_a_repeated_subword_counts_once() -> None:
    """^aaa$ and ^aa$ share ^a, aa, a$, ^aa and aa$."""
    subwords = build_subword_matrix(WordTokenizer(("<unk>", "<eos>", "aaa", "aa")))
    assert subwords.num_subwords == 5
    assert to_dense(subwords, 4)[2:].tolist() == [[pytest.approx(1 / math.sqrt(5))] * 5] * 2


def test_subwords_have_at_most_five_characters() -> None:
    """The words share bcdefg: 5 subwords of two characters, 4 of three, 3 of four, and 2 of five."""
    subwords = build_subword_matrix(WordTokenizer(("<unk>", "<eos>", "xbcdefgy", "zbcdefgw")))
    assert subwords.num_subwords == 5 + 4 + 3 + 2


def test_the_matrix_matches_subwords_collected_character_by_character() -> None:
    subwords = build_subword_matrix(VOCABULARY)
    words_with: dict[str, set[int]] = {}
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


def test_unk_and_eos_have_no_subwords() -> None:
    subwords = build_subword_matrix(
        WordTokenizer(("<unk>", "<eos>", "unk", "unknown", "eos", "<unk>s", "<eos>s"), "whitespace")
    )
    assert subwords.num_subwords > 0
    assert not {UNK_ID, EOS_ID} & set(subwords.token_ids.tolist())
    assert to_dense(subwords, 7)[[UNK_ID, EOS_ID]].sum() == 0


# --- in an LSTM ---------------------------------------------------------------------------------------------


def make_model(tie_weights: bool = True, seed: int = 0) -> LSTMModel:
    config = ModelConfig(embedding_size=6, hidden_size=6, tie_weights=tie_weights, **NO_DROPOUT)
    return LSTMModel(config, len(WORDS), torch.Generator().manual_seed(seed), build_subword_matrix(VOCABULARY))


def word_and_subword_embeddings(model: LSTMModel) -> tuple[np.ndarray, np.ndarray]:
    assert model.subword_embedding is not None
    return model.embedding.weight.detach().numpy().copy(), model.subword_embedding.detach().numpy().copy()


@pytest.mark.parametrize("tie_weights", [True, False])
def test_exported_embeddings_are_sums_of_word_and_subword_embeddings(tie_weights: bool) -> None:
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


@pytest.mark.parametrize("tie_weights", [True, False])
def test_the_numpy_lstm_predicts_the_same(tie_weights: bool) -> None:
    model = make_model(tie_weights, seed=3)
    lstm = model.to_decoder(VOCABULARY)
    tokens = [EOS_ID, 6, 4, 9, 2, 7, 0, 10, 3]
    logits = model(torch.tensor(tokens)[:, None], model.initial_state(1))[0][:, 0].detach().double().numpy()
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    state = lstm.start()
    for token, row in zip(tokens, expected, strict=True):
        log_probs, state = lstm.advance(state, token)
        assert log_probs == pytest.approx(row, abs=1e-5)


def test_exported_weights_can_be_loaded() -> None:
    weights = make_model(seed=1).export_weights()
    other = make_model(seed=2)
    assert not np.array_equal(other.export_weights()["embedding.weight"], weights["embedding.weight"])
    other.load_weights(weights)
    again = other.export_weights()
    assert again.keys() == weights.keys()
    assert all(np.array_equal(again[name], weights[name]) for name in weights)


def test_a_step_for_one_word_moves_the_words_that_share_subwords() -> None:
    """A step for "baggins" moves "bagginses", which was not read, but not "xyz", which shares no subword."""
    model = make_model(tie_weights=False)
    before = model.export_weights()["embedding.weight"]
    read = WORDS.index("baggins")
    logits, _, _, _ = model(torch.full((3, 1), read), model.initial_state(1))
    logits.pow(2).sum().backward()
    assert model.subword_embedding is not None
    assert model.subword_embedding.grad is not None
    matrix = to_dense(build_subword_matrix(VOCABULARY), len(WORDS))
    assert ((model.subword_embedding.grad != 0).any(dim=1).numpy() == (matrix[read] != 0)).all()
    assert (model.embedding.weight.grad != 0).any(dim=1).nonzero().flatten().tolist() == [read]  # type: ignore[union-attr]
    torch.optim.SGD(model.parameters(), 0.5).step()
    moved = {WORDS[i] for i in np.flatnonzero(np.abs(model.export_weights()["embedding.weight"] - before).max(axis=1))}
    sharing = {word for word in WORDS[2:] if subwords_of(word) & subwords_of("baggins")}
    assert moved == sharing
    assert {"bagginses", "frodo's"} <= moved  # frodo's shares only "s$"
    assert not {"xyz", "<unk>", "<eos>"} & moved


def test_a_subword_gets_the_weighted_sum_of_the_gradients_of_its_words() -> None:
    model = make_model(tie_weights=False)
    ids = torch.tensor([6, 6, 9, 6, 9])[:, None]
    logits, _, _, _ = model(ids, model.initial_state(1))
    logits.pow(2).sum().backward()
    assert model.subword_embedding is not None
    word_gradients = model.embedding.weight.grad
    assert word_gradients is not None
    expected = to_dense(build_subword_matrix(VOCABULARY), len(WORDS)).T @ word_gradients.numpy()
    assert model.subword_embedding.grad is not None
    assert model.subword_embedding.grad.numpy() == pytest.approx(expected, abs=1e-5)
