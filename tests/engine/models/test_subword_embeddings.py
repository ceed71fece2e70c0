"""Groups of letters by hand, and a network whose words share embeddings by them."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID, UNK_ID, Vocabulary
from engine.models.lstm import Network
from engine.models.subword_embeddings import Spelling, spelling_of

WORDS = ("<unk>", "<eos>", "abc", "abd", "xyz", "frodo's", "frodo", "aaa", "a", "baggins", "bagginses")
VOCABULARY = Vocabulary(WORDS)


def dense(spelling: Spelling, size: int) -> np.ndarray:
    """The matrix `[vocabulary, groups]` that the entries say."""
    matrix = np.zeros((size, spelling.number_of_groups))
    for word, group, value in zip(spelling.words, spelling.groups, spelling.values, strict=True):
        assert matrix[word, group] == 0, "an entry is there twice"
        matrix[word, group] = value
    return matrix


def groups_of(word: str) -> set[str]:
    """Every run of two to five characters of ^word$, read off character by character."""
    found, marked = set(), "^" + word + "$"
    for first in range(len(marked)):
        for last in range(first + 1, min(first + 5, len(marked))):
            found.add(marked[first : last + 1])
    return found


def test_the_groups_of_two_words_by_hand() -> None:
    """^abc$ and ^abd$ share ^a, ab and ^ab; each of ^x.. stands alone; b ends one word only."""
    spelling = spelling_of(Vocabulary(("<unk>", "<eos>", "abc", "abd", "xyz", "b")))
    assert spelling.number_of_groups == 3
    assert sorted(spelling.words.tolist()) == [2, 2, 2, 3, 3, 3]
    assert sorted(spelling.groups.tolist()) == [0, 0, 1, 1, 2, 2]
    assert spelling.values.tolist() == pytest.approx([1 / math.sqrt(3)] * 6)
    assert spelling.values.dtype == np.float32


def test_a_group_that_a_word_has_twice_counts_once() -> None:
    """^aaa$ and ^aa$ share ^a, aa, a$, ^aa and aa$."""
    spelling = spelling_of(Vocabulary(("<unk>", "<eos>", "aaa", "aa")))
    assert spelling.number_of_groups == 5
    assert dense(spelling, 4)[2:].tolist() == [[pytest.approx(1 / math.sqrt(5))] * 5] * 2


def test_longer_groups_than_five_letters_are_none() -> None:
    """Words that differ at both ends share the inner bcdefg: 5 pairs, 4 of three, 3 of four, 2 of five."""
    spelling = spelling_of(Vocabulary(("<unk>", "<eos>", "xbcdefgy", "zbcdefgw")))
    assert spelling.number_of_groups == 5 + 4 + 3 + 2


def test_the_groups_are_those_counted_letter_by_letter() -> None:
    spelling = spelling_of(VOCABULARY)
    having: dict[str, set[int]] = {}
    for i, word in enumerate(WORDS[2:], 2):
        for group in groups_of(word):
            having.setdefault(group, set()).add(i)
    shared = sorted(sorted(words) for words in having.values() if len(words) >= 2)
    matrix = dense(spelling, len(WORDS))
    assert sorted(np.flatnonzero(column).tolist() for column in matrix.T) == shared
    lengths = np.sqrt((matrix**2).sum(axis=1))  # values 1/sqrt(count), so rows of length 1 or none at all
    assert lengths == pytest.approx([0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1], abs=1e-6)
    for row in matrix:
        assert len(set(row[row > 0].tolist())) <= 1


def test_unknown_and_end_are_not_spelled() -> None:
    spelling = spelling_of(Vocabulary(("<unk>", "<eos>", "unk", "unknown", "eos", "<unk>s", "<eos>s"), "spaces"))
    assert spelling.number_of_groups > 0
    assert not {UNK_ID, EOS_ID} & set(spelling.words.tolist())
    assert dense(spelling, 7)[[UNK_ID, EOS_ID]].sum() == 0


# --- in a network ---------------------------------------------------------------------------------------------


def network_of(tied: bool = True, seed: int = 0, **values: Any) -> Network:
    values = {"dropout_words": 0.0, "dropout_input": 0.0, "dropout_output": 0.0, "weight_drop": 0.0} | values
    config = ModelConfig(embedding_size=6, hidden_size=6, tied=tied, **values)
    return Network(config, len(WORDS), torch.Generator().manual_seed(seed), spelling_of(VOCABULARY))


def own_and_shared(network: Network) -> tuple[np.ndarray, np.ndarray]:
    assert network.letters is not None
    return network.embedding.weight.detach().numpy().copy(), network.letters.detach().numpy().copy()


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_is_the_words_own_and_those_of_its_groups(tied: bool) -> None:
    network = network_of(tied)
    own, shared = own_and_shared(network)
    assert np.abs(shared).max() > 0.05, "the groups start from something"
    expected = own + dense(spelling_of(VOCABULARY), len(WORDS)) @ shared
    weights = network.weights()
    assert weights["embedding.weight"] == pytest.approx(expected, abs=1e-6)
    assert "letters" not in weights
    assert weights.keys() == {name for name, _ in network.named_parameters()} - {"letters"}
    # What is read are these sums, and where it is tied, the output layer is them too.
    ids = torch.arange(len(WORDS))[:, None]
    plain = Network(ModelConfig(embedding_size=6, hidden_size=6, tied=tied), len(WORDS), torch.Generator())
    plain.load(weights)
    torch.testing.assert_close(network(ids, network.start(1))[0], plain(ids, plain.start(1))[0])


@pytest.mark.parametrize("tied", [True, False])
def test_the_decoder_plays_the_same_model(tied: bool) -> None:
    network = network_of(tied, seed=3)
    decoder = network.decoder(VOCABULARY)
    text = [EOS_ID, 6, 4, 9, 2, 7, 0, 10, 3]
    logits = network(torch.tensor(text)[:, None], network.start(1))[0][:, 0].detach().double().numpy()
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    state = decoder.start()
    for token, row in zip(text, expected, strict=True):
        log_probs, state = decoder.advance(state, token)
        assert log_probs == pytest.approx(row, abs=1e-5)


def test_what_was_taken_out_can_be_loaded_again() -> None:
    weights = network_of(seed=1).weights()
    other = network_of(seed=2)
    assert not np.array_equal(other.weights()["embedding.weight"], weights["embedding.weight"])
    other.load(weights)
    again = other.weights()
    assert again.keys() == weights.keys()
    assert all(np.array_equal(again[name], weights[name]) for name in weights)


def test_a_word_learns_from_those_that_share_its_letters() -> None:
    """One step for "baggins" moves "bagginses", which was not read, and leaves "xyz", which shares nothing."""
    network = network_of(tied=False)
    before = network.weights()["embedding.weight"]
    read = WORDS.index("baggins")
    logits, _, _, _ = network(torch.full((3, 1), read), network.start(1))
    logits.pow(2).sum().backward()
    assert network.letters is not None
    assert network.letters.grad is not None
    groups = dense(spelling_of(VOCABULARY), len(WORDS))
    assert ((network.letters.grad != 0).any(dim=1).numpy() == (groups[read] != 0)).all()
    assert (network.embedding.weight.grad != 0).any(dim=1).nonzero().flatten().tolist() == [read]  # type: ignore[union-attr]
    torch.optim.SGD(network.parameters(), 0.5).step()
    moved = {WORDS[i] for i in np.flatnonzero(np.abs(network.weights()["embedding.weight"] - before).max(axis=1))}
    shares = {word for word in WORDS[2:] if groups_of(word) & groups_of("baggins")}
    assert moved == shares
    assert {"bagginses", "frodo's"} <= moved  # "s$" is all that the latter shares
    assert not {"xyz", "<unk>", "<eos>"} & moved


def test_a_group_gets_the_sum_of_the_gradients_of_its_words() -> None:
    """Each by its value, which is the chain rule written out."""
    network = network_of(tied=False)
    ids = torch.tensor([6, 6, 9, 6, 9])[:, None]
    logits, _, _, _ = network(ids, network.start(1))
    logits.pow(2).sum().backward()
    assert network.letters is not None
    own = network.embedding.weight.grad
    assert own is not None
    expected = dense(spelling_of(VOCABULARY), len(WORDS)).T @ own.numpy()
    assert network.letters.grad is not None
    assert network.letters.grad.numpy() == pytest.approx(expected, abs=1e-5)
