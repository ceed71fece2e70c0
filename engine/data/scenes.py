"""Scenes: the rules that divide the lines of a corpus into scenes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Int64Array

SCENE_LINES = 20
"""Lines of a block that the split by scenes keeps together."""


@dataclass(frozen=True)
class SceneRules:
    """Rules that say where a scene ends, besides at the end of a file."""

    column: str = ""
    """CSV column whose changes end a scene; empty, or not in the file: none."""
    max_lines: int = SCENE_LINES
    """Number of lines after which a scene ends."""
    block_lines: int | None = SCENE_LINES
    """Number of lines in the blocks that a split holds out whole, and that no scene crosses; None: no blocks."""


class SceneDivider:
    """Division of the lines of one file into scenes."""

    def __init__(self, rules: SceneRules) -> None:
        self._rules = rules
        self._num_lines = self._last_break = 0
        self._last_section = -1

    def find_starts(self, sections: Int64Array) -> npt.NDArray[np.bool_]:
        """Return for each of the next lines if the line starts a scene `[lines]`.

        `sections` `[lines]` is the number of the section of each line: a film, or the text between two empty lines.
        """
        if not len(sections):
            return np.empty(0, np.bool_)
        indices = self._num_lines + np.arange(len(sections))
        is_break = np.diff(sections, prepend=self._last_section) != 0
        if self._rules.block_lines:
            is_break |= indices % self._rules.block_lines == 0
        breaks = np.maximum.accumulate(np.where(is_break, indices, self._last_break))
        self._num_lines += len(sections)
        self._last_section, self._last_break = int(sections[-1]), int(breaks[-1])
        starts: npt.NDArray[np.bool_] = (indices - breaks) % self._rules.max_lines == 0
        return starts
