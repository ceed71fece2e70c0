"""What a measurement says: a figure, its runs, and what it is held to."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured figure, and the runs it was made of."""

    name: str
    unit: str
    value: float
    """The median of the runs, or the percentile that `name` tells."""
    runs: tuple[float, ...]
    limit: float | None = None
    """The most that `value` should be; None: it is there to be compared with."""
    least: float | None = None
    """The least that it should be, where more is better."""

    @property
    def within(self) -> bool | None:
        """Whether it keeps to its limits; None where there is none."""
        if self.limit is None and self.least is None:
            return None
        return (self.limit is None or self.value <= self.limit) and (self.least is None or self.value >= self.least)


@dataclass(frozen=True)
class Skipped:
    """A figure that cannot be had here."""

    name: str
    why: str


def median(
    name: str, unit: str, runs: Sequence[float], limit: float | None = None, least: float | None = None
) -> Figure:
    """The median of `runs`."""
    return Figure(name, unit, statistics.median(runs), tuple(runs), limit, least)


def percentile_95(name: str, seconds: Sequence[float], limit: float | None = None) -> Figure:
    """What 95 in 100 of the times stay under, in ms; how many there are is put behind the name."""
    return percentile(95, name, seconds, limit)


def percentile(hundredths: int, name: str, seconds: Sequence[float], limit: float | None = None) -> Figure:
    """What so many in 100 of the times stay under, likewise."""
    runs = tuple(1000 * value for value in sorted(seconds))
    return Figure(f"{name}, p{hundredths} of {len(runs)}", "ms", nearest_rank(runs, hundredths / 100), runs, limit)


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """The least of the values, which are in order, that at least `share` of them do not exceed."""
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(1, rank) - 1]


def paired(
    name: str,
    unit: str,
    ours: Callable[[], float],
    other: Callable[[], float],
    against: str,
    repeat: int,
    limit: float | None = None,
    ratio_limit: float | None = None,
    ratio_least: float | None = None,
) -> Iterator[Figure]:
    """Ours and the other in turn, and which is first too, so that both see the machine as it is; the median ratio."""
    ours(), other()  # once unmeasured: files come from the disk the first time
    pairs = [(other(), ours())[::-1] if number % 2 else (ours(), other()) for number in range(repeat)]
    yield median(name, unit, [a for a, _ in pairs], limit)
    yield median(against, unit, [b for _, b in pairs])
    yield median(f"ratio of {name} to {against}", "", [a / b for a, b in pairs], ratio_limit, ratio_least)


def words_per_second(way: Callable[[], int], seconds: float) -> float:
    """Call `way`, which tells how many words it made, for so long; the first call is not counted.

    Seconds are those of the processor: none of these ways waits, and what else the machine does disturbs less.
    """
    way()
    words, started = 0, time.process_time()
    while True:
        words += way()
        spent = time.process_time() - started
        if spent and spent >= seconds:
            return words / spent
