"""How a curve is looked at: what runs along the axes, and which part of it is seen. Pure values."""

import math
from dataclasses import dataclass, replace
from typing import Literal

Along = Literal["epoch", "update", "time"]
FIELDS: dict[Along, str] = {"epoch": "epoch", "update": "step", "time": "seconds"}
"""The field of `Step` and `Evaluated` that runs along the axis."""
MOVES = 8
"""A part that follows the latest moves by so much of its width at once, so that the picture rests in between."""


@dataclass(frozen=True)
class ChartAxes:
    """All of a curve, a part that stays, or the last part, which goes on with the training."""

    along: Along = "epoch"
    logarithmic: bool = True
    """Whether the perplexities are."""
    width: float | None = None
    """Of the part that is seen, in units of what runs along; None: all is."""
    right: float | None = None
    """Where it ends; None: it follows the latest."""

    def part(self, whole: float, latest: float) -> tuple[float, float]:
        """The part that is seen of 0 to `whole`, where the curve goes as far as `latest`."""
        if self.width is None or self.width >= whole:
            return 0.0, whole
        right = self.right
        if right is None:
            move = self.width / MOVES
            right = math.ceil(latest / move) * move
        right = min(max(right, self.width), whole)
        return right - self.width, right

    def zoomed(
        self, factor: float, about: float | None, whole: float, latest: float, least: float = 0.0
    ) -> "ChartAxes":
        """So much of the width is seen, but not less than `least`, and more than all is all.

        What is at `about` keeps its place. Without that the latest is kept in sight, if it is.
        """
        left, right = self.part(whole, latest)
        width = max((right - left) * factor, min(least, right - left))
        if width >= whole:
            return replace(self, width=None, right=None)
        if about is None and left <= latest <= right:
            return replace(self, width=width, right=None)
        about = (left + right) / 2 if about is None else min(max(about, left), right)
        left = about - (about - left) / (right - left) * width
        return replace(self, width=width, right=min(max(left + width, width), whole))

    def panned(self, share: float, whole: float, latest: float) -> "ChartAxes":
        """Moved by a share of the width, no further than the ends; at the latest it follows that again."""
        if self.width is None:
            return self
        left, right = self.part(whole, latest)
        moved = min(max(right + share * (right - left), self.width), whole)
        following, _ = replace(self, right=None).part(whole, latest)
        return replace(self, right=None if share > 0 and moved - self.width >= following else moved)

    def showing(self, place: float, whole: float, latest: float) -> "ChartAxes":
        """Moved no further than it takes for `place` to be seen."""
        left, right = self.part(whole, latest)
        if left <= place <= right or self.width is None:
            return self
        moved = place + self.width if place < left else place
        return replace(self, right=min(max(moved, self.width), whole))
