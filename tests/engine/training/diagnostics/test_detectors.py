"""Detectors of problems, on both sides of their thresholds, and their silence about healthy trainings."""

import math
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import CommandApplied, Evaluated, Snapshot
from engine.training.diagnostics.detector import DiskReading, Finding, GpuReading, Recovered
from engine.training.diagnostics.disk_space import DiskSpace
from engine.training.diagnostics.forgetting import Forgetting
from engine.training.diagnostics.gradients import ExplodingGradients, VanishingGradients
from engine.training.diagnostics.idle_gpu import NUM_READINGS, IdleGpu
from engine.training.diagnostics.loss_spike import LossSpike
from engine.training.diagnostics.rising_validation import RisingValidation
from engine.training.diagnostics.unigram_model import UnigramModel
from tests.support.diagnoses import STARTED, diagnoses, evaluations, first_finding, norms, setup, step, steps

LEVEL = tuple(80 + 4 * math.sin(number) for number in range(30))
RISING = (200, 80, 60, 70, 80, 90, 100, 110, 120, 130, 140)
TRAINING_RISES_TOO = [
    event
    for number, evaluated in enumerate(evaluations(200, 80, 60, 70, 80, 90, 95))
    for event in (step(100 * number + 1, train_perplexity=evaluated.valid_perplexity), evaluated)
]
BASE = {"init": "base", "lr": 0.01}
EARLY = [0.3] * 20


def unigram(*perplexities, lr=0.01):
    return [STARTED, step(1, 200, lr=lr), *evaluations(*perplexities)]


def trained_to(train_perplexity):
    before, after = evaluations(151, 150)
    return [STARTED, before, step(1, train_perplexity), after]


def evaluated_every(steps, epochs, number):
    events = [Evaluated(steps * index, epochs * index, 150.0, False, 1.0) for index in range(number)]
    return [STARTED, step(1, 200), *events]


def gpu(utilization, number=NUM_READINGS):
    return [STARTED, step(1), *[GpuReading(utilization)] * number]


RISING_MESSAGE = "from its best, 60.0 at epoch 2.0, to 63.1 in 4 evaluations; the model overfits"
RISING_REMEDY = "lotr-tui stop r keeps the best model; next time --set patience=4"
LOW_NORM = "norm is 2.9e-04, after about 3.0e-01"
UNIGRAM_MESSAGE = "a unigram model has 150.0"


@pytest.mark.parametrize(
    ("detector", "observations", "values", "index", "message", "remedy"),
    [
        (RisingValidation, evaluations(200, 80, 60, 61, 62, 62.9, 63.1), {}, 6, RISING_MESSAGE, RISING_REMEDY),
        (RisingValidation, TRAINING_RISES_TOO, {"lr": 0.015}, 13, "training perplexity rises too", "--set lr=0.005"),
        # Averaging is due to start before.
        (RisingValidation, evaluations(*RISING), {"averaging": "nt_asgd", "nonmonotone_interval": 4}, 10, "", ""),
        (LossSpike, steps(*LEVEL, 170, 175), {}, 31, "jumped from about 80", "--set lr=0.0033"),
        (LossSpike, steps(*LEVEL, 170, 175), {"clip": 0.0}, 31, "", "--set clip=1"),
        (Forgetting, evaluations(25, 28), BASE, 1, "was 25.0 before it", "--set lr=0.0033"),
        (Forgetting, evaluations(25, 60), BASE, 1, "was 25.0 before it", "--set lr=0.001"),
        (Forgetting, evaluations(25, 25.6, 25.7), BASE, 2, "was 25.0 before it", "--set lr=0.0033"),
        (Forgetting, evaluations(25, 25.1, 27, 26), BASE, 3, "was 25.0 before it", "--set lr=0.0033"),
        # Undone by a learning rate that is still rising.
        (Forgetting, evaluations(87, 62, 96), BASE, 2, "was 87.0 before it", "--set lr=0.0033"),
        (VanishingGradients, norms(*EARLY, *[0.00029] * 20), {}, 39, LOW_NORM, ""),
        (VanishingGradients, norms(*[0.0] * 20), {"weight_decay": 10.0}, 19, "", "--set weight_decay=0.1"),
        (VanishingGradients, norms(*[0.0] * 20), {"optimizer": "sgd"}, 19, "", "--set optimizer=adamw"),
        (VanishingGradients, norms(*[0.0] * 20), {"num_layers": 8}, 19, "", "--set num_layers=4"),
        (ExplodingGradients, norms(*[11.0] * 36), {"clip": 0.5}, 35, "", ""),
        # The notebook: the first epoch learns the frequencies, the second nothing.
        (UnigramModel, unigram(2000, 149, 147), {}, 4, UNIGRAM_MESSAGE, ""),
        (UnigramModel, unigram(151, 150.5), {}, 3, UNIGRAM_MESSAGE, "--epochs 300, since 100 steps are few"),
        (UnigramModel, unigram(151, 900, 2000), {}, 3, UNIGRAM_MESSAGE, ""),
        (UnigramModel, trained_to(106), {}, 3, "", ""),
        (UnigramModel, evaluated_every(50, 0.25, 5), {}, 6, "", ""),
        (UnigramModel, evaluated_every(10, 1.0, 11), {}, 12, "", ""),
        (IdleGpu, gpu(0.49), {"batch_size": 10, "bptt": 25}, NUM_READINGS + 1, "", "--set batch_size=20"),
        (IdleGpu, gpu(0.05), {"batch_size": 10, "bptt": 25}, NUM_READINGS + 1, "", "--set batch_size=40"),
        (IdleGpu, gpu(0.4), {"batch_size": 60, "bptt": 100}, NUM_READINGS + 1, "", "--device cpu"),  # too short a text
    ],
)
def test_a_problem_is_found_with_its_numbers_and_a_remedy(detector, observations, values, index, message, remedy):
    found = first_finding(detector(), observations, **values)
    assert found is not None
    assert found[0] == index
    assert message in found[1].message
    assert remedy in found[1].remedy


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"validation_metric": "notebook", "schedule": "plateau"}, "--set validation_metric=perplexity"),
        ({"lr": 0.00001}, "--set lr=0.003"),
        ({"lr": 1.0, "weight_decay": 0.0}, "--set lr=0.003"),
        ({"weight_decay": 10.0}, "--set weight_decay=0.1"),
        ({"optimizer": "sgd"}, "--set lr=10"),
        ({"optimizer": "adam", "weight_decay": 0.01}, "--set optimizer=adamw"),
        ({"input_dropout": 0.95, "output_dropout": 0.4}, "--set input_dropout=0.4"),
    ],
)
def test_remedy_for_a_unigram_model_fits_the_settings(values, remedy):
    values = {"lr": 0.01, **values}
    _, finding = first_finding(UnigramModel(), unigram(151, 150, lr=values["lr"]), **values)
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("detector", "observations", "values"),
    [
        (RisingValidation, evaluations(200, 80, 60, 70, 80, 90), {}),  # three evaluations can be noise
        (RisingValidation, evaluations(200, 80, 60, 61, 62, 62.9, 62.9, 62.9), {}),  # 4.8 %
        (RisingValidation, evaluations(200, 80, 60, 66, 65, 64.5, 64, 63.5), {}),  # above 5 %, but falling again
        (RisingValidation, evaluations(60, 99, 98, 97, 96, 95), {}),  # only worse than before the first step
        (RisingValidation, evaluations(200, 80, 60, *[math.nan] * 5), {}),
        (RisingValidation, evaluations(*RISING), {"patience": 3}),  # stops by itself
        (LossSpike, steps(*LEVEL, 170, 81, 170, 80), {}),  # lasts a single report
        (LossSpike, steps(*LEVEL, 150, 150, 150), {}),
        (LossSpike, steps(*LEVEL[:19], 500, 500), {}),  # the start of a training
        (LossSpike, steps(*(40 * 4 ** (number % 3) for number in range(60))), {}),  # always varies by a factor of 16
        (Forgetting, evaluations(25, 26, 24, 27, 27), BASE),
        (Forgetting, evaluations(25, 25.4, 25.4, 25.4), BASE),
        (Forgetting, evaluations(25, 26, 25.1, 26), BASE),
        (Forgetting, evaluations(math.nan, 30, 40), BASE),
        (Forgetting, evaluations(25, 60, 70), {}),  # random weights have nothing to forget
        (VanishingGradients, norms(*EARLY, *[0.00031] * 50), {}),
        (VanishingGradients, norms(*EARLY, *[0.00029] * 19, 0.3, *[0.00029] * 19), {}),
        # A memorized text.
        (VanishingGradients, [step(number, 1.01, 0.3 if number < 20 else 1e-5) for number in range(80)], {}),
        (ExplodingGradients, norms(*[9.9] * 80), {"clip": 0.5}),
        (ExplodingGradients, norms(*[11.0, 11.0, 11.0, 0.2] * 30), {"clip": 0.5}),
        (ExplodingGradients, norms(*[11.0] * 35), {"clip": 0.5}),
        (ExplodingGradients, norms(*[1e9] * 80), {"clip": 0.0}),
        (UnigramModel, unigram(2000, 160, 140, 120), {}),
        (UnigramModel, unigram(151, 142, 141.9), {}),
        (UnigramModel, unigram(2000, 180, 170, 160), {}),
        (UnigramModel, trained_to(104), {}),  # overfitted
        (UnigramModel, evaluated_every(50, 0.25, 4), {}),
        (UnigramModel, evaluated_every(10, 1.0, 10), {}),  # few steps
        (UnigramModel, unigram(151, 150, 150, lr=0.002), {"lr": 0.01}),  # a warm-up that has hardly begun
        (IdleGpu, gpu(0.51), {}),
        (IdleGpu, gpu(0.0, NUM_READINGS - 1), {}),
        (
            IdleGpu,
            [
                *(STARTED, *[GpuReading(0.0)] * NUM_READINGS, step(1), *[GpuReading(0.9)] * 60),
                *(CommandApplied(1, 0.1, "pause", ""), *[GpuReading(0.0)] * NUM_READINGS),
                *(CommandApplied(1, 0.1, "resume", ""), step(2), *[GpuReading(0.2)] * 59),
            ],
            {},
        ),
    ],
)
def test_what_is_no_problem_is_not_reported(detector, observations, values):
    assert first_finding(detector(), observations, **values) is None


def test_disk_is_full_before_a_checkpoint_fails_and_again_after_it_had_room():
    detector, training, outcomes = DiskSpace(), setup(optimizer="adamw", averaging="ema"), []
    for observation in (
        STARTED,
        DiskReading(23_000_000),  # the estimate is 5 copies of a million parameters, and a margin
        DiskReading(21_000_000),
        Snapshot(3, bytes(1000)),
        DiskReading(1_500),
        DiskReading(2_300),
        DiskReading(1_000),
    ):
        detector, outcome = detector.observe(observation, training)
        outcomes.append(type(outcome) if outcome is not None else None)
    assert outcomes == [None, None, Finding, None, None, Recovered, Finding]


@settings(max_examples=25)
@given(
    noise=st.lists(st.lists(st.floats(-1, 1), min_size=8, max_size=8), min_size=3, max_size=30),
    start=st.floats(140, 5000),
    end=st.floats(5, 100),
    norm=st.floats(0.05, 4),
    init=st.sampled_from(["", "base"]),
)
def test_healthy_decreasing_noisy_curve_never_alarms(noise, start, end, norm, init):
    """Losses fall exponentially with 20 % noise in each report, 1 % in each evaluation, and norms within a factor 4."""
    observations, number = [STARTED, Evaluated(0, 0.0, start, True, 0.0)], 0
    for epoch, values in enumerate(noise, 1):
        level = end + (start - end) * math.exp(-epoch)
        for value in values:
            number += 1
            observations.append(step(number, level * (1 + 0.2 * value), norm * 2**value))
        observations.append(Evaluated(number, float(epoch), level * (1 + 0.01 * values[0]), True, 0.0))
    readings = (GpuReading(0.8), DiskReading(10**9))
    assert diagnoses(chain.from_iterable((each, *readings) for each in observations), init=init) == []
