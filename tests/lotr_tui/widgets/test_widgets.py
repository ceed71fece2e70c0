"""Widgets by themselves."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from lotr_tui.app import LotrApp
from lotr_tui.formatting import duration
from lotr_tui.widgets.charts.plotting import draw_curve, linear_ticks, log_ticks
from lotr_tui.widgets.temperature_slider import TemperatureSlider, typed_temperature

MakeApp = Callable[..., LotrApp]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["right"], 0.85),
        (["left", "left"], 0.7),
        (["home"], 0.0),
        (["end"], 2.0),
        (["end", "right"], 2.0),
        (["home", "left"], 0.0),
        (["7"], 0.7),
        (["1"], 1.0),
        (["1", ".", "2", "5"], 1.25),
        (["8", "5"], 0.85),
        (["0"], 0.0),
    ],
)
async def test_slider_keys(keys: list[str], value: float) -> None:
    class Alone(App[None]):
        def compose(self) -> ComposeResult:
            yield TemperatureSlider(0.8)

    app = Alone()
    async with app.run_test() as pilot:
        slider = app.screen.query_one(TemperatureSlider)
        slider.focus()
        await pilot.press(*keys)
        assert slider.value == pytest.approx(value)


async def test_slider_click_and_drag(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 30)) as pilot:
        slider = app.screen.query_one(TemperatureSlider)
        line = str(slider.render())
        left, right = line.index("├") + 1, line.index("┤") - 1
        await pilot.click(slider, offset=(left, 0))
        assert slider.value == 0.0
        await pilot.click(slider, offset=(right, 0))
        assert slider.value == 2.0
        await pilot.mouse_down(slider, offset=(right, 0))
        await pilot.hover(slider, offset=((left + right) // 2, 0))
        await pilot.mouse_up(slider, offset=((left + right) // 2, 0))
        assert slider.value == pytest.approx(1.0, abs=0.05)


@given(st.text("0123456789.", min_size=1, max_size=4).filter(lambda text: text.count(".") <= 1))
def test_whatever_is_typed_is_a_temperature(digits: str) -> None:
    assert typed_temperature(digits) >= 0


@given(st.floats(1.5, 5000), st.floats(1.05, 1000), st.integers(2, 12))
def test_log_ticks_are_few_round_and_on_the_axis(low: float, ratio: float, most: int) -> None:
    ticks = log_ticks(low, low * ratio, most)
    assert len(ticks) <= most
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.floats(-1000, 1000), st.floats(0.01, 5000), st.integers(1, 15))
def test_linear_ticks_are_few_and_evenly_spaced(low: float, extent: float, most: int) -> None:
    ticks = linear_ticks(low, low + extent, most)
    assert len(ticks) <= most
    if len(ticks) > 2:
        assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])


def test_ticks_of_a_usual_training() -> None:
    assert log_ticks(66, 1100, 8) == [100, 200, 500, 1000]
    assert log_ticks(66, 160, 8) == [80, 100, 120, 140, 160]
    assert linear_ticks(0, 40, 8) == [0, 10, 20, 30, 40]


def as_text(cells: np.ndarray) -> list[str]:
    return ["".join(chr(0x2800 + int(cell)) for cell in row) for row in cells]


def test_a_falling_line_in_braille() -> None:
    line = draw_curve(np.array([0.0, 1.0]), np.array([1.0, 0.0]), (0, 1), (0, 1), rows=1, columns=2)
    assert as_text(line) == ["\u2811\u2884"]  # a dot in each of four rows, from the left top to the right bottom


def test_a_flat_line_stays_in_its_row_and_within_its_ends() -> None:
    x, y = np.array([0.0, 0.5]), np.array([1.0, 1.0])
    cells = draw_curve(x, y, (0, 1), (0, 1), rows=2, columns=4)
    assert as_text(cells) == ["\u2809\u2809\u2801\u2800", "\u2800" * 4]


def test_a_steep_line_has_no_gap() -> None:
    cells = draw_curve(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.0]), (0, 1), (0, 1), rows=8, columns=4)
    assert all(row.any() for row in cells)


def test_what_is_not_finite_parts_a_curve() -> None:
    x = np.linspace(0, 1, 9)
    y = np.full(9, 0.5)
    y[3:6] = [np.nan, np.inf, np.nan]
    cells = draw_curve(x, y, (0, 1), (0, 1), rows=1, columns=8)[0]
    assert cells[0]
    assert cells[-1]
    assert not cells[4]


def test_what_is_out_of_range_is_cut_off() -> None:
    cells = draw_curve(np.array([0.0, 1.0]), np.array([5.0, 5.0]), (0, 1), (0, 1), rows=2, columns=4)
    assert not cells[1].any()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (42.4, "0:42"), (185, "3:05"), (3723, "1:02:03"), (-1, "0:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
