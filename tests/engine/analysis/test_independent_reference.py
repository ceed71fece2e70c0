"""Logits and perplexities against independent computations in double precision."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from engine.analysis.perplexity import evaluate
from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.models.lstm import LSTMModel
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from tests.support.models import random_ids

SIZE = 40

pytestmark = pytest.mark.usefixtures("one_thread")


def make_double_model(config: ModelConfig) -> LSTMModel:
    return LSTMModel(config, SIZE, torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("tie_weights", [True, False])
@torch.no_grad()
def test_logits_match_torch_lstm(num_layers: int, tie_weights: bool) -> None:
    model = make_double_model(
        ModelConfig(embedding_size=24, hidden_size=24, num_layers=num_layers, tie_weights=tie_weights)
    )
    reference = nn.LSTM(24, 24, num_layers=num_layers).double()
    for i, layer in enumerate(model.layers):
        for name, value in layer.named_parameters():
            getattr(reference, name.replace("_l0", f"_l{i}")).copy_(value)
    ids = torch.from_numpy(random_ids(90, SIZE).reshape(30, 3)).long()
    outputs, (hidden, cell) = reference(model.embedding.weight[ids])
    expected = outputs @ model.output.weight.T + model.output.bias
    logits, states, raw, _ = model(ids, model.initial_state(3))
    assert logits.numpy() == pytest.approx(expected.numpy(), abs=1e-10)
    assert raw.numpy() == pytest.approx(outputs.numpy(), abs=1e-10)
    for i, (layer_hidden, layer_cell) in enumerate(states):
        assert layer_hidden[0].numpy() == pytest.approx(hidden[i].numpy(), abs=1e-10)
        assert layer_cell[0].numpy() == pytest.approx(cell[i].numpy(), abs=1e-10)


@torch.no_grad()
def test_the_numpy_lstm_matches_pytorch_on_500_tokens_with_the_bundled_model() -> None:
    run = load_model(assets_dir() / "model")
    tokenizer, weights = run.decoder.tokenizer, run.decoder.weights
    ids = load_dataset(run.config.data, tokenizer).valid[:500]
    model = LSTMModel(run.config.model, len(tokenizer), torch.Generator(), num_speakers=len(tokenizer.cast))
    model.load_weights(weights)
    model.double()
    inputs = torch.tensor([EOS_ID, *ids.tolist()])[:, None]
    speakers = model.input_speakers(inputs[:, 0].numpy().astype(np.int32))
    assert speakers is not None
    logits = model(inputs, model.initial_state(1), speakers=torch.from_numpy(speakers)[:, None])[0]
    expected = torch.log_softmax(logits, -1)[:, 0].numpy()
    exact = NumpyLSTM(run.config.model, tokenizer, weights)
    state, rounded_state, rounding_errors = exact.start(), run.decoder.start(), []
    for position, token in enumerate(inputs[:, 0].tolist()):
        log_probs, state = exact.advance(state, token)
        assert np.abs(log_probs - expected[position]).max() < 1e-5 * max(1, np.abs(expected[position]).max())
        assert np.abs(np.exp(log_probs) - np.exp(expected[position])).max() < 1e-5
        rounded, rounded_state = run.decoder.advance(rounded_state, token)  # products of 8-bit integers
        if position < len(ids):
            rounding_errors.append(rounded[ids[position]] - expected[position, ids[position]])
    assert run.decoder.has_int8_weights
    assert np.abs(rounding_errors).max() < 0.5
    assert abs(np.mean(rounding_errors)) < 0.01


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 2100])
@torch.no_grad()
def test_perplexity_matches_a_loop_over_every_token(length: int) -> None:
    model = make_double_model(ModelConfig(embedding_size=16, hidden_size=16, num_layers=2))
    ids, total, previous, states = random_ids(length, SIZE, seed=1), 0.0, EOS_ID, model.initial_state(1)
    for token in ids.tolist():
        logits, states, _, _ = model(torch.tensor([[previous]]), states)
        total += math.log(math.fsum(math.exp(logit) for logit in logits[0, 0].tolist())) - float(logits[0, 0, token])
        previous = token
    assert evaluate(model, ids).perplexity == pytest.approx(math.exp(total / length), rel=1e-9)
