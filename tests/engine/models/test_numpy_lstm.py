"""The numpy LSTM against the PyTorch LSTM with the same weights."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import RunError
from engine.models.lstm import LSTMModel
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes
from engine.models.weight_checks import MAX_WEIGHT
from tests.support.models import make_tokenizer, random_ids

VOCABULARY_SIZE = 37
VOCABULARY = make_tokenizer(VOCABULARY_SIZE)
CONFIGS = {
    "one layer, tied": ModelConfig(embedding_size=12, hidden_size=12),
    "one layer, untied": ModelConfig(embedding_size=12, hidden_size=20, tie_weights=False),
    "two layers, tied, wide": ModelConfig(embedding_size=10, hidden_size=24, num_layers=2),
    "two layers, untied": ModelConfig(embedding_size=16, hidden_size=9, num_layers=2, tie_weights=False),
    "three layers, tied": ModelConfig(embedding_size=8, hidden_size=14, num_layers=3),
    "three layers, notebook": ModelConfig(
        embedding_size=7, hidden_size=11, num_layers=3, tie_weights=False, initialization="notebook"
    ),
    "two layers, mogrifier": ModelConfig(
        embedding_size=10, hidden_size=24, num_layers=2, mogrifier_rounds=5, mogrifier_rank=4
    ),
}


@pytest.fixture(params=list(CONFIGS))
def torch_lstm(request: pytest.FixtureRequest) -> LSTMModel:
    """A model with weights so large that the gates leave their linear range."""
    model = make_torch_lstm(request.param, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8)), alpha=0.4)
    return model


def make_torch_lstm(name: str, seed: int = 0) -> LSTMModel:
    return LSTMModel(CONFIGS[name], VOCABULARY_SIZE, torch.Generator().manual_seed(seed))


def make_ids(length: int) -> TokenIds:
    return random_ids(length, VOCABULARY_SIZE)


def make_numpy_lstm() -> NumpyLSTM:
    return make_torch_lstm("two layers, tied, wide").to_decoder(VOCABULARY)


@torch.no_grad()
def test_log_probs_match_pytorch_token_by_token(torch_lstm: LSTMModel) -> None:
    lstm = torch_lstm.to_decoder(VOCABULARY)
    ids = make_ids(60)
    inputs = torch.tensor([EOS_ID, *ids.tolist()])[:, None]
    expected = torch.log_softmax(torch_lstm(inputs, torch_lstm.initial_state(1))[0], -1)[:, 0].numpy()
    state = lstm.start()
    for token, row in zip([EOS_ID, *ids.tolist()], expected, strict=True):
        log_probs, state = lstm.advance(state, token)
        assert log_probs.dtype == np.float32
        assert log_probs == pytest.approx(row, abs=1e-4)
        assert np.exp(log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_scores_of_a_text_match_pytorch(torch_lstm: LSTMModel) -> None:
    lstm = torch_lstm.to_decoder(VOCABULARY)
    ids = make_ids(200)
    assert lstm.forward_sequence(ids).log_probs == pytest.approx(torch_lstm.forward_sequence(ids).log_probs, abs=1e-4)


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1100])
def test_scores_of_a_text_match_token_by_token(length: int) -> None:
    lstm = make_numpy_lstm()
    ids = make_ids(length)
    log_probs, state = lstm.advance(lstm.start(), EOS_ID)
    expected = []
    for token in ids.tolist():
        expected.append(log_probs[token])
        log_probs, state = lstm.advance(state, token)
    assert lstm.forward_sequence(ids).log_probs == pytest.approx(expected, abs=1e-4)


def test_kept_states_are_not_changed_by_later_tokens(torch_lstm: LSTMModel) -> None:
    lstm = torch_lstm.to_decoder(VOCABULARY)
    _, kept = lstm.advance(lstm.start(), EOS_ID)
    before = [(hidden.copy(), cell.copy()) for hidden, cell in kept.layers]
    first, after = lstm.advance(kept, 5)
    other, _ = lstm.advance(kept, 6)
    lstm.advance(after, 7)
    again, after_again = lstm.advance(kept, 5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for (hidden, cell), (hidden_before, cell_before) in zip(kept.layers, before, strict=True):
        assert np.array_equal(hidden, hidden_before)
        assert np.array_equal(cell, cell_before)
    for (hidden, cell), (hidden_again, cell_again) in zip(after.layers, after_again.layers, strict=True):
        assert np.array_equal(hidden, hidden_again)
        assert np.array_equal(cell, cell_again)


def test_returned_log_probs_belong_to_the_caller() -> None:
    lstm = make_numpy_lstm()
    first, state = lstm.advance(lstm.start(), EOS_ID)
    kept = first.copy()
    for token in range(10):
        _, state = lstm.advance(state, token)
    assert np.array_equal(first, kept)
    first += 1000  # must not change the model
    assert np.array_equal(lstm.advance(lstm.start(), EOS_ID)[0], kept)


def test_extreme_logits_give_finite_log_probs() -> None:
    weights = {name: value.copy() for name, value in make_numpy_lstm().weights.items()}
    weights["output.bias"][:] = 0
    weights["output.bias"][3] = 5000
    lstm = NumpyLSTM(make_numpy_lstm().config, VOCABULARY, weights)
    log_probs, _ = lstm.advance(lstm.start(), EOS_ID)
    assert np.exp(log_probs).sum() == pytest.approx(1)
    assert np.isfinite(log_probs).all()
    assert np.isfinite(lstm.forward_sequence(make_ids(5)).log_probs).all()


@pytest.mark.parametrize("config", [*CONFIGS.values(), ModelConfig(punctuation=True)])
def test_the_largest_weights_that_are_accepted_give_finite_log_probs(config: ModelConfig) -> None:
    rng = np.random.default_rng(0)
    weights = {
        name: np.copysign(np.float32(MAX_WEIGHT), rng.standard_normal(shape, np.float32))
        for name, shape in weight_shapes(config, VOCABULARY_SIZE).items()
    }
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        lstm = NumpyLSTM(config, VOCABULARY, weights)
        assert np.isfinite(lstm.forward_sequence(make_ids(20)).log_probs).all()


def test_later_training_does_not_change_the_numpy_lstm() -> None:
    torch_lstm = make_torch_lstm("one layer, tied")
    lstm = torch_lstm.to_decoder(VOCABULARY)
    before = lstm.advance(lstm.start(), EOS_ID)[0]
    with torch.no_grad():
        for parameter in torch_lstm.parameters():
            parameter.mul_(3)
    assert np.array_equal(lstm.advance(lstm.start(), EOS_ID)[0], before)


def test_weight_shapes_match_pytorch(torch_lstm: LSTMModel) -> None:
    expected = {name: value.shape for name, value in torch_lstm.export_weights().items()}
    assert weight_shapes(torch_lstm.config, VOCABULARY_SIZE) == expected


@pytest.mark.parametrize("name", list(weight_shapes(CONFIGS["two layers, untied"], VOCABULARY_SIZE)))
@pytest.mark.parametrize(
    "damage", ["missing", "misshapen", "transposed", "nan", "inf", "-3e38", "float16", "float64", "integers"]
)
def test_damaged_tensors_are_rejected_by_name(name: str, damage: str) -> None:
    weights: dict[str, Any] = make_torch_lstm("two layers, untied").export_weights()
    tensor = weights[name]
    if damage == "missing":
        del weights[name]
    elif damage == "misshapen":
        weights[name] = tensor[:-1]
    elif damage == "transposed":
        weights[name] = tensor[None] if tensor.ndim == 1 else tensor.T
    elif damage in ("nan", "inf", "-3e38"):
        tensor.flat[tensor.size // 2] = float(damage)
    else:
        weights[name] = tensor.astype({"float16": "f2", "float64": "f8", "integers": "i4"}[damage])
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        NumpyLSTM(CONFIGS["two layers, untied"], VOCABULARY, weights)


def test_unknown_tensors_are_rejected_by_name() -> None:
    weights = dict(make_numpy_lstm().weights) | {"output.weight": np.zeros((VOCABULARY_SIZE, 10), np.float32)}
    with pytest.raises(RunError, match=r"output\.weight"):  # this configuration has tied weights
        NumpyLSTM(make_numpy_lstm().config, VOCABULARY, weights)


def test_a_vocabulary_of_another_size_is_rejected() -> None:
    shorter = WordTokenizer(VOCABULARY.tokens[:-1])
    with pytest.raises(RunError, match=r"embedding\.weight"):
        NumpyLSTM(make_numpy_lstm().config, shorter, make_numpy_lstm().weights)
