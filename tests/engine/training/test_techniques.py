"""The paper's settings to the number, and each technique: it changes what it says and nothing else."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import engine.training.trainer
from engine.config import ModelConfig, preset
from engine.data.dataset import Dataset, prepare
from engine.events import Evaluated, Finished, Step, TrainingEvent
from engine.models.lstm import Network
from engine.models.numpy_lstm import weight_shapes
from engine.training.run import train
from tests.conftest import sentences
from tests.engine.training.test_averaging import Update, record_updates, script_validation
from tests.support.training import NO_DROPOUT, config_of, of, same, weights_of

SIZE = 40
LAYERED: dict[str, Any] = {"embedding_size": 24, "hidden_size": 24, "layers": 3, "spelling": False, **NO_DROPOUT}


pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network_of(size: int = SIZE, **values: Any) -> Network:
    return Network(ModelConfig(**(LAYERED | values)), size, seeded(0))


def window(time: int = 6, batch: int = 4, size: int = SIZE) -> Tensor:
    return torch.randint(size, (time, batch), generator=seeded(9))


def about(share: float, number: int) -> Any:
    """A count of `number` independent things of probability `share`, within four standard deviations."""
    return pytest.approx(share * number, abs=4 * math.sqrt(number * share * (1 - share)))


# --- the paper ------------------------------------------------------------------------------------------------


def test_the_paper_has_its_number_of_parameters() -> None:
    """24 million (table 1); the tied output counted once."""
    shapes = weight_shapes(preset("paper").model, 10_000)
    assert sum(math.prod(shape) for shape in shapes.values()) == 24_221_600
    lstm = sum(4 * hidden * (inputs + hidden + 2) for inputs, hidden in [(400, 1150), (1150, 1150), (1150, 400)])
    assert 10_000 * 400 + lstm + 10_000 == 24_221_600


def test_the_paper_has_the_papers_settings() -> None:
    """Section 5 of arXiv 1708.02182, and of the authors' code what the text leaves out."""
    model, training = preset("paper").model, preset("paper").training
    assert (model.embedding_size, model.hidden_size, model.layers, model.tied) == (400, 1150, 3, True)
    assert (model.dropout_words, model.dropout_input, model.dropout_between, model.dropout_output) == (
        0.1,
        0.4,
        0.3,
        0.4,
    )
    assert (model.weight_drop, model.locked, model.initialisation) == (0.5, True, "uniform")
    assert (model.spelling, model.unigram_bias) == (False, False)  # neither is of the paper
    assert (training.ar, training.tar) == (2, 1)
    assert (training.window, training.variable_window, training.batch_size) == (70, True, 40)
    assert (training.optimizer, training.lr, training.schedule) == ("sgd", 30, "constant")
    assert (training.clip, training.weight_decay) == (0.25, 1.2e-6)
    assert (training.averaging, training.nonmonotone, training.epochs) == ("nt_asgd", 5, 750)
    assert training.fine_tune_epochs > 0
    assert training.fine_tune_lr == 30
    assert (training.softmax_samples, training.smoothing, training.shuffle_lines) == (0, 0, False)
    assert (training.validation, training.patience, training.evaluate_every) == ("true", 0, 1)


# --- dropout: what is on touches its own place ----------------------------------------------------------------


@pytest.mark.parametrize("locked", [True, False])
def test_with_every_share_zero_masks_change_nothing_and_none_is_drawn(locked: bool) -> None:
    network, masks = network_of(locked=locked), seeded(1)
    before = masks.get_state()
    plain, states, raw, dropped = network(window(), network.start(4))
    again, other_states, _, other = network(window(), network.start(4), masks)
    assert torch.equal(plain, again)
    assert torch.equal(dropped, other)
    assert torch.equal(dropped, raw)
    assert all(torch.equal(a, b) for x, y in zip(states, other_states, strict=True) for a, b in zip(x, y, strict=True))
    assert torch.equal(masks.get_state(), before)


def differing(name: str, time: int) -> list[bool]:
    """Whether the dropout called `name` changes: each layer's last state, the raw, and the dropped output."""
    plain, other = network_of(), network_of(**{name: 0.5})
    _, states, raw, dropped = plain(window(time), plain.start(4), seeded(1))
    _, other_states, other_raw, other_dropped = other(window(time), other.start(4), seeded(1))
    pairs = [(a[0], b[0]) for a, b in zip(states, other_states, strict=True)]
    return [not torch.equal(a, b) for a, b in [*pairs, (raw, other_raw), (dropped, other_dropped)]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dropout_words", [True] * 5),
        ("dropout_input", [True] * 5),
        ("dropout_between", [False, True, True, True, True]),
        ("dropout_output", [False, False, False, False, True]),
        ("weight_drop", [True] * 5),
    ],
)
def test_dropout_changes_what_comes_after_it_and_nothing_before(name: str, expected: list[bool]) -> None:
    assert differing(name, time=6) == expected
    if name == "weight_drop":  # the first step has no state to multiply by recurrent weights
        assert differing(name, time=1) == [False] * 5


def test_dropped_words_are_dropped_where_they_are_read_and_not_where_they_are_predicted() -> None:
    """Section 4.3 is of the embedding matrix; the tied output layer keeps every word."""
    network = network_of(dropout_words=0.9)
    logits, _, _, dropped = network(window(), network.start(4), seeded(1))
    torch.testing.assert_close(logits, dropped @ network.embedding.weight.T + network.output.bias)


@pytest.fixture
def lstm_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, list[Tensor], Tensor]]:
    """Input, weights and output of each run of an LSTM layer."""
    runs: list[tuple[Tensor, list[Tensor], Tensor]] = []
    original: Any = torch.lstm

    def spy(inputs: Tensor, state: Any, weights: list[Tensor], *rest: Any) -> Any:
        result = original(inputs, state, weights, *rest)
        runs.append((inputs.detach(), [weight.detach() for weight in weights], result[0].detach()))
        return result

    monkeypatch.setattr(torch, "lstm", spy)
    return runs


@pytest.mark.parametrize("locked", [True, False])
def test_each_of_the_three_places_has_masks_of_its_own_rate(locked: bool, lstm_runs: list[Any]) -> None:
    network = network_of(locked=locked, dropout_input=0.2, dropout_between=0.3, dropout_output=0.6, layers=2)
    ids = window(time=20, batch=30)
    _, _, raw, dropped = network(ids, network.start(30), seeded(2))
    (first, _, out), (second, _, _) = lstm_runs
    pairs = [(first, network.embedding.weight[ids], 0.2), (second, out, 0.3), (dropped, raw, 0.6)]
    masks = [(after / before).detach() for after, before, _ in pairs]
    for mask, (_, _, share) in zip(masks, pairs, strict=True):
        assert {round(value, 2) for value in mask.flatten().tolist()} == {0.0, round(1 / (1 - share), 2)}
        drawn = (mask[:1] if locked else mask) == 0
        assert int(drawn.sum()) == about(share, drawn.numel())
        same_in_time = torch.equal(mask == 0, (mask[:1] == 0).expand_as(mask))
        assert same_in_time == locked
        columns = {tuple(column.flatten().tolist()) for column in (mask == 0).unbind(dim=1)}
        assert len(columns) == 30
    assert not torch.equal(masks[0] == 0, masks[1] == 0)


def test_weight_drop_draws_a_new_mask_each_forward_at_its_rate(lstm_runs: list[Any]) -> None:
    network = network_of(weight_drop=0.3, layers=1)
    stored, masks = network.get_parameter("layers.0.weight_hh_l0").detach(), seeded(3)
    zeros = []
    for _ in range(30):
        network(window(), network.start(4), masks)
        zeros.append(lstm_runs[-1][1][1] == 0)
        assert int(zeros[-1].sum()) == about(0.3, stored.numel())
    assert len(lstm_runs) == 30, "a window is one run of the layer, so all its time steps have the same weights"
    assert int(sum(mask.sum() for mask in zeros)) == about(0.3, 30 * stored.numel())
    both = int((zeros[0] & zeros[1]).sum())
    assert both == about(0.09, stored.numel())  # independent of one another


def test_words_are_dropped_at_their_rate_whole_and_the_others_scaled(lstm_runs: list[Any]) -> None:
    network, share = network_of(size=3000, dropout_words=0.15, layers=1), 0.15
    network(torch.arange(3000)[None], network.start(3000), seeded(4))
    ratio = lstm_runs[0][0][0] / network.embedding.weight.detach()
    gone = (ratio == 0).all(dim=1)
    assert int(gone.sum()) == about(share, 3000)
    torch.testing.assert_close(ratio[~gone], torch.full_like(ratio[~gone], 1 / (1 - share)))


def test_a_tied_matrix_learns_what_two_equal_untied_ones_learn_together() -> None:
    tied, untied = network_of(tied=True), network_of(tied=False)
    untied.load_state_dict(tied.state_dict())
    for network in (tied, untied):
        logits = network(window(), network.start(4))[0]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), window().flatten()).backward()
    assert torch.equal(logits, tied(window(), tied.start(4))[0])
    gradients = {name: parameter.grad for name, parameter in untied.named_parameters()}
    expected = gradients.pop("output.weight") + gradients["embedding.weight"]  # type: ignore[operator]
    for name, gradient in (gradients | {"embedding.weight": expected}).items():
        torch.testing.assert_close(tied.get_parameter(name).grad, gradient)


# --- in a training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path: Path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(sentences(60)))
    return prepare(config_of(corpus=str(path), corpus_format="text").data)


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[Update]:
    return record_updates(monkeypatch)


def run(dataset: Dataset, **values: Any) -> list[TrainingEvent]:
    plain: dict[str, Any] = {"epochs": 3, "averaging": "none", "average": 0.9, "clip": 0.0, "spelling": False}
    return list(train(config_of(**(plain | values)), dataset, "a-run", lambda: False))


def assert_same_updates(first: list[Update], second: list[Update]) -> None:
    assert len(first) == len(second) > 10
    for one, other in zip(first, second, strict=True):
        assert (one.loss, one.lr, one.length) == (other.loss, other.lr, other.length)
        assert same(one.after, other.after)


SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant"}


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({}, {"averaging": "ema"}),
        (SGD, {"averaging": "nt_asgd", "nonmonotone": 1}),
        ({}, {"clip": 1e6}),
        ({}, {"evaluate_every": 2}),
        ({}, {"evaluate_updates": 3}),
        ({}, {"patience": 3, "sample_seed": 4, "sample_temperature": 0.0}),
        ({}, {"validation": "notebook"}),
        ({}, {"fine_tune_epochs": 2, "fine_tune_lr": 0.1}),
        (SGD, {"beta2": 0.5, "warmup": 0.9, "fine_tune_lr": 1.0}),
    ],
)
def test_what_only_watches_or_comes_later_leaves_every_update_as_it_was(
    dataset: Dataset, updates: list[Update], values: dict[str, Any], change: dict[str, Any]
) -> None:
    """The same bits after each update of the three epochs: losses, rates, weights."""
    run(dataset, **values)
    before = list(updates)
    updates.clear()
    run(dataset, **values, **change)
    assert_same_updates(before, updates[: len(before)])
    assert len(updates) > len(before) or "fine_tune_epochs" not in change


def test_a_moving_average_is_another_model_of_the_same_training(dataset: Dataset, updates: list[Update]) -> None:
    raw, averaged = run(dataset, averaging="none"), run(dataset, averaging="ema")
    assert [step.train_perplexity for step in of(Step, raw)] == [step.train_perplexity for step in of(Step, averaged)]
    assert len(of(Step, raw)) == 3
    first, *rest = zip(of(Evaluated, raw), of(Evaluated, averaged), strict=True)
    assert first[0].valid_perplexity == first[1].valid_perplexity
    for one, other in rest:
        assert same(weights_of(one), updates[one.step - 1].after)
        assert one.valid_perplexity != other.valid_perplexity
        assert not same(weights_of(one), weights_of(other))


def lengths_drawn(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], int]) -> None:
    monkeypatch.setattr(engine.training.trainer, "window_length", lambda *_: draw())


@pytest.mark.parametrize("length", [12, 6, 24])
def test_a_drawn_window_is_a_fixed_one_of_that_length_at_a_rate_in_proportion(
    dataset: Dataset, updates: list[Update], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """What ends an epoch is shorter, and so slower, than a fixed one would be; it is left out."""
    values = {"ar": 0.0, "tar": 0.0, "epochs": 1, **SGD}
    run(dataset, **(values | {"lr": length / 12}), variable_window=False, window=length)
    fixed = updates[:-1]
    updates.clear()
    lengths_drawn(monkeypatch, lambda: length)
    run(dataset, **values, variable_window=True, window=12)
    assert len(fixed) > 3
    for one, other in zip(fixed, updates[:-1], strict=True):
        assert (one.loss, one.lr, one.length) == (other.loss, length / 12, length)
        assert same(one.after, other.after)


def test_every_word_of_an_epoch_is_read_once_whatever_lengths_are_drawn(
    dataset: Dataset, updates: list[Update], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = iter([5, 19, 7, 12, 30] * 20)
    lengths_drawn(monkeypatch, lambda: next(lengths))
    run(dataset, variable_window=True, window=12, epochs=1, **SGD)
    assert sum(update.length for update in updates) == len(dataset.train) // 4 - 1
    assert [update.length for update in updates[:5]] == [5, 19, 7, 12, 30]
    assert all(update.lr == pytest.approx(update.length / 12) for update in updates)


# --- when validation is looked at -----------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 7, 10_000])
@pytest.mark.parametrize("fine_tune_epochs", [0, 1])
def test_evaluations_come_after_so_many_updates_and_at_the_end(
    dataset: Dataset, updates: list[Update], every: int, fine_tune_epochs: int
) -> None:
    values = {"evaluate_updates": every, "evaluate_every": 1, "variable_window": False, "nonmonotone": 10_000}
    events = run(dataset, epochs=2, fine_tune_epochs=fine_tune_epochs, fine_tune_lr=0.1, window=15, **values)
    an_epoch = math.ceil((len(dataset.train) // 4 - 1) / 15)
    ends = [2 * an_epoch, (2 + fine_tune_epochs) * an_epoch]  # fine-tuning needs the weights it starts from
    assert len(updates) == ends[-1]
    expected = {step for step in range(ends[-1] + 1) if step % every == 0} | set(ends)
    assert [event.step for event in of(Evaluated, events)] == sorted(expected)
    (finished,) = of(Finished, events)
    assert (finished.reason, finished.epochs) == ("done", 2 + fine_tune_epochs)


def test_patience_counts_evaluations_and_not_epochs(
    dataset: Dataset, updates: list[Update], monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, [100.0, 90.0, 95.0, 80.0, 85.0, 80.0, 99.0])  # as good is not better
    events = run(dataset, evaluate_updates=3, patience=3, variable_window=False, window=8)
    assert [event.step for event in of(Evaluated, events)] == [0, 3, 6, 9, 12, 15, 18]
    assert [event.best for event in of(Evaluated, events)] == [True, True, False, True, False, False, False]
    (finished,) = of(Finished, events)
    assert (finished.reason, finished.valid_perplexity) == ("patience", 80.0)
    assert len(updates) == 18
    assert same(weights_of(finished), updates[8].after)
    last = len(dataset.train) // 4 - 1
    an_epoch = math.ceil(last / 8)
    assert an_epoch < 18 < 2 * an_epoch
    assert finished.epochs == pytest.approx(1 + (18 - an_epoch) * 8 / last)
    assert math.isfinite(finished.test_perplexity)


def test_the_start_is_the_same_whether_or_not_it_knows_the_frequencies(dataset: Dataset, updates: list[Update]) -> None:
    """The unigram bias is a bias at the start, nothing more."""
    for switch in (True, False):
        run(dataset, unigram_bias=switch, epochs=1)
    first, other = updates[0].before, updates[len(updates) // 2].before
    assert {name for name in first if not (first[name] == other[name]).all()} == {"output.bias"}
    assert not other["output.bias"].any()
