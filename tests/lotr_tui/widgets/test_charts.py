"""The curve: what is drawn, what is seen of it, and how it is smoothed."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lotr_tui.monitor.smoothing import AT_ONCE, BLOCK, Smoothed, log10, smooth
from lotr_tui.monitor.step_columns import NAMES, StepColumns
from lotr_tui.widgets.charts.axes import ChartAxes
from lotr_tui.widgets.charts.plotting import _with_columns_between, decimate, draw_curve, round_up
from tests.lotr_tui.monitor.test_step_columns import a_step

levels = st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf])
places = st.floats(0, 100)


def naive(values: list[float], share: float) -> list[float]:
    """The running mean, one value at a time."""
    mean, means = math.nan, []
    for value in values:
        if not math.isfinite(value):
            means.append(math.nan)
            continue
        mean = value if math.isnan(mean) else share * mean + (1 - share) * value
        means.append(mean)
    return means


@given(st.lists(levels, max_size=4 * BLOCK), st.sampled_from([0.0, 0.85, 0.97, 0.995]), st.integers(0, 4 * BLOCK))
def test_smoothing_is_the_plain_running_mean_in_one_go_and_in_two(values: list[float], share: float, cut: int) -> None:
    expected = naive(values, share)
    whole, _ = smooth(np.array(values, float), share)
    first, mean = smooth(np.array(values[:cut], float), share)
    second, _ = smooth(np.array(values[cut:], float), share, mean)
    assert whole.tolist() == pytest.approx(expected, nan_ok=True)
    assert [*first.tolist(), *second.tolist()] == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), max_size=8))
def test_what_was_smoothed_is_kept_until_reports_are_taken_away(what: list[tuple[bool, int]]) -> None:
    steps, smoothed = StepColumns(), Smoothed(0.85)
    for adds, number in what:
        if adds:
            first = len(steps) + 1
            for step in range(first, first + number):
                steps.append(a_step(step))
        else:
            steps.forget_from(number)
        expected = naive(log10(steps.column("train_perplexity")).tolist(), 0.85)
        assert smoothed.of(steps).tolist() == pytest.approx(expected, nan_ok=True)


def test_many_reports_are_smoothed_as_in_one_go() -> None:
    steps, smoothed = StepColumns(), Smoothed(0.85)
    values = np.random.default_rng(0).uniform(50, 150, 2 * AT_ONCE + 7)
    for part in np.split(values, [5, AT_ONCE + 100]):
        steps.extend(np.tile(part, (len(NAMES), 1)))
        expected, _ = smooth(log10(values[: len(steps)]), 0.85)
        np.testing.assert_allclose(smoothed.of(steps), expected, rtol=1e-12)


def test_logarithms_of_what_is_no_perplexity_are_none() -> None:
    found = log10(np.array([100.0, 0.0, -5.0, math.nan, math.inf, 1e304]))
    assert found[0] == 2
    assert np.isnan(found[1:]).all()


@given(st.lists(levels, min_size=1, max_size=3000), st.integers(5, 60), st.integers(0, 60), st.integers(2, 60))
def test_thinning_out_keeps_what_all_points_would_draw(
    values: list[float], columns: int, start: int, width: int
) -> None:
    x, y = np.arange(len(values), dtype=float) / 30, np.array(values)
    x_range = (float(start), float(start + width))
    thin_x, thin_y = decimate(x, y, x_range, 2 * columns)
    assert len(thin_x) <= 8 * columns
    assert (np.diff(thin_x) >= 0).all()
    inside = (x >= x_range[0]) & (x <= x_range[1]) & np.isfinite(y)
    kept = thin_y[np.isfinite(thin_y)]
    if inside.any():
        assert kept.min() <= y[inside].min()
        assert kept.max() >= y[inside].max()
    assert set(kept.tolist()) <= set(values)


@given(st.integers(0, 99_999), st.integers(10, 80))
def test_one_spike_among_a_hundred_thousand_reports_is_drawn_in_its_column(place: int, columns: int) -> None:
    x, y = np.arange(100_000, dtype=float), np.zeros(100_000)
    y[place] = 1.0
    x_range = (0.0, 99_999.0)
    cells = draw_curve(*decimate(x, y, x_range, 2 * columns), x_range, (0.0, 1.0), 4, columns)
    top = np.flatnonzero(cells[0])
    assert len(top) > 0
    assert abs(top - place / 99_999 * (columns - 1)).max() <= 1
    assert (cells[3] > 0).all()


def test_a_lone_number_between_two_that_are_none_is_a_dot() -> None:
    y = np.array([1.0, 1.0, math.nan, 0.0, math.nan, 1.0])
    cells = draw_curve(np.arange(6.0), y, (0, 5), (0, 1), rows=1, columns=3)
    assert ["".join(chr(0x2800 + int(cell)) for cell in row) for row in cells] == ["\u2809\u2880\u2808"]


def test_points_of_one_place_are_an_upright_line() -> None:
    cells = draw_curve(np.array([0.0, 0.0]), np.array([0.0, 1.0]), (0, 1), (0, 1), rows=2, columns=2)
    assert cells.tolist() == [[0x47, 0], [0x47, 0]]


@given(st.lists(st.floats(-3, 12) | st.integers(-3, 12).map(float), min_size=1, max_size=20), st.integers(1, 12))
@example([-2.0], 2)
def test_a_line_has_a_point_in_every_column_it_crosses_and_keeps_its_own(across: list[float], columns: int) -> None:
    own = np.sort(np.array(across))
    found, down = _with_columns_between(own, 2 * own, columns)
    crossed = [float(column) for column in range(columns) if own[0] <= column <= own[-1]]
    assert found.tolist() == sorted([*across, *(set(crossed) - set(across))])
    np.testing.assert_allclose(down, 2 * found, atol=1e-9)


def test_a_record_out_of_order_is_drawn_somehow() -> None:
    random = np.random.default_rng(0)
    x, y = random.uniform(-5, 15, 5000), random.normal(size=5000)
    x[::97] = np.nan
    draw_curve(*decimate(x, y, (0, 10), 40), (0, 10), (-1, 1), 5, 20)


axes = st.builds(
    ChartAxes,
    width=st.none() | st.floats(0.01, 200),
    right=st.none() | st.floats(-50, 300),
)


def is_within(part: tuple[float, float], whole: float) -> bool:
    return -1e-9 <= part[0] < part[1] <= whole + 1e-9


@given(axes, st.lists(st.sampled_from(["in", "out", "left", "right", "show", "about"]), max_size=12), places)
def test_however_it_is_moved_a_part_of_the_whole_is_seen(looked: ChartAxes, moves: list[str], place: float) -> None:
    whole, latest = 100.0, 60.0
    for move in moves:
        before = looked.part(whole, latest)
        if move in ("left", "right"):
            looked = looked.panned(0.5 if move == "right" else -0.5, whole, latest)
            after = looked.part(whole, latest)
            assert after[1] - after[0] == pytest.approx(before[1] - before[0])
            stays = after == pytest.approx(before, abs=1e-9)  # it is at an end
            assert looked.right is None or (after[0] >= before[0] - 1e-9) == (move == "right" or stays)
        elif move == "show":
            looked = looked.showing(place, whole, latest)
            assert looked.part(whole, latest)[0] - 1e-9 <= place <= looked.part(whole, latest)[1] + 1e-9
        else:
            about = place if move == "about" else None
            looked = looked.zoomed(2.0 if move == "out" else 0.5, about, whole, latest, least=0.5)
        assert is_within(looked.part(whole, latest), whole)


def test_the_closest_zoom_is_the_least_and_zooming_out_ends_at_all() -> None:
    looked = ChartAxes()
    for _ in range(30):
        looked = looked.zoomed(0.5, None, 100, 60, least=2)
    left, right = looked.part(100, 60)
    assert right - left == pytest.approx(2)
    for _ in range(30):
        looked = looked.zoomed(2, None, 100, 60, least=2)
    assert looked == ChartAxes()


def test_a_zoom_keeps_the_cursor_where_it_is_on_the_screen() -> None:
    looked = ChartAxes().zoomed(0.5, 20, 100, 60)
    assert looked.part(100, 60) == (10, 60)
    assert looked.part(100, 90) == (10, 60)  # and stays there


def test_a_zoom_at_the_tail_follows_it_in_steps() -> None:
    looked = ChartAxes().zoomed(0.5, None, 200, 60).zoomed(0.2, None, 200, 60)
    parts = [looked.part(200, latest) for latest in (59.0, 60.0, 61.0, 62.0, 63.0, 150.0)]
    assert parts == [(40, 60), (40, 60), (42.5, 62.5), (42.5, 62.5), (45, 65), (130, 150)]


def test_panned_back_it_stays_and_panned_on_to_the_latest_it_follows_again() -> None:
    looked = ChartAxes(width=20.0)
    back = looked.panned(-0.5, 200, 60)
    assert back.part(200, 60) == back.part(200, 100) == (30, 50)
    assert back.panned(0.5, 200, 60) == looked
    assert ChartAxes().panned(1, 200, 60) == ChartAxes()


@given(st.floats(0, 1e12))
def test_rounded_up_is_little_above(value: float) -> None:
    assert value <= round_up(value) <= max(1.0, value * 1.26)
