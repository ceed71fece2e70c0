"""Sparklines and bars, temperature slider and text inputs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.events import Paste

from lotr_tui.app import iter_binding_tables
from lotr_tui.screens.session.keys import CAST_HINT, CHAT_HINT, HINTS
from lotr_tui.screens.session.transcript import MOUSE_HELP
from lotr_tui.widgets.bars import bar, sparkline
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.slider import TemperatureSlider
from tests.support.app import ThemedApp
from tests.support.pilot import notices, until


class WidgetsApp(ThemedApp):
    def compose(self) -> ComposeResult:
        yield TemperatureSlider(0.8)


@pytest.mark.parametrize(
    ("values", "max_value", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"), ([0, 5, 10], None, "▁▅█"), ([math.nan, 3, math.inf], 3, " █ "),
        ([math.nan, 522, 522.1], None, " ──"), ([-5, 50], 10, "▁█"), ([], None, ""),
    ],
)  # fmt: skip
def test_sparkline(values, max_value, line):
    assert sparkline(values, max_value) == line


@given(st.floats(0, 2), st.integers(1, 30))
def test_a_bar_is_as_long_as_its_value(value, width):
    drawn = bar(value, width)
    eighths = sum(8 if char == "█" else " ▏▎▍▌▋▊▉".index(char) for char in drawn)
    assert eighths == pytest.approx(min(value, 1) * width * 8, abs=0.51)
    assert len(drawn) <= width


async def test_keys_clicks_and_drags_set_the_temperature():
    async with WidgetsApp().run_test(size=(120, 30)) as pilot:
        slider = pilot.app.query_one(TemperatureSlider)
        slider.focus()
        for keys, value in [
            (["right"], 0.85),
            (["end", "right"], 2.0),
            (["home", "right"], 0.05),
        ]:
            await pilot.press(*keys)
            assert slider.value == pytest.approx(value), keys
        line = str(slider.render())
        left, right = line.index("├") + 1, line.index("┤") - 1
        await pilot.click(slider, offset=(left, 0))
        assert slider.value == 0.0
        await pilot.mouse_down(slider, offset=(right, 0))
        assert slider.value == 2.0
        await pilot.hover(slider, offset=((left + right) // 2, 0))
        await pilot.mouse_up(slider, offset=((left + right) // 2, 0))
        assert slider.value == pytest.approx(1.0, abs=0.05)


async def test_text_that_is_too_long_for_an_input_is_refused_with_a_notice(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        field = LineInput("the lamp", max_length=20)
        await pilot.app.screen.mount(field)
        field.focus()
        await pilot.pause()
        field.post_message(Paste("x" * 10_000))
        await until(pilot, lambda: "room for 20 characters, not 10,000" in notices(pilot.app))
        assert field.value == "the lamp"
        field.post_message(Paste(" was lit"))
        await until(pilot, lambda: "was lit" in field.value)


def test_help_of_every_part_fits_a_terminal_of_80_columns():
    texts = [getattr(node_type, "HELP_LINE", "") for node_type, _ in iter_binding_tables()]
    texts += [CAST_HINT, CHAT_HINT, *HINTS, MOUSE_HELP]
    assert len(set(texts)) > 10
    assert [text for text in texts if cell_len(text) > 78] == []
