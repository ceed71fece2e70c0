"""The numbers that all others rest on, against other ways to compute them, as exactly as floats allow."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from engine.analysis.perplexity import evaluate
from engine.config import DataConfig, ModelConfig
from engine.data.dataset import prepare
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.models.lstm import Network
from engine.runs.store import load
from engine.storage.files import assets_folder

SIZE = 40
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))


pytestmark = pytest.mark.usefixtures("one_thread")


def text(length: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(0, SIZE, length).astype(np.int32)


def exact(config: ModelConfig, seed: int = 0) -> Network:
    return Network(config, SIZE, torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_logits_are_those_of_torchs_own_lstm(layers: int, tied: bool) -> None:
    network = exact(ModelConfig(embedding_size=24, hidden_size=24, layers=layers, tied=tied))
    reference = nn.LSTM(24, 24, num_layers=layers).double()
    for i, layer in enumerate(network.layers):
        for name, value in layer.named_parameters():
            getattr(reference, name.replace("_l0", f"_l{i}")).copy_(value)
    ids = torch.from_numpy(text(90).reshape(30, 3)).long()
    outputs, (hidden, cell) = reference(network.embedding.weight[ids])
    expected = outputs @ network.output.weight.T + network.output.bias
    logits, states, raw, _ = network(ids, network.start(3))
    assert logits.numpy() == pytest.approx(expected.numpy(), abs=1e-10)
    assert raw.numpy() == pytest.approx(outputs.numpy(), abs=1e-10)
    for i, (its_hidden, its_cell) in enumerate(states):
        assert its_hidden[0].numpy() == pytest.approx(hidden[i].numpy(), abs=1e-10)
        assert its_cell[0].numpy() == pytest.approx(cell[i].numpy(), abs=1e-10)


@torch.no_grad()
def test_the_numpy_decoder_is_torch_over_five_hundred_words_of_the_bundled_model() -> None:
    run = load(assets_folder() / "model")
    ids = prepare(DataConfig()).valid[:500]
    network = Network(run.config.model, len(run.decoder.vocabulary), torch.Generator())
    network.load(run.decoder.weights)
    network.double()
    inputs = torch.tensor([EOS_ID, *ids.tolist()])[:, None]
    expected = torch.log_softmax(network(inputs, network.start(1))[0], -1)[:, 0].numpy()
    state = run.decoder.start()
    for position, token in enumerate(inputs[:, 0].tolist()):
        log_probs, state = run.decoder.advance(state, token)
        assert np.abs(log_probs - expected[position]).max() < 1e-5 * max(1, np.abs(expected[position]).max())
        assert np.abs(np.exp(log_probs) - np.exp(expected[position])).max() < 1e-5


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 2100])
@torch.no_grad()
def test_perplexity_is_that_of_a_loop_over_every_token(length: int) -> None:
    network = exact(ModelConfig(embedding_size=16, hidden_size=16, layers=2))
    ids, total, previous, states = text(length, seed=1), 0.0, EOS_ID, network.start(1)
    for token in ids.tolist():
        logits, states, _, _ = network(torch.tensor([[previous]]), states)
        total += math.log(math.fsum(math.exp(logit) for logit in logits[0, 0].tolist())) - float(logits[0, 0, token])
        previous = token
    assert evaluate(network, ids).perplexity == pytest.approx(math.exp(total / length), rel=1e-9)
