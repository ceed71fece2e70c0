"""Dynamic evaluation against a float64 LSTM written out in plain equations."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError, RunError
from engine.models import dynamic_evaluation
from engine.models.base import LanguageModel
from engine.models.dynamic_evaluation import DynamicEvaluation, DynamicState, tune_dynamic_lr
from engine.models.numpy_lstm import NumpyLSTM
from tests.support.models import hidden_vector, make_tokenizer, random_lstm

SIZE = 11
VOCABULARY = make_tokenizer(SIZE)
CONFIGS = {
    "tied": ModelConfig(embedding_size=5, hidden_size=5),
    "two layers, untied": ModelConfig(embedding_size=4, hidden_size=6, num_layers=2, tie_weights=False),
}
LR = 3e-3
"""Much higher than usual, so that the updates are larger than rounding errors."""


def make_ids(length: int, seed: int = 0) -> TokenIds:
    """Sample a Markov chain, which a model can learn."""
    rng, tokens = np.random.default_rng(seed), [2]
    while len(tokens) < length:
        tokens.append(int((3 * tokens[-1] + rng.integers(0, 3)) % SIZE))
    return np.array(tokens, np.int32)


def make_lstm(name: str) -> NumpyLSTM:
    return random_lstm(CONFIGS[name], VOCABULARY, scale=0.5)


TRAINING_IDS = make_ids(907)


class ReferenceLSTM:
    """The same LSTM in float64, computed token by token from its equations."""

    def __init__(self, lstm: NumpyLSTM) -> None:
        self.sizes = [hidden_size for _, hidden_size in lstm.config.layer_sizes()]
        self.weights = {
            name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in lstm.weights.items()
        }

    def losses(self, inputs: torch.Tensor, targets: torch.Tensor, states: list) -> torch.Tensor:
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

    def start(self, batch: int) -> list:
        return [(torch.zeros(batch, size).double(), torch.zeros(batch, size).double()) for size in self.sizes]

    def windows(self, inputs: Sequence, targets: Sequence, length: int) -> Iterator[tuple[torch.Tensor, dict]]:
        """Yield the losses of each window and the gradients of their mean; states carry over without gradients."""
        inputs, targets = torch.tensor(np.array(inputs)).long(), torch.tensor(np.array(targets)).long()
        states = self.start(inputs.shape[1])
        for begin in range(0, len(inputs), length):
            states = [(hidden.detach(), cell.detach()) for hidden, cell in states]
            losses = self.losses(inputs[begin : begin + length], targets[begin : begin + length], states)
            gradients = torch.autograd.grad(losses.mean(), list(self.weights.values()))
            yield losses.detach(), dict(zip(self.weights, gradients, strict=True))

    def gradient_rms(self, ids: TokenIds, num_columns: int = 20, bptt: int = 20) -> dict[str, torch.Tensor]:
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

    def score(self, ids: TokenIds, lr: float, segment_length: int) -> list[float]:
        """Return the log-probabilities of a text, with a gradient step, divided by the RMS, after each segment."""
        all_rms, scores = self.gradient_rms(TRAINING_IDS), []
        inputs = [[EOS_ID], *([int(token)] for token in ids[:-1])]
        for losses, gradients in self.windows(inputs, [[int(token)] for token in ids], segment_length):
            scores += (-losses[:, 0]).tolist()
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight -= lr * gradients[name] / all_rms[name]
        return scores


@pytest.fixture(scope="module", params=list(CONFIGS))
def lstm(request: pytest.FixtureRequest) -> NumpyLSTM:
    return make_lstm(request.param)


@pytest.fixture(scope="module")
def model(lstm: NumpyLSTM) -> DynamicEvaluation:
    return DynamicEvaluation(lstm, TRAINING_IDS, LR, segment_length=5)


def read_tokens(model: LanguageModel, ids: Sequence[int], state: object = None) -> tuple[list[np.ndarray], object]:
    """Return the log-probabilities after each token, and the new state. Without a state, read `<eos>` first."""
    tokens = list(ids) if state is not None else [EOS_ID, *ids]
    state, rows = state if state is not None else model.start(), []
    for token in tokens:
        log_probs, state = model.advance(state, int(token))
        rows.append(log_probs)
    return rows, state


MODELS = [
    DynamicEvaluation(make_lstm(name), TRAINING_IDS, 1e-3, segment_length)
    for name in CONFIGS
    for segment_length in (1, 4, 5)
]


# --- against the reference ----------------------------------------------------------------------------------


def test_gradient_rms_matches_the_reference(lstm: NumpyLSTM) -> None:
    network = DynamicEvaluation(lstm, TRAINING_IDS).start().model
    expected = ReferenceLSTM(lstm).gradient_rms(TRAINING_IDS)
    names = [name for name, _ in network.named_parameters()]
    assert sorted(names) == sorted(expected)
    for name, rms in zip(names, dynamic_evaluation.compute_gradient_rms(network, TRAINING_IDS), strict=True):
        assert rms.numpy() == pytest.approx(expected[name].numpy(), rel=1e-3, abs=1e-7), name
        assert (rms > 0).all()


@pytest.mark.parametrize("segment_length", [1, 3, 5])
def test_scores_of_a_text_match_the_reference(lstm: NumpyLSTM, segment_length: int) -> None:
    ids = make_ids(38, seed=1)
    scores = DynamicEvaluation(lstm, TRAINING_IDS, LR, segment_length).forward_sequence(ids).log_probs
    static_scores = lstm.forward_sequence(ids).log_probs
    assert scores == pytest.approx(ReferenceLSTM(lstm).score(ids, LR, segment_length), abs=1e-3)
    assert np.abs(scores - static_scores).max() > 0.05  # the updates matter
    assert scores[:segment_length] == pytest.approx(static_scores[:segment_length], abs=1e-4)  # after the segment


def test_after_one_segment_the_weights_have_taken_one_step(lstm: NumpyLSTM, model: DynamicEvaluation) -> None:
    ids = make_ids(6, seed=2)
    _, state = read_tokens(model, ids[:4])
    assert isinstance(state, DynamicState)
    for name, weight in state.model.named_parameters():  # `<eos>` and 4 tokens read: the fifth target is unknown
        assert np.array_equal(weight.detach().numpy(), lstm.weights[name])
    _, state = model.advance(state, int(ids[4]))
    reference = ReferenceLSTM(lstm)
    reference.score(ids[:5], LR, segment_length=5)
    for name, weight in state.model.named_parameters():
        actual, expected = weight.detach().numpy(), reference.weights[name].detach().numpy()
        assert actual == pytest.approx(expected, abs=2e-5), name
        assert np.abs(actual - lstm.weights[name]).max() > 1e-3, name


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(MODELS), st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=17))
def test_scores_of_a_text_match_token_by_token(model: DynamicEvaluation, ids: list[int]) -> None:
    output = model.forward_sequence(np.array(ids, np.int32))
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, token in enumerate(ids):
        assert output.log_probs[position] == pytest.approx(log_probs[token], abs=1e-4)
        assert output.hidden_states[position] == pytest.approx(hidden_vector(model, state), abs=1e-4)
        assert np.exp(log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
        log_probs, state = model.advance(state, token)
    assert output.log_probs.shape == (len(ids),)


def test_a_tiny_learning_rate_gives_the_static_model(lstm: NumpyLSTM, model: DynamicEvaluation) -> None:
    ids = make_ids(33, seed=3)
    slow = model.with_lr(1e-30)
    output, expected_output = slow.forward_sequence(ids), lstm.forward_sequence(ids)
    assert output.log_probs == pytest.approx(expected_output.log_probs, abs=1e-5)
    assert output.hidden_states == pytest.approx(expected_output.hidden_states, abs=1e-5)
    for log_probs, expected in zip(read_tokens(slow, ids)[0], read_tokens(lstm, ids)[0], strict=True):
        assert log_probs == pytest.approx(expected, abs=1e-4)


# --- states are immutable ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 2, 3, 4, 5, 9])
def test_a_kept_state_is_not_changed_by_later_updates(model: DynamicEvaluation, length: int) -> None:
    _, kept = read_tokens(model, make_ids(length, seed=4)[:length])
    first, _ = read_tokens(model, [3, 4, 5, 6, 7, 8, 9], kept)
    read_tokens(model, [9, 8, 7, 6, 5, 4, 3, 2], kept)
    again, _ = read_tokens(model, [3, 4, 5, 6, 7, 8, 9], kept)
    assert all(np.array_equal(row, other) for row, other in zip(first, again, strict=True))


def test_reading_changes_neither_the_model_nor_its_base_model(lstm: NumpyLSTM) -> None:
    before = {name: value.copy() for name, value in lstm.weights.items()}
    model, ids = DynamicEvaluation(lstm, TRAINING_IDS, 0.1), make_ids(23, seed=5)
    first, rows = model.forward_sequence(ids).log_probs, read_tokens(model, ids)[0]
    assert np.array_equal(model.forward_sequence(ids).log_probs, first)
    assert all(np.array_equal(row, other) for row, other in zip(read_tokens(model, ids)[0], rows, strict=True))
    for name, value in lstm.weights.items():
        assert np.array_equal(value, before[name])


def test_with_lr_does_not_change_the_model(lstm: NumpyLSTM, model: DynamicEvaluation) -> None:
    ids = make_ids(23, seed=6)
    before = model.forward_sequence(ids).log_probs
    faster = model.with_lr(3 * LR)
    assert (model.lr, faster.lr) == (LR, 3 * LR)
    assert faster.forward_sequence(ids).log_probs == pytest.approx(
        DynamicEvaluation(lstm, TRAINING_IDS, 3 * LR, 5).forward_sequence(ids).log_probs, abs=1e-6
    )
    assert np.array_equal(model.forward_sequence(ids).log_probs, before)


# --- effect -------------------------------------------------------------------------------------------


def test_a_repetitive_text_becomes_more_likely(lstm: NumpyLSTM, model: DynamicEvaluation) -> None:
    ids = np.array([2, 7, 3, 9, 5, 10] * 20, np.int32)
    scores, static_scores = model.forward_sequence(ids).log_probs, lstm.forward_sequence(ids).log_probs
    assert scores[-30:].mean() > scores[:30].mean() + 0.2
    assert scores[-30:].mean() > static_scores[-30:].mean() + 0.2


def test_the_tuned_learning_rate_is_the_best_of_the_grid(lstm: NumpyLSTM, model: DynamicEvaluation) -> None:
    ids = make_ids(50, seed=7)
    lr_grid = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    totals = {lr: sum(ReferenceLSTM(lstm).score(ids, lr, segment_length=5)) for lr in lr_grid[:4]}
    best = max(totals, key=totals.__getitem__)
    assert tune_dynamic_lr(model, ids, lr_grid) == best
    assert tune_dynamic_lr(model, ids, lr_grid[::-1]) == best
    assert tune_dynamic_lr(model, ids, (best / 1e6, best)) == best
    assert tune_dynamic_lr(model, ids) in dynamic_evaluation.LR_GRID


# --- weights without a gradient -------------------------------------------------------------------------------


def test_the_embedding_of_a_token_without_training_gradient_does_not_jump() -> None:
    lstm = make_lstm("two layers, untied")  # with tied weights, the output layer gives every token a gradient
    model = DynamicEvaluation(lstm, TRAINING_IDS[TRAINING_IDS != 0])
    _, state = read_tokens(model, [3, 0, 4, 0, 5, 6, 7])
    assert isinstance(state, DynamicState)
    changes = {
        name: np.abs(weight.detach().numpy() - lstm.weights[name]) for name, weight in state.model.named_parameters()
    }
    assert changes["embedding.weight"][2:].max() < 0.01
    assert changes["embedding.weight"][0].max() < 1


def test_too_short_training_texts_are_rejected() -> None:
    with pytest.raises(InvalidInputError, match="the training text has 39 tokens"):
        DynamicEvaluation(make_lstm("tied"), make_ids(39))  # less than two rows of 20 columns


@pytest.mark.filterwarnings("error")
def test_a_model_that_diverges_at_every_learning_rate_is_refused() -> None:
    lstm = make_lstm("tied")
    model = DynamicEvaluation(lstm, TRAINING_IDS)
    with pytest.raises(RunError, match="diverges at every learning rate"):
        tune_dynamic_lr(model, make_ids(40), lr_grid=(1e38, 2e38))
    assert tune_dynamic_lr(model, make_ids(40), lr_grid=(1e38, 1e-4)) == 1e-4
