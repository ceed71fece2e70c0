"""Sampler panel: keys and typed texts set the sampler settings."""

from dataclasses import replace

import numpy as np
import pytest
from textual import on
from textual.widgets import Static

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from lotr_tui.session.settings import PRETRAINED_SAMPLER
from lotr_tui.widgets.sampler_panel import CUSTOM_PRESET, SAMPLER_PRESETS, SamplerPanel
from lotr_tui.widgets.slider import TemperatureSlider
from tests.support.app import ThemedApp
from tests.support.pilot import text_of

ALL_CHANGED = SamplerSettings(
    repetition_penalty=1.2, temperature=1.25, top_k=40, top_p=0.95, min_p=0.05, max_tokens=120
)


class PanelApp(ThemedApp):
    """App with a panel that records the settings of each change."""

    def __init__(self, settings=SamplerSettings()):  # noqa: B008
        super().__init__()
        self._settings = settings
        self.changes: list[SamplerSettings] = []

    def compose(self):
        yield SamplerPanel(self._settings)

    @property
    def panel(self):
        return self.query_one(SamplerPanel)

    @on(SamplerPanel.Changed)
    def record_change(self):
        self.changes.append(self.panel.settings)


def shown(app, name):
    return text_of(app.query_one(name, Static))


async def test_keys_and_texts_set_the_settings_and_each_change_is_posted_once():
    app = PanelApp()
    async with app.run_test(size=(160, 20)) as pilot:
        app.query_one(TemperatureSlider).focus()
        await pilot.press("right")
        await pilot.pause()
        assert app.changes == [SamplerSettings(temperature=0.85)]
        texts = {"top_k": "40", "top_p": " .95", "min_p": "0.05", "repetition_penalty": "1.2", "temperature": "1.25"}
        app.panel.set_texts({**texts, "max_tokens": "120", "seed": "77"})
        await pilot.pause()
        assert (app.panel.settings, app.panel.seed, app.query_one(TemperatureSlider).value) == (ALL_CHANGED, 77, 1.25)
        assert app.changes[1:] == [ALL_CHANGED]
        assert shown(app, "#chain") == f"custom   {ALL_CHANGED.describe()}"
        assert shown(app, "#run") == "seed 77   120 words"
        assert app.panel.texts() == {
            "top_k": "40", "top_p": "0.95", "min_p": "0.05", "repetition_penalty": "1.2", "max_tokens": "120",
            "seed": "77",
        }  # fmt: skip
        app.panel.set_texts(dict.fromkeys(app.panel.texts(), ""))
        assert (app.panel.settings, app.panel.seed) == (SamplerSettings(temperature=1.25), None)


async def test_texts_of_any_settings_set_them_again():
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
            texts = app.panel.texts()
            app.panel.apply(SamplerSettings(temperature=settings.temperature))
            app.panel.set_texts(texts)
            await pilot.pause()
            assert app.panel.settings == app.changes[-1] == settings


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("top_p", "7.5", "top-p 7.5 is out of range"), ("min_p", "2", "min-p 2.0 is out of range"),
        ("max_tokens", "0", "max-tokens 0 is out of range"), ("top_k", "many", "'many' is not a whole number"),
        ("seed", "9999999999999999999", "seed 9999999999999999999 is out of range"), ("seed", "last", "'last' is not"),
        ("temperature", "hot", "'hot' is not a number"),
    ],
)  # fmt: skip
async def test_invalid_texts_change_nothing(name, text, error):
    app = PanelApp(ALL_CHANGED)
    async with app.run_test(size=(160, 20)):
        with pytest.raises(InvalidInputError, match=error):
            app.panel.set_texts({"min_p": "0.3", name: text} if name != "min_p" else {name: text})
        assert (app.panel.settings, app.panel.seed) == (ALL_CHANGED, None)


async def test_presets_keep_the_maximum_length():
    app = PanelApp(SamplerSettings(top_k=3, max_tokens=77))
    async with app.run_test(size=(80, 20)) as pilot:
        assert app.panel.preset == CUSTOM_PRESET
        app.panel.apply(PRETRAINED_SAMPLER)
        assert app.panel.preset == "conversation"  # one can return to it from another preset
        app.panel.apply(SamplerSettings(top_k=3, max_tokens=77))
        for name, preset in SAMPLER_PRESETS.items():
            app.panel.apply_preset(name)
            assert app.panel.settings == replace(preset, max_tokens=77)
            assert app.panel.preset == name
            assert shown(app, "#chain").startswith(f"{name}   ")
            await pilot.pause()


async def test_random_seed_is_shown_and_can_be_fixed():
    app = PanelApp()
    async with app.run_test(size=(60, 20)):
        assert app.panel.seed is None
        seed = app.panel.draw_seed()
        assert shown(app, "#run") == f"random seed {seed}   30 words"
        app.panel.set_texts({"seed": "last"})
        assert app.panel.seed == seed == app.panel.draw_seed()
        app.panel.set_texts({"seed": "random"})
        assert app.panel.seed is None
