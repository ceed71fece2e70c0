"""The reports of a training as columns of numbers: a million of them take 64 MB, and are drawn without a loop."""

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.events import Step

Floats = npt.NDArray[np.float64]
NAMES = tuple(item.name for item in fields(Step))
FIRST_ROOM = 1024


class StepColumns:
    """Reports in the order of their updates. Rows are added at the end, and taken away there by a resume."""

    def __init__(self) -> None:
        self._values = np.empty((len(NAMES), FIRST_ROOM))
        self._length = 0
        self.forgets = 0
        """How often reports were taken away: what was computed from them is then of no use."""

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def __eq__(self, other: object) -> bool:
        """Whether both have the same reports."""
        same: bool = isinstance(other, StepColumns) and np.array_equal(
            self._values[:, : self._length], other._values[:, : other._length], equal_nan=True
        )
        return same

    __hash__ = None  # type: ignore[assignment]

    def append(self, event: Step) -> None:
        """Add one."""
        self.extend(np.array([[getattr(event, name)] for name in NAMES], np.float64))

    def extend(self, values: Floats) -> None:
        """Add many: `[field, report]`, the fields in the order of `NAMES`."""
        needed = self._length + values.shape[1]
        if needed > self._values.shape[1]:
            self.reserve(max(needed, 2 * self._values.shape[1]))
        self._values[:, self._length : needed] = values
        self._length = needed

    @property
    def room(self) -> int:
        """How many there can be before room for more has to be made."""
        return self._values.shape[1]

    def reserve(self, reports: int) -> None:
        """Make room for so many in all: to make it when half a million are there holds the screen up for 0.2 s.

        Room that is not used yet takes no memory.
        """
        if reports > self._values.shape[1]:
            grown = np.empty((len(NAMES), reports))
            grown[:, : self._length] = self._values[:, : self._length]
            self._values = grown

    def forget_from(self, step: int) -> None:
        """Take away those of this update and later ones."""
        self.forgets += 1
        self._length = int(np.searchsorted(self.column("step"), step))

    def column(self, name: str) -> Floats:
        """All values `[report]` of a field of `Step`; not a copy."""
        return self._values[NAMES.index(name), : self._length]

    @property
    def last(self) -> Step | None:
        """The latest report."""
        if not self._length:
            return None
        values: dict[str, Any] = dict(zip(NAMES, self._values[:, self._length - 1].tolist(), strict=True))
        return Step(**{**values, "step": int(values["step"])})
