"""Training steps as columns of a NumPy array: a million steps take 64 MB and are drawn without a Python loop."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np

from engine.data.arrays import Float64Array
from engine.events import Step, TrainingEvent

STEP_FIELDS = tuple(item.name for item in fields(Step))
INITIAL_CAPACITY = 1024
CHUNK_SIZE = 10_000
"""Steps per array; as events they take ten times the memory."""
RecordItem = Float64Array | TrainingEvent
"""Steps `[field, step]`, or an event of another type."""


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
        self._values = np.empty((len(STEP_FIELDS), INITIAL_CAPACITY))
        self._length = 0
        self.rewind_count = 0
        """Number of times that steps were removed; values computed from earlier steps are then obsolete."""

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._length

    def __eq__(self, other: object) -> bool:
        """Return True if `other` contains the same steps; NaN equals NaN."""
        is_equal: bool = isinstance(other, StepColumns) and np.array_equal(
            self._values[:, : self._length], other._values[:, : other._length], equal_nan=True
        )
        return is_equal

    __hash__ = None  # type: ignore[assignment]

    def append(self, event: Step) -> None:
        """Append one step."""
        self.extend(np.array([[getattr(event, name)] for name in STEP_FIELDS], np.float64))

    def extend(self, values: Float64Array) -> None:
        """Append steps `[field, step]`, with the fields in the order of `STEP_FIELDS`."""
        needed = self._length + values.shape[1]
        if needed > self.capacity:
            self.reserve(max(needed, 2 * self.capacity))
        self._values[:, self._length : needed] = values
        self._length = needed

    @property
    def capacity(self) -> int:
        """Number of steps that fit into the allocated memory."""
        return self._values.shape[1]

    def reserve(self, capacity: int) -> None:
        """Allocate memory for `capacity` steps in all. Memory that is not used yet is not resident.

        Growing an array of half a million steps later would block the screen for 0.2 s.
        """
        if capacity > self.capacity:
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
        """Latest step; None before the first step."""
        if not self._length:
            return None
        values: dict[str, Any] = dict(zip(STEP_FIELDS, self._values[:, self._length - 1].tolist(), strict=True))
        return Step(**{**values, "step": int(values["step"])})
