"""Sampler panel: the controls set the sampler settings, by keyboard and by mouse."""

from dataclasses import replace

import numpy as np
import pytest
from textual import on
from textual.widgets import Input, Static

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from lotr_tui.session.settings import default_model_settings
from lotr_tui.widgets.preset_picker import CUSTOM_PRESET, SAMPLER_PRESETS, PresetPicker
from lotr_tui.widgets.sampler_panel import SamplerPanel
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support.app import ThemedApp

ALL_CHANGED = SamplerSettings(
    repetition_penalty=1.2, temperature=1.25, top_k=40, top_p=0.95, min_p=0.05, max_tokens=120
)


class PanelApp(ThemedApp):
    """App with a panel that records the settings, or the error, of each change."""

    CSS = "Input { border: none; height: 1; }"

    def __init__(self, settings=SamplerSettings()):  # noqa: B008
        super().__init__()
        self._settings = settings
        self.changes: list[SamplerSettings | str] = []

    def compose(self):
        yield Input(id="prompt")
        yield SamplerPanel(self._settings)

    @property
    def panel(self):
        return self.query_one(SamplerPanel)

    @on(SamplerPanel.Changed)
    def record_change(self):
        try:
            self.changes.append(self.panel.settings())
        except InvalidInputError as error:
            self.changes.append(str(error))


def field(app, name):
    return app.query_one(f"#{name} Input", Input)


def summary(app):
    return str(app.query_one("#chain", Static).render())


async def type_into(pilot, name, text):
    field(pilot.app, name).focus()
    await pilot.press(*("full_stop" if character == "." else character for character in text))


async def test_each_control_sets_its_setting():
    app = PanelApp()
    async with app.run_test(size=(160, 20)) as pilot:
        assert app.panel.settings() == SamplerSettings()
        app.query_one(TemperatureSlider).focus()
        await pilot.press("1", "full_stop", "2", "5")
        for name, text in {
            "top_k": "40",
            "top_p": ".95",
            "min_p": "0.05",
            "repetition_penalty": "1.2",
            "max_tokens": "120",
            "seed": "77",
        }.items():
            await type_into(pilot, name, text)
        await pilot.pause()
        assert app.panel.settings() == ALL_CHANGED
        assert app.panel.seed() == 77
        assert app.changes[-1] == ALL_CHANGED
        assert summary(app) == ALL_CHANGED.describe()


async def test_applied_settings_are_returned_unchanged():
    rng = np.random.default_rng(0)
    app = PanelApp()
    async with app.run_test(size=(80, 20)) as pilot:
        for _ in range(5):
            settings = SamplerSettings(
                repetition_penalty=rng.uniform(0.1, 10),
                temperature=int(rng.integers(0, 201)) / 100,
                top_k=int(rng.integers(0, 1_000_000)),
                top_p=1 - rng.random(),
                min_p=10 ** rng.uniform(-9, 0),
                max_tokens=int(rng.integers(1, 1_000_000)),
            )
            app.panel.apply(settings)
            assert app.panel.settings() == settings
            await pilot.pause()
            assert app.changes[-1] == settings


INVALID = [
    ("top_p", "7.5", "top-p 7.5 is out of range"),
    ("min_p", "2", "min-p 2.0 is out of range"),
    ("max_tokens", "0", "max-tokens 0 is out of range"),
    ("seed", "9999999999999999999", "seed 9999999999999999999 is out of range"),
]


async def test_invalid_input_is_marked_and_kept():
    app = PanelApp()
    async with app.run_test(size=(160, 20)) as pilot:
        for name, text, error in INVALID:
            app.panel.apply(SamplerSettings())
            field(app, name).value = ""
            await type_into(pilot, name, text)
            await pilot.pause()
            control = app.query_one(f"#{name}")
            assert control.has_class("-invalid")
            assert error in str(control.tooltip)
            assert error in summary(app)
            with pytest.raises(InvalidInputError, match=error.split()[0]):
                (app.panel.seed if name == "seed" else app.panel.settings)()
            app.panel.apply_preset("careful")
            await pilot.pause()
            if name in ("max_tokens", "seed"):  # presets do not set these
                assert field(app, name).value == text
                assert control.has_class("-invalid")
                field(app, name).value = ""
                await pilot.pause()
            assert not control.has_class("-invalid")
            assert summary(app) == app.panel.settings().describe()


async def test_presets_cycle_and_keep_the_maximum_length():
    app = PanelApp(SamplerSettings(top_k=3, max_tokens=77))
    async with app.run_test(size=(80, 20)) as pilot:
        assert app.panel.preset == CUSTOM_PRESET
        app.panel.apply(default_model_settings(is_pretrained=True, is_chat=False).sampler)
        assert app.panel.preset == "conversation"  # one can return to it from another preset
        app.panel.apply(SamplerSettings(top_k=3, max_tokens=77))
        picker = app.query_one(PresetPicker)
        picker.focus()
        presets = []
        for _ in range(len(SAMPLER_PRESETS) + 1):
            await pilot.press("right")
            await pilot.pause()
            presets.append(app.panel.preset)
            assert app.panel.settings() == replace(SAMPLER_PRESETS[app.panel.preset], max_tokens=77)
            assert app.panel.preset in str(picker.render())
        assert presets == [*SAMPLER_PRESETS, "greedy"]
        await pilot.press("left")
        await pilot.pause()
        assert app.panel.preset == "notebook 1.0"


async def test_random_seed_is_shown_and_can_be_fixed():
    app = PanelApp()
    async with app.run_test(size=(60, 20)):
        assert app.panel.seed() is None
        seed = app.panel.draw_seed()
        assert field(app, "seed").placeholder == f"random {seed}"
        app.panel.set_seed("last")
        assert app.panel.seed() == seed == app.panel.draw_seed()
        app.panel.set_seed("random")
        assert app.panel.seed() is None
