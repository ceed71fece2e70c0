"""Temperature slider: keys, mouse and typed numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from lotr_tui.widgets.temperature_slider import TemperatureSlider, parse_temperature
from tests.support.pilot import MakeApp


class SliderApp(App[None]):
    def compose(self) -> ComposeResult:
        yield TemperatureSlider(0.8)


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
async def test_keys_set_the_temperature(keys: list[str], value: float) -> None:
    app = SliderApp()
    async with app.run_test() as pilot:
        slider = app.screen.query_one(TemperatureSlider)
        slider.focus()
        await pilot.press(*keys)
        assert slider.value == pytest.approx(value)


async def test_click_and_drag_set_the_temperature(make_app: MakeApp) -> None:
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
def test_any_typed_digits_are_a_temperature(digits: str) -> None:
    assert parse_temperature(digits) >= 0
