"""Training steps as columns of a NumPy array: a million steps take 64 MB and are drawn without a Python loop."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from operator import attrgetter

import numpy as np

from engine.data.arrays import Float64Array
from engine.events import Step, TrainingEvent

STEP_FIELDS = tuple(item.name for item in fields(Step))
CHUNK_SIZE = 10_000  # steps per array; as events they take ten times the memory
MAX_PERPLEXITY = 1e300  # from which a value is treated as missing
BLOCK_SIZE = 32  # values that are smoothed by one row of a matrix product
SMOOTHED_STEPS = 256 * BLOCK_SIZE  # at once; larger temporary arrays are allocated again, which takes ten times as long
RecordItem = Float64Array | TrainingEvent  # steps `[field, step]`, or an event of another type


def group_steps(events: Iterable[TrainingEvent]) -> Iterator[RecordItem]:
    """Yield events in order, consecutive steps as arrays `[field, step]`."""
    values_of = attrgetter(*STEP_FIELDS)
    steps: list[tuple[float, ...]] = []
    for event in events:
        is_step = isinstance(event, Step)
        if is_step:
            steps.append(values_of(event))
        if steps and (not is_step or len(steps) >= CHUNK_SIZE):
            yield np.array(steps, np.float64).T
            steps = []
        if not is_step:
            yield event
    if steps:
        yield np.array(steps, np.float64).T


class StepColumns:
    """Growing array of `Step` events `[field, step]`, ordered by step; a resume removes steps from the end."""

    def __init__(self) -> None:
        self._values = np.empty((len(STEP_FIELDS), 1024))
        self._length = 0
        self.rewind_count = 0  # values computed from earlier steps are then obsolete

    def __len__(self) -> int:
        return self._length

    def append(self, event: Step) -> None:
        self.extend(np.array([[getattr(event, name)] for name in STEP_FIELDS], np.float64))

    def extend(self, values: Float64Array) -> None:
        """Append steps `[field, step]`, with the fields in the order of `STEP_FIELDS`."""
        needed = self._length + values.shape[1]
        if needed > self._values.shape[1]:
            self.reserve(max(needed, 2 * self._values.shape[1]))
        self._values[:, self._length : needed] = values
        self._length = needed

    def reserve(self, capacity: int) -> None:
        """Allocate memory for `capacity` steps in all; memory that is not used yet is not resident.

        Growing an array of half a million steps later would block the screen for 0.2 s.
        """
        if capacity > self._values.shape[1]:
            grown = np.empty((len(STEP_FIELDS), capacity))
            grown[:, : self._length] = self._values[:, : self._length]
            self._values = grown

    def rewind(self, step: int) -> None:
        """Remove `step` and later steps."""
        self.rewind_count += 1
        self._length = int(np.searchsorted(self.column("step"), step))

    def column(self, name: str) -> Float64Array:
        """Return a view of the values `[step]` of a field of `Step`."""
        return self._values[STEP_FIELDS.index(name), : self._length]

    @property
    def last(self) -> Step | None:
        if not self._length:
            return None
        step, *values = self._values[:, self._length - 1].tolist()
        return Step(int(step), *values)


class SmoothedPerplexity:
    """Exponential moving average of the base-10 logarithm of the training perplexity, updated incrementally."""

    def __init__(self, decay: float) -> None:
        """Smooth with `decay`, the weight of the previous mean in each new mean."""
        self._decay = decay
        self._source: tuple[StepColumns, int] | None = None
        self._values, self._length, self._mean = np.empty(0), 0, math.nan

    def compute(self, steps: StepColumns) -> Float64Array:
        """Return the smoothed values `[step]`; NaN if the perplexity is not a positive number."""
        if self._source is None or self._source[0] is not steps or self._source[1] != steps.rewind_count:
            self._source, self._length, self._mean = (steps, steps.rewind_count), 0, math.nan
        if len(steps) > len(self._values):
            self._values = np.concatenate([self._values[: self._length], np.empty(2 * len(steps) - self._length)])
        perplexities = steps.column("train_perplexity")
        while self._length < len(steps):
            chunk = slice(self._length, min(self._length + SMOOTHED_STEPS, len(steps)))
            logs = log10_or_nan(perplexities[chunk])
            self._values[chunk], self._mean = exponential_moving_average(logs, self._decay, self._mean)
            self._length = chunk.stop
        return self._values[: self._length]


def log10_or_nan(values: Float64Array) -> Float64Array:
    """Return base-10 logarithms; NaN for values that are not in (0, `MAX_PERPLEXITY`)."""
    valid = (values > 0) & (values < MAX_PERPLEXITY)
    return np.log10(values, where=valid, out=np.full(len(values), np.nan))


def exponential_moving_average(
    values: Float64Array, decay: float, initial_mean: float = math.nan
) -> tuple[Float64Array, float]:
    """Return the exponential moving average after each of `values` `[time]`, and the last average.

    Values that are not finite are skipped, and their average is NaN. `decay` is the weight of the previous average.
    Without an `initial_mean`, the average starts with the first finite value.
    """
    finite = np.isfinite(values)
    known = values[finite]
    if not len(known):
        return np.full(len(values), np.nan), initial_mean
    mean = float(known[0]) if math.isnan(initial_mean) else initial_mean
    blocks = np.zeros((-(-len(known) // BLOCK_SIZE), BLOCK_SIZE))
    blocks.ravel()[: len(known)] = known
    powers = decay ** np.arange(BLOCK_SIZE + 1)
    age = np.subtract.outer(np.arange(BLOCK_SIZE), np.arange(BLOCK_SIZE))
    weights = np.where(age >= 0, (1 - decay) * powers[np.maximum(age, 0)], 0.0)
    block_means = blocks @ weights.T  # average of each block if the average before the block were 0
    means_before = np.empty(len(blocks))
    for block, block_end in enumerate(block_means[:, -1].tolist()):
        means_before[block] = mean
        mean = powers[-1] * mean + block_end
    smoothed = (block_means + np.outer(means_before, powers[1:])).ravel()[: len(known)]
    result = np.full(len(values), np.nan)
    result[finite] = smoothed
    return result, float(smoothed[-1])
