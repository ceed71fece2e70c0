"""The settings of the paper, and the effect of each technique on the network and on the optimizer steps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.data.dataset import Dataset
from engine.events import Evaluated, Finished, Step, TrainingEvent
from engine.models.lstm import LSTMModel
from engine.models.numpy_lstm import weight_shapes
from engine.presets import get_preset
from engine.training import batches
from tests.support.training import NO_DROPOUT, events_of, make_sentence_dataset, run_training, weights_equal, weights_of
from tests.support.training_spies import RecordedStep, record_steps, script_validation

SIZE = 40
LAYERED: dict[str, Any] = {
    "embedding_size": 24,
    "hidden_size": 24,
    "num_layers": 3,
    "subword_embeddings": False,
    **NO_DROPOUT,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_network(size: int = SIZE, **values: Any) -> LSTMModel:
    return LSTMModel(ModelConfig(**(LAYERED | values)), size, seeded(0))


def make_window(time: int = 6, batch: int = 4, size: int = SIZE) -> Tensor:
    return torch.randint(size, (time, batch), generator=seeded(9))


def approx_count(probability: float, number: int) -> Any:
    """Return an expected count of `number` independent events, within four standard deviations."""
    return pytest.approx(probability * number, abs=4 * math.sqrt(number * probability * (1 - probability)))


# --- the paper ------------------------------------------------------------------------------------------------


def test_the_paper_preset_has_24_million_parameters() -> None:
    """Merity et al. 2017, table 1; the tied output layer is counted once."""
    shapes = weight_shapes(get_preset("paper").model, 10_000)
    assert sum(math.prod(shape) for shape in shapes.values()) == 24_221_600
    lstm = sum(4 * hidden * (inputs + hidden + 2) for inputs, hidden in [(400, 1150), (1150, 1150), (1150, 400)])
    assert 10_000 * 400 + lstm + 10_000 == 24_221_600


def test_the_paper_preset_has_the_settings_of_the_paper() -> None:
    """Merity et al. 2017, section 5, and the authors' code for settings that the text leaves out."""
    model, training = get_preset("paper").model, get_preset("paper").training
    assert (model.embedding_size, model.hidden_size, model.num_layers, model.tie_weights) == (400, 1150, 3, True)
    assert (model.embedding_dropout, model.input_dropout, model.hidden_dropout, model.output_dropout) == (
        0.1,
        0.4,
        0.3,
        0.4,
    )
    assert (model.weight_drop, model.variational_dropout, model.initialization) == (0.5, True, "uniform")
    assert (model.subword_embeddings, model.unigram_bias) == (False, False)  # not in the paper
    assert (training.ar, training.tar) == (2, 1)
    assert (training.bptt, training.variable_bptt, training.batch_size) == (70, True, 40)
    assert (training.optimizer, training.lr, training.schedule) == ("sgd", 30, "constant")
    assert (training.clip, training.weight_decay) == (0.25, 1.2e-6)
    assert (training.averaging, training.nonmonotone_interval, training.epochs) == ("nt_asgd", 5, 750)
    assert training.fine_tune_epochs > 0
    assert training.fine_tune_lr == 30
    assert (training.softmax_samples, training.label_smoothing, training.shuffle_lines) == (0, 0, False)
    assert (training.validation_metric, training.patience, training.eval_every_epochs) == ("perplexity", 0, 1)


# --- dropout in the network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variational_dropout", [True, False])
def test_zero_dropout_changes_nothing_and_draws_no_mask(variational_dropout: bool) -> None:
    network, masks = make_network(variational_dropout=variational_dropout), seeded(1)
    before = masks.get_state()
    plain, states, raw, dropped = network(make_window(), network.initial_state(4))
    again, other_states, _, other = network(make_window(), network.initial_state(4), masks)
    assert torch.equal(plain, again)
    assert torch.equal(dropped, other)
    assert torch.equal(dropped, raw)
    assert all(torch.equal(a, b) for x, y in zip(states, other_states, strict=True) for a, b in zip(x, y, strict=True))
    assert torch.equal(masks.get_state(), before)


def changed_by(name: str, time: int) -> list[bool]:
    """Return which values a kind of dropout changes: the state of each layer, the raw and the dropped output."""
    plain, other = make_network(), make_network(**{name: 0.5})
    _, states, raw, dropped = plain(make_window(time), plain.initial_state(4), seeded(1))
    _, other_states, other_raw, other_dropped = other(make_window(time), other.initial_state(4), seeded(1))
    pairs = [(a[0], b[0]) for a, b in zip(states, other_states, strict=True)]
    return [not torch.equal(a, b) for a, b in [*pairs, (raw, other_raw), (dropped, other_dropped)]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embedding_dropout", [True] * 5),
        ("input_dropout", [True] * 5),
        ("hidden_dropout", [False, True, True, True, True]),
        ("output_dropout", [False, False, False, False, True]),
        ("weight_drop", [True] * 5),
    ],
)
def test_dropout_changes_only_later_values(name: str, expected: list[bool]) -> None:
    assert changed_by(name, time=6) == expected
    if name == "weight_drop":  # the state before the first time step is zero
        assert changed_by(name, time=1) == [False] * 5


def test_embedding_dropout_drops_inputs_but_not_the_tied_output() -> None:
    """Merity et al. 2017, section 4.3, drops rows of the embedding; the tied output layer keeps every row."""
    network = make_network(embedding_dropout=0.9)
    logits, _, _, dropped = network(make_window(), network.initial_state(4), seeded(1))
    torch.testing.assert_close(logits, dropped @ network.embedding.weight.T + network.output.bias)


@pytest.fixture
def lstm_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, list[Tensor], Tensor]]:
    """Return a list to which every call of an LSTM layer is appended: input, weights and output."""
    calls: list[tuple[Tensor, list[Tensor], Tensor]] = []
    original: Any = torch.lstm

    def spy(inputs: Tensor, state: Any, weights: list[Tensor], *rest: Any) -> Any:
        result = original(inputs, state, weights, *rest)
        calls.append((inputs.detach(), [weight.detach() for weight in weights], result[0].detach()))
        return result

    monkeypatch.setattr(torch, "lstm", spy)
    return calls


@pytest.mark.parametrize("variational_dropout", [True, False])
def test_input_hidden_and_output_dropout_have_separate_masks_and_rates(
    variational_dropout: bool, lstm_calls: list[Any]
) -> None:
    network = make_network(
        variational_dropout=variational_dropout, input_dropout=0.2, hidden_dropout=0.3, output_dropout=0.6, num_layers=2
    )
    ids = make_window(time=20, batch=30)
    _, _, raw, dropped = network(ids, network.initial_state(30), seeded(2))
    (first, _, out), (second, _, _) = lstm_calls
    pairs = [(first, network.embedding.weight[ids], 0.2), (second, out, 0.3), (dropped, raw, 0.6)]
    masks = [(after / before).detach() for after, before, _ in pairs]
    for mask, (_, _, probability) in zip(masks, pairs, strict=True):
        assert {round(value, 2) for value in mask.flatten().tolist()} == {0.0, round(1 / (1 - probability), 2)}
        drawn = (mask[:1] if variational_dropout else mask) == 0
        assert int(drawn.sum()) == approx_count(probability, drawn.numel())
        same_in_time = torch.equal(mask == 0, (mask[:1] == 0).expand_as(mask))
        assert same_in_time == variational_dropout
        columns = {tuple(column.flatten().tolist()) for column in (mask == 0).unbind(dim=1)}
        assert len(columns) == 30
    assert not torch.equal(masks[0] == 0, masks[1] == 0)


def test_weight_drop_draws_a_new_mask_for_each_window(lstm_calls: list[Any]) -> None:
    network = make_network(weight_drop=0.3, num_layers=1)
    stored, masks = network.get_parameter("layers.0.weight_hh_l0").detach(), seeded(3)
    zeros = []
    for _ in range(30):
        network(make_window(), network.initial_state(4), masks)
        zeros.append(lstm_calls[-1][1][1] == 0)
        assert int(zeros[-1].sum()) == approx_count(0.3, stored.numel())
    assert len(lstm_calls) == 30, "a window must be one call, so that all time steps have the same weights"
    assert int(sum(mask.sum() for mask in zeros)) == approx_count(0.3, 30 * stored.numel())
    both = int((zeros[0] & zeros[1]).sum())
    assert both == approx_count(0.09, stored.numel())  # the masks are independent


def test_embedding_dropout_drops_whole_tokens_and_scales_the_others(lstm_calls: list[Any]) -> None:
    network, probability = make_network(size=3000, embedding_dropout=0.15, num_layers=1), 0.15
    network(torch.arange(3000)[None], network.initial_state(3000), seeded(4))
    ratio = lstm_calls[0][0][0] / network.embedding.weight.detach()
    dropped = (ratio == 0).all(dim=1)
    assert int(dropped.sum()) == approx_count(probability, 3000)
    torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 1 / (1 - probability)))


def test_the_gradient_of_a_tied_matrix_is_the_sum_of_the_untied_gradients() -> None:
    tied, untied = make_network(tie_weights=True), make_network(tie_weights=False)
    untied.load_state_dict(tied.state_dict())
    for network in (tied, untied):
        logits = network(make_window(), network.initial_state(4))[0]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), make_window().flatten()).backward()
    assert torch.equal(logits, tied(make_window(), tied.initial_state(4))[0])
    gradients = {name: parameter.grad for name, parameter in untied.named_parameters()}
    expected = gradients.pop("output.weight") + gradients["embedding.weight"]  # type: ignore[operator]
    for name, gradient in (gradients | {"embedding.weight": expected}).items():
        torch.testing.assert_close(tied.get_parameter(name).grad, gradient)


# --- in a training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_sentence_dataset(tmp_path_factory.mktemp("corpus"), 60)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[RecordedStep]:
    return record_steps(monkeypatch)


def run(dataset: Dataset, **values: Any) -> list[TrainingEvent]:
    return run_training(dataset, **({"averaging": "none", "ema_decay": 0.9, "clip": 0.0} | values))


def assert_steps_equal(first: list[RecordedStep], second: list[RecordedStep]) -> None:
    assert len(first) == len(second) > 10
    for one, other in zip(first, second, strict=True):
        assert (one.loss, one.lr, one.length) == (other.loss, other.lr, other.length)
        assert weights_equal(one.after, other.after)


SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant"}


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({}, {"averaging": "ema"}),
        (SGD, {"averaging": "nt_asgd", "nonmonotone_interval": 1}),
        ({}, {"clip": 1e6}),
        ({}, {"eval_every_epochs": 2}),
        ({}, {"eval_every_steps": 3}),
        ({}, {"patience": 3, "sample_seed": 4, "sample_temperature": 0.0}),
        ({}, {"validation_metric": "notebook"}),
        ({}, {"fine_tune_epochs": 2, "fine_tune_lr": 0.1}),
        (SGD, {"beta2": 0.5, "warmup_fraction": 0.9, "fine_tune_lr": 1.0}),
    ],
)
def test_settings_of_evaluation_averaging_and_fine_tuning_do_not_change_the_steps(
    dataset: Dataset, steps: list[RecordedStep], values: dict[str, Any], change: dict[str, Any]
) -> None:
    """All losses, learning rates and weights of the three epochs are equal bit for bit."""
    run(dataset, **values)
    before = list(steps)
    steps.clear()
    run(dataset, **values, **change)
    assert_steps_equal(before, steps[: len(before)])
    assert len(steps) > len(before) or "fine_tune_epochs" not in change


def test_a_moving_average_changes_the_evaluated_model_but_not_the_training(
    dataset: Dataset, steps: list[RecordedStep]
) -> None:
    raw, averaged = run(dataset, averaging="none"), run(dataset, averaging="ema")
    assert [step.train_perplexity for step in events_of(Step, raw)] == [
        step.train_perplexity for step in events_of(Step, averaged)
    ]
    assert len(events_of(Step, raw)) == 3
    first, *rest = zip(events_of(Evaluated, raw), events_of(Evaluated, averaged), strict=True)
    assert first[0].valid_perplexity == first[1].valid_perplexity
    for one, other in rest:
        assert weights_equal(weights_of(one), steps[one.step - 1].after)
        assert one.valid_perplexity != other.valid_perplexity
        assert not weights_equal(weights_of(one), weights_of(other))


def script_window_lengths(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], int]) -> None:
    monkeypatch.setattr(batches, "sample_bptt_length", lambda *_: draw())


@pytest.mark.parametrize("length", [12, 6, 24])
def test_the_learning_rate_of_a_variable_window_is_proportional_to_its_length(
    dataset: Dataset, steps: list[RecordedStep], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """The last window of an epoch is left out, since it can be shorter than the scripted length."""
    values = {"ar": 0.0, "tar": 0.0, "epochs": 1, **SGD}
    run(dataset, **(values | {"lr": length / 12}), variable_bptt=False, bptt=length)
    fixed = steps[:-1]
    steps.clear()
    script_window_lengths(monkeypatch, lambda: length)
    run(dataset, **values, variable_bptt=True, bptt=12)
    assert len(fixed) > 3
    for one, other in zip(fixed, steps[:-1], strict=True):
        assert (one.loss, one.lr, one.length) == (other.loss, length / 12, length)
        assert weights_equal(one.after, other.after)


def test_every_token_of_an_epoch_is_read_once_with_any_window_lengths(
    dataset: Dataset, steps: list[RecordedStep], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = iter([5, 19, 7, 12, 30] * 20)
    script_window_lengths(monkeypatch, lambda: next(lengths))
    run(dataset, variable_bptt=True, bptt=12, epochs=1, **SGD)
    assert sum(step.length for step in steps) == len(dataset.train) // 4 - 1
    assert [step.length for step in steps[:5]] == [5, 19, 7, 12, 30]
    assert all(step.lr == pytest.approx(step.length / 12) for step in steps)


# --- evaluations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 7, 10_000])
@pytest.mark.parametrize("fine_tune_epochs", [0, 1])
def test_evaluations_come_every_n_steps_and_at_the_end_of_each_phase(
    dataset: Dataset, steps: list[RecordedStep], every: int, fine_tune_epochs: int
) -> None:
    values = {"eval_every_steps": every, "eval_every_epochs": 1, "variable_bptt": False, "nonmonotone_interval": 10_000}
    events = run(dataset, epochs=2, fine_tune_epochs=fine_tune_epochs, fine_tune_lr=0.1, bptt=15, **values)
    an_epoch = math.ceil((len(dataset.train) // 4 - 1) / 15)
    ends = [2 * an_epoch, (2 + fine_tune_epochs) * an_epoch]  # fine-tuning starts from evaluated weights
    assert len(steps) == ends[-1]
    expected = {step for step in range(ends[-1] + 1) if step % every == 0} | set(ends)
    assert [event.step for event in events_of(Evaluated, events)] == sorted(expected)
    (finished,) = events_of(Finished, events)
    assert (finished.reason, finished.epochs) == ("done", 2 + fine_tune_epochs)


def test_patience_counts_evaluations_and_not_epochs(
    dataset: Dataset, steps: list[RecordedStep], monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, [100.0, 90.0, 95.0, 80.0, 85.0, 80.0, 99.0])  # an equal perplexity is no improvement
    events = run(dataset, eval_every_steps=3, patience=3, variable_bptt=False, bptt=8)
    assert [event.step for event in events_of(Evaluated, events)] == [0, 3, 6, 9, 12, 15, 18]
    assert [event.is_best for event in events_of(Evaluated, events)] == [True, True, False, True, False, False, False]
    (finished,) = events_of(Finished, events)
    assert (finished.reason, finished.valid_perplexity) == ("patience", 80.0)
    assert len(steps) == 18
    assert weights_equal(weights_of(finished), steps[8].after)
    last = len(dataset.train) // 4 - 1
    an_epoch = math.ceil(last / 8)
    assert an_epoch < 18 < 2 * an_epoch
    assert finished.epochs == pytest.approx(1 + (18 - an_epoch) * 8 / last)
    assert math.isfinite(finished.test_perplexity)


def test_unigram_bias_changes_only_the_initial_output_bias(dataset: Dataset, steps: list[RecordedStep]) -> None:
    """All other initial weights are equal with and without the unigram bias."""
    for switch in (True, False):
        run(dataset, unigram_bias=switch, epochs=1)
    first, other = steps[0].before, steps[len(steps) // 2].before
    assert {name for name in first if not (first[name] == other[name]).all()} == {"output.bias"}
    assert not other["output.bias"].any()
