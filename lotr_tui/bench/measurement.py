"""Results of measurements with their limits, and their computation from several runs."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """A measured value, the runs it was computed from, and its optional limits."""

    name: str
    unit: str
    value: float
    """Median of the runs, or the percentile that `name` states."""
    runs: tuple[float, ...]
    upper_limit: float | None = None
    lower_limit: float | None = None

    @property
    def is_within_limits(self) -> bool | None:
        """True if the value respects its limits; None if it has none."""
        if self.upper_limit is None and self.lower_limit is None:
            return None
        return (self.upper_limit is None or self.value <= self.upper_limit) and (
            self.lower_limit is None or self.value >= self.lower_limit
        )


@dataclass(frozen=True)
class SkippedMeasurement:
    """A measurement that this machine does not allow."""

    name: str
    reason: str


def median_of_runs(
    name: str, unit: str, runs: Sequence[float], upper_limit: float | None = None, lower_limit: float | None = None
) -> Measurement:
    """Return the median of `runs` as a measurement."""
    return Measurement(name, unit, statistics.median(runs), tuple(runs), upper_limit, lower_limit)


def latency_percentile(
    name: str, seconds: Sequence[float], upper_limit: float | None = None, percent: int = 95
) -> Measurement:
    """Return a percentile of latencies in milliseconds. The name states the percentile and the number of latencies."""
    runs = tuple(1000 * value for value in sorted(seconds))
    value = nearest_rank_quantile(runs, percent / 100)
    return Measurement(f"{name}, p{percent} of {len(runs)}", "ms", value, runs, upper_limit)


def nearest_rank_quantile(sorted_values: Sequence[float], fraction: float) -> float:
    """Return the smallest of the sorted values that is at least as large as `fraction` of them."""
    rank = -int(-fraction * len(sorted_values) // 1)  # rounded up
    return sorted_values[max(1, rank) - 1]


def alternate(candidate: Callable[[], float], baseline: Callable[[], float], repeat: int) -> list[tuple[float, float]]:
    """Measure a candidate and a baseline in turn, and return `repeat` pairs.

    The order within the pairs alternates too, so that both see the same load of the machine.
    """
    candidate(), baseline()  # not counted: the first run reads files from the disk
    return [(baseline(), candidate())[::-1] if number % 2 else (candidate(), baseline()) for number in range(repeat)]


def compare(
    name: str,
    baseline_name: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    upper_limit: float | None = None,
    *,
    ratio_upper_limit: float | None = None,
    ratio_lower_limit: float | None = None,
) -> Iterator[Measurement]:
    """Yield the medians of a candidate and of its baseline, and the median of the ratios within the pairs."""
    yield median_of_runs(name, unit, [ours for ours, _ in pairs], upper_limit)
    yield median_of_runs(baseline_name, unit, [reference for _, reference in pairs])
    ratios = [ours / reference for ours, reference in pairs]
    yield median_of_runs(f"ratio of {name} to {baseline_name}", "", ratios, ratio_upper_limit, ratio_lower_limit)


def measure_tokens_per_second(generate: Callable[[], int], min_seconds: float) -> float:
    """Call `generate` for at least `min_seconds`, and return tokens per second of CPU time.

    CPU time is less disturbed by other processes than elapsed time, and generation never waits. `generate` returns its
    number of tokens; its first call is not counted.
    """
    generate()
    num_tokens, started = 0, time.process_time()
    while True:
        num_tokens += generate()
        seconds = time.process_time() - started
        if seconds and seconds >= min_seconds:
            return num_tokens / seconds
