"""The effect of each technique on the network and on the optimizer steps of a training."""

import math

import pytest
import torch

from engine.config import ModelConfig
from engine.events import Evaluated, Finished, Step
from engine.models.lstm import LSTMModel
from tests.support.training import NO_DROPOUT, REPORT_EACH_STEP, events_of, make_sentence_dataset, run_training

SIZE = 40
LAYERED = {"embedding_size": 24, "hidden_size": 24, "num_layers": 3, "subword_embeddings": False, **NO_DROPOUT}

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make_network(size=SIZE, **values):
    return LSTMModel(ModelConfig(**(LAYERED | values)), size, seeded(0))


def make_window(time=6, batch=4, size=SIZE):
    return torch.randint(size, (time, batch), generator=seeded(9))


def changed_by(name, time):
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
def test_dropout_changes_only_later_values(name, expected):
    assert changed_by(name, time=6) == expected
    if name == "weight_drop":  # the state before the first time step is zero
        assert changed_by(name, time=1) == [False] * 5


def test_embedding_dropout_drops_inputs_but_not_the_tied_output():
    """Merity et al. 2017, section 4.3, drops rows of the embedding; the tied output layer keeps every row."""
    network = make_network(embedding_dropout=0.9)
    logits, _, _, dropped = network(make_window(), network.initial_state(4), seeded(1))
    torch.testing.assert_close(logits, dropped @ network.embedding.weight.T + network.output.bias)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_sentence_dataset(tmp_path_factory.mktemp("corpus"), 60)


def run(dataset, **values):
    return run_training(dataset, **({"averaging": "none", "ema_decay": 0.9, "clip": 0.0, "epochs": 2} | values))


def steps_of(dataset, **values):
    steps = events_of(Step, run(dataset, **values, **REPORT_EACH_STEP))
    return [(step.step, step.train_perplexity, step.gradient_norm, step.lr) for step in steps]


SGD = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant"}


def test_settings_of_evaluation_averaging_and_fine_tuning_do_not_change_the_steps(dataset):
    before = steps_of(dataset, **SGD)
    assert len(before) > 10
    for change in (
        {"averaging": "ema"},
        {"averaging": "nt_asgd", "nonmonotone_interval": 1, "eval_every_steps": 3},
        {"patience": 3, "sample_seed": 4, "sample_temperature": 0.0, "eval_every_epochs": 2},
        {"beta2": 0.5, "warmup_fraction": 0.9, "clip": 1e6},
        {"fine_tune_epochs": 1, "fine_tune_lr": 0.1},
    ):
        after = steps_of(dataset, **SGD, **change)
        assert after[: len(before)] == before, change
        assert (len(after) > len(before)) == ("fine_tune_epochs" in change)


SWITCHES = {
    "clip": 0.01, "ar": 2.0, "tar": 2.0, "label_smoothing": 0.2, "softmax_samples": 5, "weight_decay": 0.5,
    "beta2": 0.5, "shuffle_lines": False, "variational_dropout": False, "layer_lr_decay": 2.6, "unfreeze_epochs": 1,
    "mogrifier_rounds": 2, "initialization": "notebook", "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain_steps(dataset):
    return steps_of(dataset, epochs=1, bptt=30)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_technique_changes_the_training(dataset, plain_steps, name):
    assert steps_of(dataset, epochs=1, bptt=30, **{name: SWITCHES[name]}) != plain_steps


@pytest.mark.parametrize(("every", "fine_tune_epochs"), [(1, 0), (7, 1), (10_000, 1)])
def test_evaluations_come_every_n_steps_and_at_the_end_of_each_phase(dataset, every, fine_tune_epochs):
    values = {"eval_every_steps": every, "variable_bptt": False, "nonmonotone_interval": 10_000, "bptt": 15}
    events = run(dataset, fine_tune_epochs=fine_tune_epochs, fine_tune_lr=0.1, **values)
    an_epoch = math.ceil((len(dataset.train) // 4 - 1) / 15)
    ends = [2 * an_epoch, (2 + fine_tune_epochs) * an_epoch]  # fine-tuning starts from evaluated weights
    expected = {step for step in range(ends[-1] + 1) if step % every == 0} | set(ends)
    assert [event.step for event in events_of(Evaluated, events)] == sorted(expected)
    assert events_of(Step, events)[-1].step == ends[-1]
    (finished,) = events_of(Finished, events)
    assert (finished.reason, finished.epochs) == ("done", 2 + fine_tune_epochs)
