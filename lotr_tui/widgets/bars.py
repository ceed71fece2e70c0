"""Horizontal bars and sparklines made of Unicode block characters."""

import math
from collections.abc import Sequence

BLOCK_HEIGHTS = "▁▂▃▄▅▆▇█"


def bar(fraction: float, width: int) -> str:
    """Return a bar over `fraction` (0 to 1) of `width` cells, precise to an eighth of a cell."""
    full_cells, remainder = divmod(round(max(0.0, min(fraction, 1.0)) * width * 8), 8)
    return "█" * full_cells + " ▏▎▍▌▋▊▉"[remainder].strip()


def sparkline(values: Sequence[float], max_value: float | None = None) -> str:
    """Return a block per value, from 0 to `max_value` or the largest one; equal values are a line, NaN a space."""
    scale = max((value for value in values if math.isfinite(value)), default=0.0) if max_value is None else max_value
    blocks = ""
    for value in values:
        fraction = max(0.0, min(value / scale, 1.0)) if scale > 0 and math.isfinite(value) else 0.0
        blocks += BLOCK_HEIGHTS[min(7, int(fraction * 8))] if math.isfinite(value) else " "
    heights = set(blocks) - {" "}
    return blocks.replace(heights.pop(), "─") if max_value is None and len(heights) == 1 else blocks
