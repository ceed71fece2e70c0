"""Tests that every text input has a maximum length and a steady cursor."""

import pytest
from textual.widgets import Input

from tests.support import scenes
from tests.support.pilot import MakeApp
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
