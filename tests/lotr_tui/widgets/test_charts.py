"""Chart functions: braille curves, decimation, axis ticks, and the visible range."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotr_tui.widgets.charts.axes import ChartAxes
from lotr_tui.widgets.charts.plotting import (
    braille_curve,
    column_means,
    decimate,
    linear_ticks,
    log_ticks,
    nice_ceiling,
)

values_and_gaps = st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf])


def as_text(cells):
    return ["".join(chr(0x2800 + int(cell)) for cell in row) for row in cells]


# Braille curves


def test_falling_line_has_a_dot_in_each_row_of_dots():
    cells = braille_curve(np.array([0.0, 1.0]), np.array([1.0, 0.0]), (0, 1), (0, 1), rows=1, columns=2)
    assert as_text(cells) == ["\u2811\u2884"]


def test_single_value_between_two_gaps_is_a_dot():
    y = np.array([1.0, 1.0, math.nan, 0.0, math.nan, 1.0])
    cells = braille_curve(np.arange(6.0), y, (0, 5), (0, 1), rows=1, columns=3)
    assert as_text(cells) == ["\u2809\u2880\u2808"]


# Decimation


@given(st.lists(values_and_gaps, max_size=2000), st.integers(5, 60))
def test_a_curve_of_means_has_one_point_per_column_with_the_mean_of_its_finite_values(values, columns):
    x, y = np.arange(len(values), dtype=float), np.array(values, float)
    mean_x, mean_y = column_means(x, y, (0.0, 2000.0), columns)
    finite = np.isfinite(y)
    assert len(mean_x) == len(mean_y) <= columns
    assert np.all(np.diff(mean_x) > 0)
    if finite.sum() > columns:
        cells = np.floor(x[finite] / 2000 * columns)
        assert mean_y.tolist() == pytest.approx([y[finite][cells == cell].mean() for cell in np.unique(cells)])


@given(st.lists(values_and_gaps, min_size=1, max_size=3000), st.integers(5, 60), st.integers(0, 60), st.integers(2, 60))
def test_decimation_keeps_the_extreme_values_in_order(values, columns, start, width):
    x, y = np.arange(len(values), dtype=float) / 30, np.array(values)
    x_range = (float(start), float(start + width))
    kept_x, kept_y = decimate(x, y, x_range, 2 * columns)
    assert len(kept_x) <= 8 * columns
    assert (np.diff(kept_x) >= 0).all()
    visible = (x >= x_range[0]) & (x <= x_range[1]) & np.isfinite(y)
    finite = kept_y[np.isfinite(kept_y)]
    if visible.any():
        assert finite.min() <= y[visible].min()
        assert finite.max() >= y[visible].max()
    assert set(finite.tolist()) <= set(values)


@settings(max_examples=25)
@given(st.integers(0, 99_999), st.integers(10, 80))
def test_single_spike_among_100000_steps_is_drawn_in_its_column(position, columns):
    x, y = np.arange(100_000, dtype=float), np.zeros(100_000)
    y[position] = 1.0
    x_range = (0.0, 99_999.0)
    cells = braille_curve(*decimate(x, y, x_range, 2 * columns), x_range, (0.0, 1.0), 4, columns)
    spike_columns = np.flatnonzero(cells[0])
    assert len(spike_columns) > 0
    assert abs(spike_columns - position / 99_999 * (columns - 1)).max() <= 1
    assert (cells[3] > 0).all()


# Ticks


@given(st.floats(1.5, 5000), st.floats(1.05, 1000), st.integers(3, 12))
def test_log_ticks_show_the_scale_and_are_few(low, ratio, max_ticks):
    ticks = log_ticks(low, low * ratio, max_ticks)
    assert 3 <= len(ticks) <= max(max_ticks, 7)
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.floats(-1000, 1000), st.floats(0.01, 5000), st.integers(3, 15))
def test_linear_ticks_show_the_scale_are_few_and_evenly_spaced(low, extent, max_ticks):
    ticks = linear_ticks(low, low + extent, max_ticks)
    assert 3 <= len(ticks) <= max(max_ticks, 7)
    assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])


@given(st.floats(0, 1e12))
def test_nice_ceiling_is_at_most_a_quarter_above(value):
    assert value <= nice_ceiling(value) <= max(1.0, value * 1.26)


# Visible range


chart_axes = st.builds(ChartAxes, width=st.none() | st.floats(0.01, 200), right=st.none() | st.floats(-50, 300))
moves = st.lists(st.sampled_from(["zoom in", "zoom out", "left", "right", "scroll to", "zoom at"]), max_size=12)


@given(chart_axes, moves, st.floats(0, 100))
def test_visible_range_stays_within_the_axis_after_any_move(axes, moves, x):
    x_end, x_latest = 100.0, 60.0
    for move in moves:
        before = axes.x_range(x_end, x_latest)
        if move in ("left", "right"):
            axes = axes.panned(0.5 if move == "right" else -0.5, x_end, x_latest)
            after = axes.x_range(x_end, x_latest)
            assert after[1] - after[0] == pytest.approx(before[1] - before[0])
            is_at_end = after == pytest.approx(before, abs=1e-9)
            assert axes.right is None or (after[0] >= before[0] - 1e-9) == (move == "right" or is_at_end)
        elif move == "scroll to":
            axes = axes.scrolled_to(x, x_end, x_latest)
            assert axes.x_range(x_end, x_latest)[0] - 1e-9 <= x <= axes.x_range(x_end, x_latest)[1] + 1e-9
        else:
            anchor = x if move == "zoom at" else None
            axes = axes.zoomed(2.0 if move == "zoom out" else 0.5, anchor, x_end, x_latest, min_width=0.5)
        left, right = axes.x_range(x_end, x_latest)
        assert -1e-9 <= left < right <= x_end + 1e-9


def test_zoom_keeps_the_cursor_at_its_place_on_the_screen():
    axes = ChartAxes().zoomed(0.5, 20, 100, 60)
    assert axes.x_range(100, 60) == (10, 60)
    assert axes.x_range(100, 90) == (10, 60)  # the range does not follow the latest value


def test_zoom_at_the_latest_value_follows_it_in_steps():
    axes = ChartAxes().zoomed(0.5, None, 200, 60).zoomed(0.2, None, 200, 60)
    ranges = [axes.x_range(200, latest) for latest in (59.0, 60.0, 61.0, 62.0, 63.0, 150.0)]
    assert ranges == [(40, 60), (40, 60), (42.5, 62.5), (42.5, 62.5), (45, 65), (130, 150)]


def test_panning_back_stops_following_and_panning_to_the_latest_follows_again():
    axes = ChartAxes(width=20.0)
    panned = axes.panned(-0.5, 200, 60)
    assert panned.x_range(200, 60) == panned.x_range(200, 100) == (30, 50)
    assert panned.panned(0.5, 200, 60) == axes
    assert ChartAxes().panned(1, 200, 60) == ChartAxes()
