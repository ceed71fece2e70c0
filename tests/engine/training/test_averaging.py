"""Averages of the weights by hand, and what NT-ASGD and fine-tuning make of them in a real training."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import engine.training.trainer
from engine.analysis.perplexity import Evaluation
from engine.config import ModelConfig
from engine.data.dataset import Dataset, prepare
from engine.events import Evaluated, Finished, Started, Step, TrainingEvent
from engine.models.lstm import Network
from engine.training.averaging import WeightAverage, gets_no_better
from engine.training.run import train
from tests.conftest import sentences
from tests.support.training import NO_DROPOUT, config_of, of, same, weights_of

Weights = dict[str, np.ndarray]


pytestmark = pytest.mark.usefixtures("one_thread")


def network_of(value: float, **values: Any) -> Network:
    network = Network(
        ModelConfig(embedding_size=2, hidden_size=2, layers=1, **values), 3, torch.Generator().manual_seed(0)
    )
    set_to(network, value)
    return network


def set_to(network: Network, value: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def values_of(average: WeightAverage) -> set[float]:
    return {round(value, 4) for parameter in average.network.parameters() for value in parameter.flatten().tolist()}


# --- WeightAverage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_without_decay_it_is_the_mean_of_the_weights_since_it_began(tied: bool) -> None:
    network = network_of(100.0, tied=tied)  # what was before the first update does not count
    average = WeightAverage(network)
    assert values_of(average) == {100.0}
    for weight, mean in [(4.0, 4.0), (8.0, 6.0), (0.0, 4.0), (-8.0, 1.0), (6.0, 2.0)]:
        set_to(network, weight)
        average.update(network)
        assert values_of(average) == {mean}
    assert all((parameter == 6).all() for parameter in network.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.4, 0.98])
def test_with_decay_it_is_a_mean_at_first_and_moving_later(decay: float) -> None:
    chance = np.random.default_rng(0)
    network = network_of(7.0)
    average, expected = WeightAverage(network, decay), 7.0
    for n in range(40):
        weight = float(chance.normal())
        set_to(network, weight)
        average.update(network)
        share = 1 - min(decay, n / (n + 10))
        expected += share * (weight - expected)
        assert all(
            parameter.detach().numpy() == pytest.approx(expected, abs=1e-5) for parameter in parameters_of(average)
        )


def parameters_of(average: WeightAverage) -> list[Tensor]:
    return list(average.network.parameters())


def test_it_is_a_network_of_its_own_and_stays_tied() -> None:
    network = network_of(1.0, tied=True)
    average = WeightAverage(network)
    set_to(network, 3.0)
    assert values_of(average) == {1.0}
    assert average.network.output.weight is average.network.embedding.weight


# --- the trigger ----------------------------------------------------------------------------------------------


def test_the_trigger_waits_and_does_not_mind_a_worse_one_among_the_last_few() -> None:
    """Algorithm 1 of arXiv 1708.02182 with n=2: is the newest worse than the best of all but the last two before it?"""
    validation = [100, 90, 95, 99, 85, 88, 90, 86, 84]
    #              -   -   -  >100 >90 >90 >90 >85 >85   what each is asked to be worse than; - : too few before it
    fired = [gets_no_better(validation[:i], now, 2) for i, now in enumerate(validation)]
    assert fired == [False, False, False, False, False, False, False, True, False]
    assert not gets_no_better([1.0, 2.0], 1000.0, 2)  # not more than two before it
    assert gets_no_better([1.0, 2.0, 2.0], 1.5, 2)
    assert not gets_no_better([1.5, 1.0, 1.0], 1.5, 2)  # as good is not worse


@given(st.lists(st.integers(0, 9), max_size=15), st.integers(0, 9), st.integers(1, 6))
def test_the_trigger_is_the_rule_of_the_paper(earlier: list[int], now: int, window: int) -> None:
    """T > n and v_t > min of v_0 .. v_(T-n-1), in a plain loop."""
    worse = False
    for place, value in enumerate(earlier):
        if place + window < len(earlier) and now > value:
            worse = True
    assert gets_no_better(earlier, now, window) == worse


# --- in a training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(sentences(90)))
    return prepare(config_of(corpus=str(path), corpus_format="text").data)


@dataclass
class Update:
    """One update as it really happened; weights and gradients by name."""

    lr: float
    length: int
    loss: float
    before: Weights
    after: Weights
    gradients: Weights
    """After clipping."""


def record_updates(monkeypatch: pytest.MonkeyPatch) -> list[Update]:
    """A list that every update of the trainings from here on is added to."""
    updates: list[Update] = []
    original: Any = engine.training.trainer.Loop._update

    def arrays(tensors: dict[str, Tensor]) -> Weights:
        return {name: value.detach().numpy().copy() for name, value in tensors.items()}

    def spy(self: Any, inputs: Tensor, *rest: Any) -> Any:
        before = arrays(dict(self.network.named_parameters()))
        result = original(self, inputs, *rest)
        named = dict(self.network.named_parameters())
        gradients = arrays({name: value.grad for name, value in named.items()})
        lr = self.optimizer.param_groups[0]["lr"]
        updates.append(Update(lr, len(inputs), float(result[0].detach()), before, arrays(named), gradients))
        return result

    monkeypatch.setattr(engine.training.trainer.Loop, "_update", spy)
    monkeypatch.setattr(engine.training.trainer, "REPORT_SECONDS", 1e9)  # reports no longer depend on the clock
    return updates


def script_validation(monkeypatch: pytest.MonkeyPatch, perplexities: list[float]) -> None:
    """Let each evaluation of the network under training say the next of these."""
    original, script = engine.training.trainer.evaluate, iter(perplexities)

    def scripted(model: Any, ids: Any) -> Evaluation:
        if isinstance(model, Network):
            return Evaluation(len(ids), 0.0, next(script), 1.0)
        return original(model, ids)

    monkeypatch.setattr(engine.training.trainer, "evaluate", scripted)


def run(dataset: Dataset, **values: Any) -> list[TrainingEvent]:
    """A training without spelling, so that weights as played are those trained."""
    config = config_of(**({"spelling": False, "shuffle_lines": False, "variable_window": False} | values))
    return list(train(config, dataset, "a-run", lambda: False))


def mean_of(updates: list[Update]) -> Weights:
    assert updates
    return {
        name: np.mean([update.after[name] for update in updates], axis=0, dtype=np.float64) for name in updates[0].after
    }


def assert_close(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name] == pytest.approx(expected[name], abs=1e-5)


SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant", "clip": 0.25, "weight_decay": 1e-3}


def test_nt_asgd_averages_from_the_evaluation_that_got_no_better(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """99 is worse than 90 and 95, but these are among the last two; 91 is worse than 90, which no longer is."""
    script = [50.0, 100.0, 90.0, 95.0, 99.0, 91.0, 40.0, 30.0]  # the first is before any update, and does not count
    script_validation(monkeypatch, script)
    updates = record_updates(monkeypatch)
    events = run(dataset, averaging="nt_asgd", nonmonotone=2, epochs=7, **SGD)
    evaluated = of(Evaluated, events)
    assert [event.valid_perplexity for event in evaluated] == script
    for event in evaluated[1:6]:
        assert same(weights_of(event), updates[event.step - 1].after)  # raw, that of the trigger too
    switch = evaluated[5].step
    for event in evaluated[6:]:
        assert_close(weights_of(event), mean_of(updates[switch : event.step]))
        assert not same(weights_of(event), updates[event.step - 1].after)
    (finished,) = of(Finished, events)
    assert (finished.valid_perplexity, finished.reason) == (30.0, "done")
    assert_close(weights_of(finished), mean_of(updates[switch:]))

    # The training itself goes on with the raw weights, as if nothing were averaged.
    averaged, updates[:] = list(updates), []
    script_validation(monkeypatch, script)
    run(dataset, averaging="none", epochs=7, **SGD)
    assert len(updates) == len(averaged)
    assert all(same(plain.after, other.after) for plain, other in zip(updates, averaged, strict=True))


def test_fine_tuning_is_averaged_sgd_from_the_best_weights(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [100.0, 50.0, 60.0, 55.0, 54.0, 56.0, 53.0, 54.5]  # 54.5 is worse than 54, two before the last two
    script_validation(monkeypatch, script)
    updates = record_updates(monkeypatch)
    values = {**NO_DROPOUT, "optimizer": "adamw", "lr": 0.03, "weight_decay": 0.01, "averaging": "none"}
    events = run(dataset, epochs=2, fine_tune_epochs=9, fine_tune_lr=0.5, nonmonotone=2, **values)
    evaluated, (finished,) = of(Evaluated, events), of(Finished, events)
    assert of(Started, events)[0].epochs == 11
    assert [event.epoch for event in evaluated] == list(range(8))
    assert [event.valid_perplexity for event in evaluated] == script
    assert (finished.reason, finished.epochs, finished.valid_perplexity) == ("patience", 7, 50.0)
    assert same(weights_of(finished), weights_of(evaluated[1]))

    begin = evaluated[2].step
    assert not same(updates[begin - 1].after, updates[begin].before)  # not on from the last ones
    assert same(updates[begin].before, weights_of(evaluated[1]))  # but from the best
    for update in updates[begin:]:
        assert update.lr == 0.5
        plain = {name: value - 0.5 * (update.gradients[name] + 0.01 * value) for name, value in update.before.items()}
        assert_close(update.after, plain)
    for first, second in zip(updates[begin:], updates[begin + 1 :], strict=False):
        assert same(first.after, second.before)
    for event in evaluated[3:]:
        assert_close(weights_of(event), mean_of(updates[begin : event.step]))


def test_fine_tuning_that_keeps_getting_better_lasts_for_all_its_epochs(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, [100.0, 90.0, 80.0, 70.0, 60.0, 50.0])
    events = run(dataset, epochs=2, fine_tune_epochs=3, fine_tune_lr=0.1, nonmonotone=1)
    (finished,) = of(Finished, events)
    assert (finished.reason, finished.epochs, finished.valid_perplexity) == ("done", 5, 50.0)
    assert of(Step, events)[-1].eta_seconds == pytest.approx(0, abs=1e-6)
