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


def test_rising_validation_is_reported_with_its_best_and_the_evaluations_since():
    result = first_finding(RisingValidation(), evaluations(200, 80, 60, 61, 62, 62.9, 63.1), output_dropout=0.5)
    assert result is not None
    index, finding = result
    assert index == 6
    assert "from its best, 60.0 at epoch 2.0, to 63.1 in 4 evaluations; the model overfits" in finding.message
    assert finding.remedy == "lotr-tui stop r keeps the best model; next time --set patience=4"


@pytest.mark.parametrize(
    "perplexities",
    [
        (200, 80, 60, 70, 80, 90),  # three evaluations can be noise
        (200, 80, 60, 61, 62, 62.9, 62.9, 62.9),  # 4.8 %
        (200, 80, 60, 66, 65, 64.5, 64, 63.5),  # above 5 %, but falling again
        (60, 99, 98, 97, 96, 95),  # only worse than the weights before the first step
        (200, 80, 60, *[math.nan] * 5),
    ],
)
def test_validation_that_hardly_rises_or_falls_again_is_not_reported(perplexities):
    assert first_finding(RisingValidation(), evaluations(*perplexities)) is None


def test_training_that_stops_by_itself_needs_no_advice_to_stop():
    rising = evaluations(200, 80, 60, 70, 80, 90, 100, 110, 120, 130, 140)
    assert first_finding(RisingValidation(), rising, patience=3) is None
    late = first_finding(RisingValidation(), rising, averaging="nt_asgd", nonmonotone_interval=4)
    assert late is not None
    assert late[0] == 10  # averaging is due to start before


def test_training_perplexity_that_rises_too_points_to_the_learning_rate():
    events = []
    for number, event in enumerate(evaluations(200, 80, 60, 70, 80, 90, 95)):
        events += [step(100 * number + 1, train_perplexity=event.valid_perplexity), event]
    result = first_finding(RisingValidation(), events, lr=0.015)
    assert result is not None
    assert "training perplexity rises too" in result[1].message
    assert "--set lr=0.005" in result[1].remedy


# --- loss spikes ------------------------------------------------------------------------------------------------

LEVEL = tuple(80 + 4 * math.sin(number) for number in range(30))


def test_doubled_training_perplexity_is_a_spike_unless_it_lasts_a_single_report():
    assert first_finding(LossSpike(), steps(*LEVEL, 170, 81, 170, 80)) is None
    result = first_finding(LossSpike(), steps(*LEVEL, 170, 175))
    assert result is not None
    assert "jumped from about 80" in result[1].message
    assert "--set lr=0.0033" in result[1].remedy
    unclipped = first_finding(LossSpike(), steps(*LEVEL, 170, 175), clip=0.0)
    assert unclipped is not None
    assert "--set clip=1" in unclipped[1].remedy
    assert first_finding(LossSpike(), steps(*LEVEL, 150, 150, 150)) is None


def test_start_of_a_training_and_losses_that_always_vary_have_no_spikes():
    assert first_finding(LossSpike(), steps(*LEVEL[:19], 500, 500)) is None
    varying = [40 * 4 ** (number % 3) for number in range(60)]  # a factor of 16 between reports
    assert first_finding(LossSpike(), steps(*varying)) is None


@pytest.mark.parametrize(
    ("perplexities", "index", "lr"),
    [
        ((25, 28), 1, "0.0033"),
        ((25, 60), 1, "0.001"),
        ((25, 25.6, 25.7), 2, "0.0033"),
        ((25, 25.1, 27, 26), 3, "0.0033"),
        ((87, 62, 96), 2, "0.0033"),  # undone by a learning rate that is still rising
    ],
)
def test_model_that_gets_worse_than_its_initial_weights_is_reported(perplexities, index, lr):
    result = first_finding(Forgetting(), evaluations(*perplexities), init="base", lr=0.01)
    assert result is not None
    assert result[0] == index
    assert f"was {perplexities[0]:.1f} before it" in result[1].message
    assert result[1].remedy.endswith(f"--set lr={lr}")


@pytest.mark.parametrize(
    "perplexities", [(25, 26, 24, 27, 27), (25, 25.4, 25.4, 25.4), (25, 26, 25.1, 26), (math.nan, 30, 40)]
)
def test_model_that_is_hardly_worse_or_was_better_forgets_nothing(perplexities):
    assert first_finding(Forgetting(), evaluations(*perplexities), init="base") is None


def test_random_weights_have_nothing_to_forget():
    assert first_finding(Forgetting(), evaluations(25, 60, 70)) is None


def test_gradients_vanish_if_their_norm_stays_a_thousand_times_lower():
    early = [0.3] * 20
    assert first_finding(VanishingGradients(), norms(*early, *[0.00031] * 50)) is None
    assert first_finding(VanishingGradients(), norms(*early, *[0.00029] * 19, 0.3, *[0.00029] * 19)) is None
    result = first_finding(VanishingGradients(), norms(*early, *[0.00029] * 20))
    assert result is not None
    assert "norm is 2.9e-04, after about 3.0e-01" in result[1].message
    assert first_finding(VanishingGradients(), norms(*[0.0] * 20)) is not None


def test_small_gradients_of_a_memorized_text_are_natural():
    memorized = [step(number, 1.01, 0.3 if number < 20 else 1e-5) for number in range(80)]
    assert first_finding(VanishingGradients(), memorized) is None


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"weight_decay": 10.0, "lr": 0.01}, "--set weight_decay=0.1"),
        ({"optimizer": "sgd", "weight_decay": 0.0}, "--set optimizer=adamw"),
        ({"num_layers": 8}, "--set num_layers=4"),
    ],
)
def test_remedy_for_vanishing_gradients_fits_the_settings(values, remedy):
    result = first_finding(VanishingGradients(), norms(*[0.0] * 20), **values)
    assert result is not None
    assert remedy in result[1].remedy


def test_gradients_explode_if_nearly_all_are_clipped_by_a_large_factor():
    assert first_finding(ExplodingGradients(), norms(*[9.9] * 80), clip=0.5) is None
    assert first_finding(ExplodingGradients(), norms(*[11.0, 11.0, 11.0, 0.2] * 30), clip=0.5) is None
    assert first_finding(ExplodingGradients(), norms(*[11.0] * 35), clip=0.5) is None
    assert first_finding(ExplodingGradients(), norms(*[11.0] * 36), clip=0.5) is not None
    assert first_finding(ExplodingGradients(), norms(*[1e9] * 80), clip=0.0) is None


@pytest.mark.parametrize(
    ("perplexities", "index"),
    [
        ((2000, 149, 147), 2),  # the notebook: the first epoch learns the frequencies, the second nothing
        ((151, 150.5), 1),
        ((151, 900, 2000), 1),
    ],
)
def test_model_as_bad_as_the_unigram_model_is_reported_once_it_stops_to_improve(perplexities, index):
    events = [STARTED, step(1, 200), *evaluations(*perplexities)]
    result = first_finding(UnigramModel(), events)
    assert result is not None
    assert result[0] == index + 2
    assert "a unigram model has 150.0" in result[1].message


@pytest.mark.parametrize("perplexities", [(2000, 160, 140, 120), (151, 142, 141.9), (151, 130), (2000, 180, 170, 160)])
def test_model_that_improves_or_uses_the_context_is_no_unigram_model(perplexities):
    assert first_finding(UnigramModel(), [STARTED, step(1, 200), *evaluations(*perplexities)]) is None


def test_overfitted_model_is_no_unigram_model():
    before, after = evaluations(151, 150)
    assert first_finding(UnigramModel(), [STARTED, before, step(1, 104), after]) is None
    assert first_finding(UnigramModel(), [STARTED, before, step(1, 106), after]) is not None


def test_evaluations_within_an_epoch_and_a_warm_up_that_has_hardly_begun_are_too_early():
    within = [Evaluated(50 * number, number / 4, 150.0, False, 1.0) for number in range(5)]
    assert first_finding(UnigramModel(), [STARTED, step(1, 200), *within[:4]]) is None
    assert first_finding(UnigramModel(), [STARTED, step(1, 200), *within]) is not None
    few_steps = [Evaluated(10 * number, float(number), 150.0, False, 1.0) for number in range(11)]
    assert first_finding(UnigramModel(), [STARTED, step(1, 200), *few_steps[:10]]) is None
    assert first_finding(UnigramModel(), [STARTED, step(1, 200), *few_steps]) is not None
    assert first_finding(UnigramModel(), [STARTED, step(1, 200), step(2, 200, lr=0.0004), *few_steps[:2]]) is not None
    warm_up = [STARTED, step(1, 200, lr=0.002), *evaluations(151, 150, 150)]
    assert first_finding(UnigramModel(), warm_up, lr=0.01) is None


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"validation_metric": "notebook", "schedule": "plateau"}, "--set validation_metric=perplexity;"),
        ({"lr": 0.00001}, "--set lr=0.003;"),
        ({"lr": 1.0, "weight_decay": 0.0}, "--set lr=0.003;"),
        ({"lr": 0.01, "weight_decay": 10.0}, "--set weight_decay=0.1;"),
        ({"lr": 0.01, "optimizer": "sgd"}, "--set lr=10;"),
        ({"lr": 0.01, "optimizer": "adam", "weight_decay": 0.01}, "--set optimizer=adamw;"),
        ({"input_dropout": 0.95, "output_dropout": 0.4}, "--set input_dropout=0.4"),
        ({}, "--epochs 300, since 100 steps are few"),
    ],
)
def test_remedy_for_a_unigram_model_fits_the_settings(values, remedy):
    events = [STARTED, step(1, 200, lr=values.get("lr", 0.01)), *evaluations(151, 150)]
    result = first_finding(UnigramModel(), events, **values)
    assert result is not None
    assert remedy in result[1].remedy + ";"


def readings(utilization, number=NUM_READINGS):
    return [GpuReading(utilization)] * number


@pytest.mark.parametrize(("utilization", "is_idle"), [(0.49, True), (0.51, False), (0.05, True), (0.97, False)])
def test_gpu_is_idle_if_its_mean_utilization_is_less_than_half(utilization, is_idle):
    result = first_finding(IdleGpu(), [STARTED, step(1), *readings(utilization)], batch_size=10, bptt=25)
    assert (result is not None) == is_idle
    if result is not None:
        factor = 2 if utilization > 0.25 else 4
        assert f"--set batch_size={10 * factor}" in result[1].remedy


def test_gpu_is_not_idle_before_the_first_step_in_a_pause_and_after_few_readings():
    pause, resume = CommandApplied(1, 0.1, "pause", ""), CommandApplied(1, 0.1, "resume", "")
    observations = [
        *(STARTED, *readings(0.0), step(1), *readings(0.9, 60)),
        *(pause, *readings(0.0), resume, step(2), *readings(0.2, 59)),
    ]
    assert first_finding(IdleGpu(), observations) is None
    assert first_finding(IdleGpu(), [STARTED, step(1), *readings(0.0, NUM_READINGS - 1)]) is None


def test_text_too_short_for_larger_steps_is_advised_to_use_the_cpu():
    result = first_finding(IdleGpu(), [STARTED, step(1), *readings(0.4)], batch_size=60, bptt=100)
    assert result is not None
    assert "--device cpu" in result[1].remedy
    assert "batch_size" not in result[1].remedy


def test_disk_is_full_before_a_checkpoint_fails_and_again_after_it_had_room():
    detector, training = DiskSpace(), setup(optimizer="adamw", averaging="ema")
    outcomes = []
    observations = [
        STARTED,
        DiskReading(23_000_000),  # the estimate is 5 copies of a million parameters, and a margin
        DiskReading(21_000_000),
        Snapshot(3, bytes(1000)),
        DiskReading(1_500),
        DiskReading(2_300),
        DiskReading(1_000),
    ]
    for observation in observations:
        detector, outcome = detector.observe(observation, training)
        outcomes.append(type(outcome) if outcome is not None else None)
    assert outcomes == [None, None, Finding, None, None, Recovered, Finding]


# --- healthy trainings ------------------------------------------------------------------------------------------

NOISE = st.floats(-1, 1)


@settings(max_examples=60, deadline=None)
@given(
    noise=st.lists(st.lists(NOISE, min_size=8, max_size=8), min_size=3, max_size=40),
    start=st.floats(140, 5000),
    end=st.floats(5, 100),
    norm=st.floats(0.05, 4),
    init=st.sampled_from(["", "base"]),
)
def test_healthy_decreasing_noisy_curve_never_alarms(noise, start, end, norm, init):
    """Losses fall exponentially with 20 % noise in each report, 1 % in each evaluation, and norms within a factor 4."""
    observations = [STARTED, Evaluated(0, 0.0, start, True, 0.0)]
    number = 0
    for epoch, values in enumerate(noise, 1):
        level = end + (start - end) * math.exp(-epoch)
        for value in values:
            number += 1
            observations.append(step(number, level * (1 + 0.2 * value), norm * 2**value))
        valid = level * (1 + 0.01 * values[0])
        observations.append(Evaluated(number, float(epoch), valid, True, 0.0))
    interleaved = chain.from_iterable(
        (observation, GpuReading(0.8), DiskReading(10**9)) for observation in observations
    )
    assert diagnoses(interleaved, init=init) == []
