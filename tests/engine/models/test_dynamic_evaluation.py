"""Dynamic evaluation against an LSTM written out in float64, whose gradients take plain steps."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import UnusableInput
from engine.models import dynamic_evaluation
from engine.models.base import LanguageModel, hidden_of
from engine.models.dynamic_evaluation import RATES, Dynamic, DynamicState, choose_lr
from engine.models.numpy_lstm import Decoder, weight_shapes

SIZE = 11
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))
CONFIGS = {
    "tied": ModelConfig(embedding_size=5, hidden_size=5),
    "two layers, untied": ModelConfig(embedding_size=4, hidden_size=6, layers=2, tied=False),
}
LR = 3e-3
"""Far more than the usual rates, so that what was learned stands out from rounding."""


def text(length: int, seed: int = 0) -> Ids:
    """Words of a Markov chain: there is something to learn."""
    chance, words = np.random.default_rng(seed), [2]
    while len(words) < length:
        words.append(int((3 * words[-1] + chance.integers(0, 3)) % SIZE))
    return np.array(words, np.int32)


def decoder(config: ModelConfig, seed: int = 0) -> Decoder:
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(config, SIZE)
    weights = {name: chance.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return Decoder(config, VOCABULARY, weights)


TRAINING = text(907)


class Plain:
    """The same LSTM in float64, word by word from its equations."""

    def __init__(self, made: Decoder) -> None:
        self.layers = made.config.layers
        self.sizes = [hidden for _, hidden in made.config.layer_sizes()]
        self.weights = {
            name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in made.weights.items()
        }

    def losses(self, inputs: torch.Tensor, targets: torch.Tensor, states: list) -> torch.Tensor:
        """Negative log-probabilities of `targets`, both `[time, batch]`; `states` is changed in place."""
        found = []
        for words, nexts in zip(inputs, targets, strict=True):
            vectors = self.weights["embedding.weight"][words]
            for i, (hidden, cell) in enumerate(states):
                w = {part: self.weights[f"layers.{i}.{part}_l0"] for part in ("weight_ih", "weight_hh")}
                biases = self.weights[f"layers.{i}.bias_ih_l0"] + self.weights[f"layers.{i}.bias_hh_l0"]
                gates = vectors @ w["weight_ih"].T + hidden @ w["weight_hh"].T + biases
                let_in, keep, candidate, let_out = gates.chunk(4, dim=1)
                cell = keep.sigmoid() * cell + let_in.sigmoid() * candidate.tanh()
                vectors = let_out.sigmoid() * cell.tanh()
                states[i] = (vectors, cell)
            output = self.weights.get("output.weight", self.weights["embedding.weight"])
            logits = vectors @ output.T + self.weights["output.bias"]
            found.append(logits.logsumexp(1) - logits[torch.arange(len(nexts)), nexts])
        return torch.stack(found)

    def start(self, batch: int) -> list:
        return [(torch.zeros(batch, size).double(), torch.zeros(batch, size).double()) for size in self.sizes]

    def windows(self, inputs: Sequence, targets: Sequence, length: int) -> Iterator[tuple[torch.Tensor, dict]]:
        """For each window in turn the losses, and the gradients of their mean; states are carried, cut there."""
        inputs, targets = torch.tensor(np.array(inputs)).long(), torch.tensor(np.array(targets)).long()
        states = self.start(inputs.shape[1])
        for begin in range(0, len(inputs), length):
            states = [(hidden.detach(), cell.detach()) for hidden, cell in states]
            losses = self.losses(inputs[begin : begin + length], targets[begin : begin + length], states)
            gradients = torch.autograd.grad(losses.mean(), list(self.weights.values()))
            yield losses.detach(), dict(zip(self.weights, gradients, strict=True))

    def scales(self, ids: Ids, columns: int = 20, window: int = 20) -> dict[str, torch.Tensor]:
        """Root mean squares of the gradients over a text cut into columns, and a tenth of their mean more."""
        rows = len(ids) // columns
        side_by_side = [[int(ids[column * rows + row]) for column in range(columns)] for row in range(rows)]
        found = [gradients for _, gradients in self.windows(side_by_side[:-1], side_by_side[1:], window)]
        scales = {name: torch.stack([one[name] ** 2 for one in found]).mean(0).sqrt() for name in self.weights}
        mean = torch.cat([scale.flatten() for scale in scales.values()]).mean()
        return {name: scale + mean / 10 for name, scale in scales.items()}

    def read(self, ids: Ids, lr: float, segment: int, training: Ids = TRAINING) -> list[float]:
        """Log-probabilities of a text; after every segment a step, each weight's divided by its scale."""
        scales, scores = self.scales(training), []
        inputs = [[EOS_ID], *([int(token)] for token in ids[:-1])]
        for losses, gradients in self.windows(inputs, [[int(token)] for token in ids], segment):
            scores += (-losses[:, 0]).tolist()
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight -= lr * gradients[name] / scales[name]
        return scores


@pytest.fixture(scope="module", params=list(CONFIGS))
def made(request: pytest.FixtureRequest) -> Decoder:
    return decoder(CONFIGS[request.param])


@pytest.fixture(scope="module")
def model(made: Decoder) -> Dynamic:
    return Dynamic(made, TRAINING, LR, 5)


def read_words(model: LanguageModel, ids: Sequence[int], state: object = None) -> tuple[list[np.ndarray], object]:
    """The distributions after `<eos>` and after each word (`<eos>` is left out where a state is given)."""
    words = list(ids) if state is not None else [EOS_ID, *ids]
    state, found = state if state is not None else model.start(), []
    for token in words:
        log_probs, state = model.advance(state, int(token))
        found.append(log_probs)
    return found, state


MODELS = [Dynamic(decoder(config), TRAINING, 1e-3, segment) for config in CONFIGS.values() for segment in (1, 4, 5)]


# --- against the plain steps ----------------------------------------------------------------------------------


def test_scales_are_root_mean_squares_of_the_gradients_on_the_training_text(made: Decoder) -> None:
    model = Dynamic(made, TRAINING)
    expected = Plain(made).scales(TRAINING)
    names = [name for name, _ in model.start().network.named_parameters()]
    assert sorted(names) == sorted(expected)
    for name, scale in zip(names, dynamic_evaluation._gradient_scales(model.start().network, TRAINING), strict=True):
        assert scale.numpy() == pytest.approx(expected[name].numpy(), rel=1e-3, abs=1e-7), name
        assert (scale > 0).all()


@pytest.mark.parametrize("segment", [1, 3, 5])
def test_a_text_is_scored_as_by_plain_steps(made: Decoder, segment: int) -> None:
    ids = text(38, seed=1)
    scores = Dynamic(made, TRAINING, LR, segment).trace(ids).scores
    assert scores == pytest.approx(Plain(made).read(ids, LR, segment), abs=1e-3)
    assert np.abs(scores - made.trace(ids).scores).max() > 0.05  # what it learned is not small
    assert scores[:segment] == pytest.approx(made.trace(ids).scores[:segment], abs=1e-4)  # but comes afterwards


def test_after_one_segment_the_weights_took_one_step_down_the_scaled_gradient(made: Decoder, model: Dynamic) -> None:
    ids = text(6, seed=2)
    _, state = read_words(model, ids[:4])
    assert isinstance(state, DynamicState)
    for name, weight in state.network.named_parameters():  # <eos> and four words: the fifth target is not known yet
        assert np.array_equal(weight.detach().numpy(), made.weights[name])
    _, state = model.advance(state, int(ids[4]))
    plain = Plain(made)
    plain.read(ids[:5], LR, 5)
    for name, weight in state.network.named_parameters():
        found, expected = weight.detach().numpy(), plain.weights[name].detach().numpy()
        assert found == pytest.approx(expected, abs=2e-5), name
        assert np.abs(found - made.weights[name]).max() > 1e-3, name


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(MODELS), st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=17))
def test_reading_a_whole_text_is_reading_it_word_by_word(model: Dynamic, ids: list[int]) -> None:
    read = model.trace(np.array(ids, np.int32))
    log_probs, state = model.advance(model.start(), EOS_ID)
    for position, token in enumerate(ids):
        assert read.scores[position] == pytest.approx(log_probs[token], abs=1e-4)
        assert read.hidden[position] == pytest.approx(hidden_of(model, state), abs=1e-4)
        assert np.exp(log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
        log_probs, state = model.advance(state, token)
    assert read.scores.shape == (len(ids),)


def test_at_a_rate_of_almost_nothing_it_is_the_decoder(made: Decoder, model: Dynamic) -> None:
    ids = text(33, seed=3)
    still = model.with_lr(1e-30)
    assert still.trace(ids).scores == pytest.approx(made.trace(ids).scores, abs=1e-5)
    assert still.trace(ids).hidden == pytest.approx(made.trace(ids).hidden, abs=1e-5)
    for found, expected in zip(read_words(still, ids)[0], read_words(made, ids)[0], strict=True):
        assert found == pytest.approx(expected, abs=1e-4)


# --- states are values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 2, 3, 4, 5, 9])
def test_a_state_that_was_kept_is_not_changed_by_those_that_learned(model: Dynamic, length: int) -> None:
    _, kept = read_words(model, text(length, seed=4)[:length])
    first, _ = read_words(model, [3, 4, 5, 6, 7, 8, 9], kept)
    read_words(model, [9, 8, 7, 6, 5, 4, 3, 2], kept)
    again, _ = read_words(model, [3, 4, 5, 6, 7, 8, 9], kept)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


def test_what_was_read_changes_neither_the_model_nor_its_decoder(made: Decoder) -> None:
    before = {name: value.copy() for name, value in made.weights.items()}
    model, ids = Dynamic(made, TRAINING, 0.1), text(23, seed=5)
    first, words = model.trace(ids).scores, read_words(model, ids)[0]
    assert np.array_equal(model.trace(ids).scores, first)
    assert all(np.array_equal(one, other) for one, other in zip(read_words(model, ids)[0], words, strict=True))
    for name, value in made.weights.items():
        assert np.array_equal(value, before[name])


def test_the_same_model_at_another_rate_leaves_the_first_as_it_was(made: Decoder, model: Dynamic) -> None:
    ids = text(23, seed=6)
    before = model.trace(ids).scores
    faster = model.with_lr(3 * LR)
    assert (model.lr, faster.lr) == (LR, 3 * LR)
    assert faster.trace(ids).scores == pytest.approx(Dynamic(made, TRAINING, 3 * LR, 5).trace(ids).scores, abs=1e-6)
    assert np.array_equal(model.trace(ids).scores, before)


# --- what it is for -------------------------------------------------------------------------------------------


def test_a_text_that_repeats_itself_becomes_likelier(made: Decoder, model: Dynamic) -> None:
    ids = np.array([2, 7, 3, 9, 5, 10] * 20, np.int32)
    scores, plain = model.trace(ids).scores, made.trace(ids).scores
    assert scores[-30:].mean() > scores[:30].mean() + 0.2
    assert scores[-30:].mean() > plain[-30:].mean() + 0.2


def test_the_chosen_rate_is_the_best_of_those_tried(made: Decoder, model: Dynamic) -> None:
    ids = text(50, seed=7)
    rates = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    sums = {rate: sum(Plain(made).read(ids, rate, 5)) for rate in rates[:4]}
    best = max(sums, key=sums.__getitem__)
    assert choose_lr(model, ids, rates) == best
    assert choose_lr(model, ids, rates[::-1]) == best
    assert choose_lr(model, ids, (best / 1e6, best)) == best
    assert choose_lr(model, ids) in RATES


# --- weights without a gradient -------------------------------------------------------------------------------


def test_a_word_the_training_text_lacks_does_not_jump_when_it_is_read() -> None:
    made = decoder(CONFIGS["two layers, untied"])  # a tied one has a gradient for every word, read or not
    training = TRAINING[TRAINING != 0]  # as with min_count 1: nothing is <unk>
    model = Dynamic(made, training)
    _, state = read_words(model, [3, 0, 4, 0, 5, 6, 7])
    assert isinstance(state, DynamicState)
    moved = {
        name: np.abs(weight.detach().numpy() - made.weights[name]) for name, weight in state.network.named_parameters()
    }
    assert moved["embedding.weight"][2:].max() < 0.01
    assert moved["embedding.weight"][0].max() < 1


def test_a_training_text_too_short_to_measure_is_refused() -> None:
    with pytest.raises(UnusableInput, match="a training text of 39 words is too short"):
        Dynamic(decoder(CONFIGS["tied"]), text(39))  # less than two rows of 20 columns
