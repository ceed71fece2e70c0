"""Chart functions: braille curves, decimation, axis ticks, and the visible range."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import Started, Step
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.charts import PerplexityChart, braille_curve, column_means, linear_ticks, log_ticks

values_and_gaps = st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf])


def as_text(cells):
    return ["".join(chr(0x2800 + int(cell)) for cell in row) for row in cells]


class TestCharts:
    def test_falling_line_has_a_dot_in_each_row_of_dots(self):
        cells = braille_curve(np.array([0.0, 1.0]), np.array([1.0, 0.0]), (0, 1), (0, 1), rows=1, columns=2)
        assert as_text(cells) == ["\u2811\u2884"]

    def test_single_value_between_two_gaps_is_a_dot(self):
        y = np.array([1.0, 1.0, math.nan, 0.0, math.nan, 1.0])
        cells = braille_curve(np.arange(6.0), y, (0, 5), (0, 1), rows=1, columns=3)
        assert as_text(cells) == ["\u2809\u2880\u2808"]

    @given(st.lists(values_and_gaps, max_size=2000), st.integers(5, 60))
    def test_a_curve_of_means_has_one_point_per_column_with_the_mean_of_its_finite_values(self, values, columns):
        x, y = np.arange(len(values), dtype=float), np.array(values, float)
        mean_x, mean_y = column_means(x, y, (0.0, 2000.0), columns)
        finite = np.isfinite(y)
        assert len(mean_x) == len(mean_y) <= columns
        assert np.all(np.diff(mean_x) > 0)
        if finite.sum() > columns:
            cells = np.floor(x[finite] / 2000 * columns)
            assert mean_y.tolist() == pytest.approx([y[finite][cells == cell].mean() for cell in np.unique(cells)])

    @settings(max_examples=25)
    @given(st.integers(0, 99_999), st.integers(10, 80))
    def test_single_spike_among_100000_steps_is_drawn_in_its_column(self, position, columns):
        x, y = np.arange(100_000, dtype=float), np.zeros(100_000)
        y[position] = 1.0
        x_range = (0.0, 99_999.0)
        cells = braille_curve(x, y, x_range, (0.0, 1.0), 4, columns)
        spike_columns = np.flatnonzero(cells[0])
        assert len(spike_columns) > 0
        assert abs(spike_columns - position / 99_999 * (columns - 1)).max() <= 1
        assert (cells[3] > 0).all()

    @given(st.floats(1.5, 5000), st.floats(1.05, 1000), st.integers(3, 12))
    def test_log_ticks_show_the_scale_and_are_few(self, low, ratio, max_ticks):
        ticks = log_ticks(low, low * ratio, max_ticks)
        assert 3 <= len(ticks) <= max(max_ticks, 7)
        assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)
        assert ticks == sorted(set(ticks))

    @given(st.floats(-1000, 1000), st.floats(0.01, 5000), st.integers(3, 15))
    def test_linear_ticks_show_the_scale_are_few_and_evenly_spaced(self, low, extent, max_ticks):
        ticks = linear_ticks(low, low + extent, max_ticks)
        assert 3 <= len(ticks) <= max(max_ticks, 7)
        assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])

    @given(st.floats(0.01, 200), st.integers(0, 100), st.none() | st.floats(0, 100))
    def test_the_visible_epochs_stay_within_the_axis_and_hold_the_cursor_or_latest_value(self, width, epoch, cursor):
        left, right = chart_at(epoch, width, cursor).x_range
        assert -1e-9 <= left < right <= 100
        assert left - 1e-9 <= (epoch if cursor is None else cursor) <= right + 1e-9
        assert right - left == pytest.approx(min(width, 100))

    def test_the_visible_epochs_follow_the_latest_value_in_steps(self):
        ranges = [chart_at(latest, 20.0).x_range for latest in (59, 60, 61, 62, 63, 90)]
        assert ranges == [(40, 60), (40, 60), (42.5, 62.5), (42.5, 62.5), (45, 65), (70, 90)]


def chart_at(epoch, width, cursor=None):
    chart, view = PerplexityChart(), TrainingView()
    chart.cursor = cursor
    view.apply(Started("tiny", "tiny", 1, 1, 1, 1, 100, "cpu", "", 150.0, 90.0))
    view.apply(Step(1, float(epoch), 90.0, 0.006, 0.2, 9_800.0, 1.0, 1.0))
    chart.show(view)
    chart.visible_epochs = width
    return chart
