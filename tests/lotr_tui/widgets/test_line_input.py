"""Tests that every text input has a maximum length and a steady cursor."""

import pytest
from textual.events import Paste
from textual.widgets import Input

from lotr_tui.widgets.line_input import LineInput
from tests.support import scenes
from tests.support.pilot import MakeApp, notices, until
from tests.support.scenes import Scene

SCENES_WITH_INPUTS = [
    scenes.search,
    scenes.controls,
    scenes.ladder,
    scenes.memorization,
    scenes.activations,
    scenes.palette,
    scenes.name_dialog,
    scenes.path_dialog,
    scenes.export_dialog,
    scenes.new_training_dialog,
]


@pytest.mark.parametrize("scene", SCENES_WITH_INPUTS, ids=lambda scene: scene.__name__)
async def test_every_input_has_a_maximum_length_and_a_steady_cursor(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    """Textual measures the whole line at each key, and a blinking cursor sends bytes over SSH all the time."""
    scenes.make_deterministic(monkeypatch)
    async with make_app().run_test(size=(160, 45)) as pilot:
        await scene(pilot)
        inputs = list(pilot.app.screen.query(Input))
        assert inputs
        assert all(each.max_length for each in inputs)
        assert not any(each.cursor_blink for each in inputs)


async def test_pasted_text_that_is_too_long_is_refused_with_a_notice(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        line_input = LineInput("the lamp", max_length=20)
        await pilot.app.screen.mount(line_input)
        line_input.focus()
        await pilot.pause()
        line_input.post_message(Paste("x" * 10_000))
        await until(pilot, lambda: "room for 20 characters, not 10,000" in notices(pilot.app))
        assert line_input.value == "the lamp"
        line_input.post_message(Paste(" was lit"))
        await until(pilot, lambda: "was lit" in line_input.value)
