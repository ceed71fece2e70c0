"""Bars of block characters, to an eighth of a cell."""

import math
from collections.abc import Sequence

_EIGHTHS: tuple[str, ...] = ("", *"▏▎▍▌▋▊▉")
_HEIGHTS = "▁▂▃▄▅▆▇█"


def bar(share: float, width: int) -> str:
    """A bar over that share of `width` cells, from none of them to all."""
    eighths: int = round(max(0.0, min(share, 1.0)) * width * 8)
    whole, part = divmod(eighths, 8)
    return "█" * whole + _EIGHTHS[part]


def sparkline(values: Sequence[float], top: float | None = None) -> str:
    """A character a value, as high as it is between 0 and `top`, or else the highest; a space for what is no number."""
    known = [value for value in values if math.isfinite(value)]
    top = max(known, default=0.0) if top is None else top
    return "".join(_height(value, top) for value in values)


def _height(value: float, top: float) -> str:
    if not math.isfinite(value):
        return " "
    share = max(0.0, min(value / top, 1.0)) if top > 0 else 0.0
    return _HEIGHTS[min(len(_HEIGHTS) - 1, int(share * len(_HEIGHTS)))]
