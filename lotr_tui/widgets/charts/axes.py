"""View of a chart: quantity on the x axis, scale of the y axis, and visible part of the x axis."""

import math
from dataclasses import dataclass, replace
from typing import Literal

XAxis = Literal["epoch", "step", "time"]
X_AXIS_FIELDS: dict[XAxis, str] = {"epoch": "epoch", "step": "step", "time": "seconds"}
"""Field of `Step` and `Evaluated` for each x axis."""
FOLLOW_STEPS_PER_WIDTH = 8
"""Steps in which a view that follows the latest value moves by its own width; between two steps it stays still."""


@dataclass(frozen=True)
class ChartAxes:
    """Axes of a chart. The visible part is everything, a fixed range, or a range that follows the latest value.

    Methods take `x_end`, the end of the complete x axis, and `x_latest`, the position of the latest value. The complete
    axis starts at 0.
    """

    x_axis: XAxis = "epoch"
    log_scale: bool = True
    """True for a logarithmic y axis."""
    width: float | None = None
    """Width of the visible range in units of the x axis; None shows everything."""
    right: float | None = None
    """Right end of the visible range; None follows the latest value."""

    def x_range(self, x_end: float, x_latest: float) -> tuple[float, float]:
        """Return the visible range."""
        if self.width is None or self.width >= x_end:
            return 0.0, x_end
        right = self.right
        if right is None:
            step = self.width / FOLLOW_STEPS_PER_WIDTH
            right = math.ceil(x_latest / step) * step
        right = min(max(right, self.width), x_end)
        return right - self.width, right

    def zoomed(
        self, factor: float, anchor: float | None, x_end: float, x_latest: float, min_width: float = 0.0
    ) -> "ChartAxes":
        """Return the axes with the visible width multiplied by `factor`, but at least `min_width`.

        The position `anchor` keeps its place on the screen. None keeps following the latest value if it is visible, and
        otherwise keeps the centre.
        """
        left, right = self.x_range(x_end, x_latest)
        width = max((right - left) * factor, min(min_width, right - left))
        if width >= x_end:
            return replace(self, width=None, right=None)
        if anchor is None and left <= x_latest <= right:
            return replace(self, width=width, right=None)
        anchor = (left + right) / 2 if anchor is None else min(max(anchor, left), right)
        left = anchor - (anchor - left) / (right - left) * width
        return replace(self, width=width, right=min(max(left + width, width), x_end))

    def panned(self, fraction: float, x_end: float, x_latest: float) -> "ChartAxes":
        """Return the axes moved by `fraction` of the visible width; a view moved to the latest value follows it."""
        if self.width is None:
            return self
        left, right = self.x_range(x_end, x_latest)
        moved = min(max(right + fraction * (right - left), self.width), x_end)
        following_left, _ = replace(self, right=None).x_range(x_end, x_latest)
        return replace(self, right=None if fraction > 0 and moved - self.width >= following_left else moved)

    def scrolled_to(self, x: float, x_end: float, x_latest: float) -> "ChartAxes":
        """Return the axes moved by the shortest distance that makes `x` visible."""
        left, right = self.x_range(x_end, x_latest)
        if left <= x <= right or self.width is None:
            return self
        moved = x + self.width if x < left else x
        return replace(self, right=min(max(moved, self.width), x_end))
