"""Sparklines."""

import math

import pytest

from lotr_tui.widgets.bars import sparkline


@pytest.mark.parametrize(
    ("values", "max_value", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 5, 10], None, "▁▅█"),
        ([math.nan, 3, math.inf], 3, " █ "),
        ([0, 0], None, "──"),
        ([math.nan, 522, 522.1], None, " ──"),
        ([5, 5], 10, "▅▅"),
        ([-5, 50], 10, "▁█"),
        ([], None, ""),
    ],
)
def test_sparkline(values: list[float], max_value: float | None, line: str) -> None:
    assert sparkline(values, max_value) == line
