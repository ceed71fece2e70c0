"""Dynamic evaluation against a float64 LSTM written out in plain equations."""

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError, RunError
from engine.models.base import forward_sequence
from engine.models.lstm import LR_GRID, SEGMENT_LENGTH, DynamicEvaluation
from tests.support.models import make_tokenizer, random_lstm

SIZE = 11
VOCABULARY = make_tokenizer(SIZE)
CONFIGS = {
    "tied": ModelConfig(embedding_size=5, hidden_size=5),
    "two layers, untied": ModelConfig(embedding_size=4, hidden_size=6, num_layers=2, tie_weights=False),
}
LR = 3e-3  # much higher than usual, so that the updates are larger than rounding errors


def make_ids(length, seed=0):
    """Sample a Markov chain, which a model can learn."""
    rng, tokens = np.random.default_rng(seed), [2]
    while len(tokens) < length:
        tokens.append(int((3 * tokens[-1] + rng.integers(0, 3)) % SIZE))
    return np.array(tokens, np.int32)


def make_lstm(name):
    return random_lstm(CONFIGS[name], VOCABULARY, scale=0.5)


TRAINING_IDS = make_ids(907)


class ReferenceLSTM:
    """The same LSTM in float64, computed token by token from its equations."""

    def __init__(self, lstm):
        self.sizes = [hidden_size for _, hidden_size in lstm.config.layer_sizes()]
        self.weights = {
            name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in lstm.weights.items()
        }

    def losses(self, inputs, targets, states):
        """Return the negative log-probabilities `[time, batch]` of `targets`; `states` is changed in place."""
        rows = []
        for tokens, next_tokens in zip(inputs, targets, strict=True):
            vectors = self.weights["embedding.weight"][tokens]
            for i, (hidden, cell) in enumerate(states):
                weight_ih, weight_hh = (self.weights[f"layers.{i}.{name}_l0"] for name in ("weight_ih", "weight_hh"))
                biases = self.weights[f"layers.{i}.bias_ih_l0"] + self.weights[f"layers.{i}.bias_hh_l0"]
                gates = vectors @ weight_ih.T + hidden @ weight_hh.T + biases
                input_, forget, candidate, output = gates.chunk(4, dim=1)
                cell = forget.sigmoid() * cell + input_.sigmoid() * candidate.tanh()
                vectors = output.sigmoid() * cell.tanh()
                states[i] = (vectors, cell)
            output_weight = self.weights.get("output.weight", self.weights["embedding.weight"])
            logits = vectors @ output_weight.T + self.weights["output.bias"]
            rows.append(logits.logsumexp(1) - logits[torch.arange(len(next_tokens)), next_tokens])
        return torch.stack(rows)

    def start(self, batch):
        return [(torch.zeros(batch, size).double(), torch.zeros(batch, size).double()) for size in self.sizes]

    def windows(self, inputs, targets, length):
        """Yield the losses of each window and the gradients of their mean; states carry over without gradients."""
        inputs, targets = torch.tensor(np.array(inputs)).long(), torch.tensor(np.array(targets)).long()
        states = self.start(inputs.shape[1])
        for begin in range(0, len(inputs), length):
            states = [(hidden.detach(), cell.detach()) for hidden, cell in states]
            losses = self.losses(inputs[begin : begin + length], targets[begin : begin + length], states)
            gradients = torch.autograd.grad(losses.mean(), list(self.weights.values()))
            yield losses.detach(), dict(zip(self.weights, gradients, strict=True))

    def gradient_rms(self, ids, num_columns=20, bptt=20):
        """Return the root mean square of the gradients over a text in columns, plus a tenth of their mean."""
        num_rows = len(ids) // num_columns
        rows = [[int(ids[column * num_rows + row]) for column in range(num_columns)] for row in range(num_rows)]
        all_gradients = [gradients for _, gradients in self.windows(rows[:-1], rows[1:], bptt)]
        all_rms = {
            name: torch.stack([gradients[name] ** 2 for gradients in all_gradients]).mean(0).sqrt()
            for name in self.weights
        }
        mean = torch.cat([rms.flatten() for rms in all_rms.values()]).mean()
        return {name: rms + mean / 10 for name, rms in all_rms.items()}

    def score(self, ids, lr, segment_length, training_ids=TRAINING_IDS):
        """Return the log-probabilities of a text, with a gradient step, divided by the RMS, after each segment."""
        all_rms, scores = self.gradient_rms(training_ids), []
        inputs = [[EOS_ID], *([int(token)] for token in ids[:-1])]
        for losses, gradients in self.windows(inputs, [[int(token)] for token in ids], segment_length):
            scores += (-losses[:, 0]).tolist()
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight -= lr * gradients[name] / all_rms[name]
        return scores


@pytest.fixture(scope="module", params=list(CONFIGS))
def lstm(request):
    return make_lstm(request.param)


@pytest.fixture(scope="module")
def model(lstm):
    return DynamicEvaluation(lstm, TRAINING_IDS, LR)


@pytest.mark.parametrize("segment_length", [1, 3, 5])
def test_scores_of_a_text_match_the_reference(lstm, segment_length, monkeypatch):
    monkeypatch.setattr("engine.models.lstm.SEGMENT_LENGTH", segment_length)
    ids = make_ids(38, seed=1)
    scores = forward_sequence(DynamicEvaluation(lstm, TRAINING_IDS, LR), ids).log_probs
    static_scores = forward_sequence(lstm, ids).log_probs
    assert scores == pytest.approx(ReferenceLSTM(lstm).score(ids, LR, segment_length), abs=1e-3)
    assert np.abs(scores - static_scores).max() > 0.05  # the updates matter
    assert scores[:segment_length] == pytest.approx(static_scores[:segment_length], abs=1e-4)  # after the segment


def tuned_lr(model, ids, lr_grid=LR_GRID):
    model.tune_lr(ids, lr_grid)
    return model.lr


def test_the_tuned_learning_rate_is_the_best_of_the_grid(lstm, model):
    ids = make_ids(50, seed=7)
    lr_grid = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    totals = {lr: sum(ReferenceLSTM(lstm).score(ids, lr, SEGMENT_LENGTH)) for lr in lr_grid[:4]}
    best = max(totals, key=totals.__getitem__)
    assert tuned_lr(model, ids, lr_grid) == best
    assert tuned_lr(model, ids, lr_grid[::-1]) == best
    assert tuned_lr(model, ids, (best / 1e6, best)) == best
    assert tuned_lr(model, ids) in LR_GRID


def test_tokens_without_gradients_in_training_take_no_huge_steps():
    lstm = make_lstm("two layers, untied")  # with tied weights, the output layer gives every token a gradient
    training_ids, ids = TRAINING_IDS[TRAINING_IDS != 0], np.array([3, 0, 4, 0, 5, 6, 0, 7], np.int32)
    scores = forward_sequence(DynamicEvaluation(lstm, training_ids, 1e-4), ids).log_probs
    assert scores == pytest.approx(ReferenceLSTM(lstm).score(ids, 1e-4, 3, training_ids), abs=1e-3)


def test_too_short_training_texts_are_rejected():
    with pytest.raises(InvalidInputError, match="the training text has 39 tokens"):
        DynamicEvaluation(make_lstm("tied"), make_ids(39))  # less than two rows of 20 columns


@pytest.mark.filterwarnings("error")
def test_a_model_that_diverges_at_every_learning_rate_is_refused():
    lstm = make_lstm("tied")
    model = DynamicEvaluation(lstm, TRAINING_IDS)
    with pytest.raises(RunError, match="diverges at all learning rates"):
        model.tune_lr(make_ids(40), lr_grid=(1e38, 2e38))
    assert tuned_lr(model, make_ids(40), (1e38, 1e-4)) == 1e-4
