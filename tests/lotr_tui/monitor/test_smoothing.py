"""Exponential moving average of the training perplexity."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotr_tui.monitor.smoothing import (
    BLOCK_SIZE,
    CHUNK_SIZE,
    SmoothedPerplexity,
    exponential_moving_average,
    log10_or_nan,
)
from lotr_tui.monitor.step_columns import STEP_FIELDS, StepColumns
from tests.support.metrics import make_step

log_perplexities = st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf])


def reference_average(values: list[float], decay: float) -> list[float]:
    """Compute the moving average one value at a time."""
    mean, means = math.nan, []
    for value in values:
        if not math.isfinite(value):
            means.append(math.nan)
            continue
        mean = value if math.isnan(mean) else decay * mean + (1 - decay) * value
        means.append(mean)
    return means


@given(
    st.lists(log_perplexities, max_size=4 * BLOCK_SIZE),
    st.sampled_from([0.0, 0.85, 0.97, 0.995]),
    st.integers(0, 4 * BLOCK_SIZE),
)
def test_moving_average_equals_the_reference_in_one_call_and_in_two(
    values: list[float], decay: float, cut: int
) -> None:
    expected = reference_average(values, decay)
    complete, _ = exponential_moving_average(np.array(values, float), decay)
    first, mean = exponential_moving_average(np.array(values[:cut], float), decay)
    second, _ = exponential_moving_average(np.array(values[cut:], float), decay, mean)
    assert complete.tolist() == pytest.approx(expected, nan_ok=True)
    assert [*first.tolist(), *second.tolist()] == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), max_size=8))
def test_smoothing_stays_correct_after_appends_and_rewinds(changes: list[tuple[bool, int]]) -> None:
    steps, smoothed = StepColumns(), SmoothedPerplexity(0.85)
    for is_append, number in changes:
        if is_append:
            first = len(steps) + 1
            for step in range(first, first + number):
                steps.append(make_step(step))
        else:
            steps.rewind(number)
        expected = reference_average(log10_or_nan(steps.column("train_perplexity")).tolist(), 0.85)
        assert smoothed.compute(steps).tolist() == pytest.approx(expected, nan_ok=True)


def test_smoothing_in_chunks_equals_one_call() -> None:
    steps, smoothed = StepColumns(), SmoothedPerplexity(0.85)
    values = np.random.default_rng(0).uniform(50, 150, 2 * CHUNK_SIZE + 7)
    for part in np.split(values, [5, CHUNK_SIZE + 100]):
        steps.extend(np.tile(part, (len(STEP_FIELDS), 1)))
        expected, _ = exponential_moving_average(log10_or_nan(values[: len(steps)]), 0.85)
        np.testing.assert_allclose(smoothed.compute(steps), expected, rtol=1e-12)


def test_invalid_perplexities_have_no_logarithm() -> None:
    logarithms = log10_or_nan(np.array([100.0, 0.0, -5.0, math.nan, math.inf, 1e304]))
    assert logarithms[0] == 2
    assert np.isnan(logarithms[1:]).all()
