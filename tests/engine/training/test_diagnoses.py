"""Diagnoses of a training: each problem is reported once with a remedy, and a healthy training never alarms."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import Config
from engine.events import Diagnosed, Evaluated, Started, Step
from engine.runs.directory import METRICS_FILE, drop_superseded, read_events
from engine.training import TrainingInput
from engine.training import diagnoses as module
from engine.training.diagnoses import NUM_GPU_READINGS, History
from engine.training.job import prepare_job, resume_job
from engine.training.trainer import train
from tests.support.files import sentences, write_csv
from tests.support.training import NO_DROPOUT, events_of, make_config, run_training, weights_equal, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

STARTED = Started("r", "tiny", 1_000_000, 879, 19_022, 2_227, 10, "cpu", "", 150.0, 90.0)


def step(number, train_perplexity=80.0, gradient_norm=0.3, lr=0.01):
    """Return the report of a step; a hundred steps are an epoch."""
    return Step(number, number / 100, train_perplexity, lr, gradient_norm, 900.0, number / 4, 5.0)


def steps(*perplexities):
    return [step(number, perplexity) for number, perplexity in enumerate(perplexities, 1)]


def norms(*gradient_norms):
    return [step(number, gradient_norm=norm) for number, norm in enumerate(gradient_norms, 1)]


def evaluations(*perplexities):
    return [
        Evaluated(epoch * 100, float(epoch), perplexity, perplexity <= min(perplexities[: epoch + 1]), epoch * 2.0)
        for epoch, perplexity in enumerate(perplexities)
    ]


def diagnoses(observations, **values):
    """Return the diagnoses of a training of 100 epochs, each with the index of the observation that shows it."""
    history = History(Config().with_values(epochs=100, **values), Path("r"))
    return [(index, each) for index, observation in enumerate(observations) for each in history.observe(observation)]


def first_diagnosis(kind, observations, **values):
    return next((pair for pair in diagnoses(observations, **values) if pair[1].kind == kind), None)


LEVEL = tuple(80 + 4 * math.sin(number) for number in range(30))


def unigram(*perplexities, lr=0.01):
    return [STARTED, step(1, 200, lr=lr), *evaluations(*perplexities)]


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Machine that is read after each event: its free space on the disk, and the utilization of its GPU in percent."""
    machine = SimpleNamespace(free=10**12, utilization=80)
    monkeypatch.setattr(module, "DISK_INTERVAL", 0.0)
    monkeypatch.setattr(module, "GPU_INTERVAL", 0.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: machine)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: machine.utilization)
    return machine


NOTEBOOK = {"validation_metric": "notebook", "schedule": "plateau"}
BASE = {"init": "base", "lr": 0.01}
EARLY = [0.3] * 20


@pytest.mark.parametrize(
    ("kind", "observations", "values", "index", "message", "remedy"),
    [
        (
            *("rising_validation", evaluations(200, 80, 60, 61, 62, 62.9, 63.1), {}, 6),
            "from its best, 60.0 at epoch 2.0, to 63.1 in 4 evaluations; the model overfits",
            "r keeps the best model; next time --set patience=4",
        ),
        ("loss_spike", steps(*LEVEL, 170, 175), {}, 31, "jumped from about 80", "--set lr=0.0033"),
        ("loss_spike", steps(*LEVEL, 170, 175), {"clip": 0.0}, 31, "", "--set clip=1"),
        ("forgetting", evaluations(25, 25.6, 25.7), BASE, 2, "was 25.0 before it", "--set lr=0.0033"),
        ("forgetting", evaluations(25, 60), BASE, 1, "was 25.0 before it", "--set lr=0.001"),
        ("vanishing_gradients", norms(*EARLY, *[0.00029] * 20), {}, 39, "norm is 2.9e-04, after about 3.0e-01", ""),
        ("vanishing_gradients", norms(*[0.0] * 20), {"weight_decay": 10.0}, 19, "", "--set weight_decay=0.1"),
        ("exploding_gradients", norms(*[11.0] * 36), {"clip": 0.5}, 35, "", ""),
        # The notebook: the first epoch learns the frequencies, the second nothing.
        ("unigram_model", unigram(2000, 149, 147), {}, 4, "a unigram model has 150.0", ""),
        ("unigram_model", unigram(151, 150.5), {}, 3, "", "--epochs 300, since 100 steps are few"),
        ("unigram_model", unigram(151, 150), {**NOTEBOOK, "lr": 0.01}, 3, "", "validation_metric=perplexity"),
        ("unigram_model", unigram(151, 150, lr=1.0), {"lr": 1.0, "weight_decay": 0.0}, 3, "", "--set lr=0.003"),
    ],
)
def test_a_problem_is_found_with_its_numbers_and_a_remedy(kind, observations, values, index, message, remedy):
    found = first_diagnosis(kind, observations, **values)
    assert found is not None
    assert found[0] == index
    assert message in found[1].message
    assert remedy in found[1].remedy


@pytest.mark.parametrize(
    ("utilization", "values", "remedy"),
    [
        (49, {"batch_size": 10, "bptt": 25}, "--set batch_size=20"),
        (40, {"batch_size": 60, "bptt": 100}, "--device cpu"),  # a short text
    ],
)
def test_a_gpu_that_is_idle_for_two_minutes_is_found(machine, utilization, values, remedy):
    machine.utilization = utilization
    observations = [replace(STARTED, device="cuda:0"), *steps(*[80] * NUM_GPU_READINGS)]
    found = first_diagnosis("idle_gpu", observations, **values)
    assert found[0] == NUM_GPU_READINGS
    assert remedy in found[1].remedy
    assert first_diagnosis("idle_gpu", [STARTED, *observations[1:]], **values) is None  # on a CPU


@pytest.mark.parametrize(
    ("kind", "observations", "values"),
    [
        ("rising_validation", evaluations(200, 80, 60, 70, 80, 90), {}),  # three evaluations can be noise
        ("rising_validation", evaluations(200, 80, 60, 70, 80, 90, 100, 110), {"patience": 3}),  # stops by itself
        ("loss_spike", steps(*LEVEL, 170, 81, 170, 80), {}),  # lasts a single report
        ("loss_spike", steps(*(40 * 4 ** (number % 3) for number in range(60))), {}),  # always varies by a factor of 16
        # A memorized text.
        ("vanishing_gradients", [step(number, 1.01, 0.3 if number < 20 else 1e-5) for number in range(80)], {}),
        ("exploding_gradients", norms(*[11.0, 11.0, 11.0, 0.2] * 30), {"clip": 0.5}),
    ],
)
def test_what_is_no_problem_is_not_reported(kind, observations, values):
    assert first_diagnosis(kind, observations, **values) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    noise=st.lists(st.lists(st.floats(-1, 1), min_size=8, max_size=8), min_size=3, max_size=30),
    start=st.floats(140, 5000),
    end=st.floats(5, 100),
    norm=st.floats(0.05, 4),
    init=st.sampled_from(["", "base"]),
)
def test_healthy_decreasing_noisy_curve_never_alarms(noise, start, end, norm, init):
    """Losses fall exponentially with 20 % noise in each report, 1 % in each evaluation, and norms within a factor 4."""
    observations, number = [replace(STARTED, device="cuda:0"), Evaluated(0, 0.0, start, True, 0.0)], 0
    for epoch, values in enumerate(noise, 1):
        level = end + (start - end) * math.exp(-epoch)
        for value in values:
            number += 1
            observations.append(step(number, level * (1 + 0.2 * value), norm * 2**value))
        observations.append(Evaluated(number, float(epoch), level * (1 + 0.01 * values[0]), True, 0.0))
    assert diagnoses(observations, init=init) == []


def test_every_kind_is_reported_once(machine):
    machine.free = 10
    falling = [float(200 - number) for number in range(30)]
    observations = [
        *(STARTED, *steps(*falling), *steps(500, 500, 500, 500)),
        *norms(*[0.3] * 20, *[1e-9] * 30, *[99.0] * 50),
        *(step(1, 150), *evaluations(140, 160, 150, 150, 150)),
        *evaluations(140, 139, 150, 150, 160, 170),
        *steps(500, 500),
    ]
    kinds = [diagnosis.kind for _, diagnosis in diagnoses(observations, init="base")]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {
        *("rising_validation", "loss_spike", "forgetting", "vanishing_gradients", "exploding_gradients"),
        *("unigram_model", "disk_space"),
    }


def test_missing_space_is_reported_before_the_first_checkpoint(machine):
    machine.free = 5_000_000
    ((index, found),) = diagnoses([STARTED, *steps(80, 79, 78)])
    assert (index, found.kind, found.step) == (0, "disk_space", 0)
    assert "it needs 17.6 MB, and 5.0 MB are free" in found.message


SETTINGS = {"variable_bptt": False, "ar": 0.0, "tar": 0.0, "clip": 1.0, "lr": 0.02}
OVERFITTED = {
    **SETTINGS, **NO_DROPOUT, "embedding_size": 64, "hidden_size": 64, "epochs": 30, "schedule": "constant",
    "averaging": "none",
}  # fmt: skip


def test_healthy_training_has_no_diagnosis_and_its_bits_do_not_change(dataset, tmp_path):
    config = make_config(**SETTINGS, epochs=6)
    history, events = History(config, tmp_path), list(train(config, TrainingInput(dataset)))
    assert not [found for event in events for found in history.observe(event)]
    assert weights_equal(weights_of(events[-1]), weights_of(run_training(dataset, **SETTINGS, epochs=6)[-1]))


def test_overfitting_is_found_and_recorded_and_a_resumed_run_does_not_repeat_it(tmp_path):
    corpus = write_csv(tmp_path / "corpus.csv", sentences(100))
    config = make_config(**OVERFITTED, corpus=str(corpus), keep_epoch_checkpoints=False)
    job, evaluated, found = prepare_job(config, "r", tmp_path), [], []
    for event in job.events(lambda: bool(found)):
        if isinstance(event, Evaluated) and not found:
            evaluated.append(event)
        elif isinstance(event, Diagnosed) and event.kind == "rising_validation":
            found.append(event)
    (diagnosis,) = found
    best = min(evaluated, key=lambda event: event.valid_perplexity)
    assert f"its best, {best.valid_perplexity:.1f} at epoch {best.epoch:.1f}" in diagnosis.message
    resumed = resume_job("r", tmp_path)
    events = []
    for event in resumed.events(lambda: len(events_of(Evaluated, events)) == 3):
        events.append(event)
    assert not any(event.kind == "rising_validation" for event in events_of(Diagnosed, events))
    recorded = events_of(Diagnosed, drop_superseded(read_events(job.run.path / METRICS_FILE)))
    assert [event for event in recorded if event.kind == "rising_validation"] == [diagnosis]
