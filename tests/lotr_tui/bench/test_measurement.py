"""Computation of measurements from runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotr_tui.bench.measurement import (
    Measurement,
    alternate,
    compare,
    latency_percentile,
    measure_tokens_per_second,
    median_of_runs,
    nearest_rank_quantile,
)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.01, 1))
def test_quantile_is_the_smallest_value_that_a_fraction_does_not_exceed(values: list[float], fraction: float) -> None:
    quantile = nearest_rank_quantile(sorted(values), fraction)
    assert quantile in values
    assert sum(value <= quantile for value in values) >= fraction * len(values)
    assert sum(value < quantile for value in values) < fraction * len(values)


def test_latencies_are_in_milliseconds_and_sorted() -> None:
    measurement = latency_percentile("key", [n / 1000 for n in range(100, 0, -1)], 15)
    assert (measurement.name, measurement.unit) == ("key, p95 of 100", "ms")
    assert measurement.value == pytest.approx(95)
    assert measurement.runs == tuple(sorted(measurement.runs))
    assert measurement.is_within_limits is False
    assert latency_percentile("key", [0.001] * 199 + [7], percent=99).value == pytest.approx(1)


def test_limits_are_inclusive_and_unknown_without_a_limit() -> None:
    assert median_of_runs("m", "s", [3, 1, 2], 2) == Measurement("m", "s", 2, (3, 1, 2), 2)
    assert median_of_runs("m", "s", [3, 1, 2], 2).is_within_limits is True
    assert median_of_runs("m", "s", [1]).is_within_limits is None
    assert median_of_runs("m", "", [1], lower_limit=2).is_within_limits is False
    assert median_of_runs("m", "", [2], lower_limit=2).is_within_limits is True
    assert Measurement("m", "", 3, (3,), upper_limit=2, lower_limit=1).is_within_limits is False


def test_candidate_and_baseline_alternate_and_the_first_pair_is_not_counted() -> None:
    order: list[str] = []

    def take(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    candidate_values, baseline_values = [99.0, 2.0, 9.0, 4.0], [99.0, 1.0, 3.0, 4.0]
    pairs = alternate(lambda: take("a", candidate_values), lambda: take("b", baseline_values), repeat=3)
    assert pairs == [(2, 1), (9, 3), (4, 4)]
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_ratios_to_the_baseline_are_computed_within_each_pair() -> None:
    measurements = list(compare("a", "b", "s", [(2, 1), (9, 3), (4, 4)], 5, ratio_upper_limit=2))
    assert [measurement.value for measurement in measurements] == [4, 3, 2]  # the ratios are 2, 3 and 1
    assert [measurement.upper_limit for measurement in measurements] == [5, None, 2]


def test_ratio_to_the_baseline_has_a_lower_limit() -> None:
    *_, ratio = compare("a", "b", "s", [(6, 2)], ratio_lower_limit=4)
    assert (ratio.lower_limit, ratio.is_within_limits) == (4, False)


def test_first_call_is_not_counted_in_tokens_per_second() -> None:
    calls: list[int] = []

    def generate() -> int:
        calls.append(1)
        return 7

    assert measure_tokens_per_second(generate, 0) > 0
    assert len(calls) >= 2
