"""Sampler panel: the controls set the sampler settings, by keyboard and by mouse."""

from dataclasses import replace

import numpy as np
import pytest
from textual import on
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from lotr_tui.theme import SHIRE, SHIRE_LIGHT
from lotr_tui.widgets.preset_picker import CUSTOM_PRESET, SAMPLER_PRESETS, PresetPicker
from lotr_tui.widgets.sampler_panel import SamplerPanel
from lotr_tui.widgets.temperature_slider import TemperatureSlider

ALL_CHANGED = SamplerSettings(
    repetition_penalty=1.2, temperature=1.25, top_k=40, top_p=0.95, min_p=0.05, max_tokens=120
)


class PanelApp(App[None]):
    """App with a panel that records the settings, or the error, of each change."""

    CSS = "Input { border: none; height: 1; }"
    BINDINGS = [  # noqa: RUF012
        ("f6", "panel('toggle_all')", "all"),
        ("f5", "panel('step_preset(1)')", "preset"),
        ("f9", "panel('toggle_fixed_seed')", "fix"),
    ]

    def __init__(self, settings: SamplerSettings = SamplerSettings()) -> None:  # noqa: B008
        super().__init__()
        self.register_theme(SHIRE)
        self.register_theme(SHIRE_LIGHT)
        self.theme = SHIRE.name
        self._settings = settings
        self.changes: list[SamplerSettings | str] = []

    async def action_panel(self, action: str) -> None:
        await self.query_one(SamplerPanel).run_action(action)

    def compose(self) -> ComposeResult:
        yield Input(id="prompt")
        yield SamplerPanel(self._settings)

    @property
    def panel(self) -> SamplerPanel:
        return self.query_one(SamplerPanel)

    @on(SamplerPanel.Changed)
    def record_change(self) -> None:
        try:
            self.changes.append(self.panel.settings())
        except InvalidInputError as error:
            self.changes.append(str(error))


def field(app: App[None], name: str) -> Input:
    return app.query_one(f"#{name} Input", Input)


def summary(app: App[None]) -> str:
    return str(app.query_one("#chain", Static).render())


async def type_into(pilot: Pilot[None], name: str, text: str) -> None:
    field(pilot.app, name).focus()
    await pilot.press(*("full_stop" if character == "." else character for character in text))


async def test_each_control_sets_its_setting() -> None:
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


async def test_applied_settings_are_returned_unchanged() -> None:
    rng = np.random.default_rng(0)
    app = PanelApp()
    async with app.run_test(size=(80, 20)) as pilot:
        for _ in range(60):
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


async def test_applying_settings_posts_one_change() -> None:
    app = PanelApp()
    async with app.run_test(size=(80, 20)) as pilot:
        app.panel.apply(ALL_CHANGED)
        await pilot.pause()
        assert app.panel.settings() == ALL_CHANGED
        assert app.changes == [ALL_CHANGED]
        app.panel.apply(ALL_CHANGED)
        await pilot.pause()
        assert len(app.changes) == 1
        app.panel.apply(SamplerSettings())
        await pilot.pause()
        assert app.panel.settings() == SamplerSettings()


INVALID = [
    ("top_p", "7.5", "top-p 7.5 is out of range"),
    ("top_p", "0", "top-p 0.0 is out of range"),
    ("min_p", "2", "min-p 2.0 is out of range"),
    ("repetition_penalty", "0", "repetition-penalty 0.0 is out of range"),
    ("max_tokens", "0", "max-tokens 0 is out of range"),
    ("seed", "9999999999999999999", "seed 9999999999999999999 is out of range"),
]


async def test_invalid_input_is_marked_and_kept() -> None:
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
            app.panel.action_step_preset(1)
            await pilot.pause()
            if name in ("max_tokens", "seed"):  # presets do not set these
                assert field(app, name).value == text
                assert control.has_class("-invalid")
                field(app, name).value = ""
                await pilot.pause()
            assert not control.has_class("-invalid")
            assert summary(app) == app.panel.settings().describe()


async def test_fields_accept_only_digits() -> None:
    app = PanelApp()
    async with app.run_test(size=(160, 20)) as pilot:
        await type_into(pilot, "top_k", "4x-2e")
        await type_into(pilot, "top_p", "0.9.1")
        assert (field(app, "top_k").value, field(app, "top_p").value) == ("42", "0.91")


async def test_presets_cycle_and_keep_the_maximum_length() -> None:
    app = PanelApp(SamplerSettings(top_k=3, max_tokens=77))
    async with app.run_test(size=(80, 20)) as pilot:
        assert app.panel.preset == CUSTOM_PRESET
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
        app.query_one(TemperatureSlider).value = 0.33
        await pilot.pause()
        assert "custom" in str(picker.render())
        await pilot.press("left")
        await pilot.pause()
        assert app.panel.preset == "notebook 1.0"


async def test_clicks_select_presets() -> None:
    app = PanelApp(SAMPLER_PRESETS["careful"])
    async with app.run_test(size=(80, 20)) as pilot:
        await pilot.click(PresetPicker, offset=(6, 0))
        await pilot.pause()
        assert app.panel.preset == "chat"
        await pilot.click(PresetPicker, offset=(0, 0))
        await pilot.pause()
        assert app.panel.preset == "careful"


async def test_random_seed_is_shown_and_can_be_fixed() -> None:
    app = PanelApp()
    async with app.run_test(size=(60, 20)) as pilot:
        assert app.panel.seed() is None
        app.panel.show_random_seed(481_516)
        assert field(app, "seed").placeholder == "random 481516"
        await pilot.press("f9")
        assert app.panel.seed() == 481_516
        await pilot.press("f9")
        assert app.panel.seed() is None


async def test_seed_stays_random_if_none_was_used_yet() -> None:
    app = PanelApp()
    async with app.run_test(size=(60, 20)):
        app.panel.action_toggle_fixed_seed()
        assert app.panel.seed() is None


CONTROLS = ["temperature", "seed", "max_tokens", "top_k", "top_p", "min_p", "repetition_penalty", "preset", "chain"]


@pytest.mark.parametrize(
    ("width", "rows", "num_visible", "all_rows"), [(60, 1, 3, 3), (80, 2, 5, 3), (100, 2, 5, 2), (200, 2, 5, 2)]
)
async def test_all_controls_are_reachable_at_any_width(width: int, rows: int, num_visible: int, all_rows: int) -> None:
    app = PanelApp()
    async with app.run_test(size=(width, 20)) as pilot:
        await pilot.pause()

        def visible() -> list[str]:
            """Return the visible controls, none of which may be cut off."""
            names = []
            for name in CONTROLS:
                widget = app.query_one(f"#{name}")
                if widget.region.area:
                    assert app.screen.region.contains_region(widget.region), name
                    names.append(name)
            return names

        assert (app.panel.size.height, len(visible())) == (rows, num_visible)
        app.query_one(TemperatureSlider).focus()
        await pilot.press("f6")
        await pilot.pause()
        assert (app.panel.size.height, visible()) == (all_rows, CONTROLS)
        assert field(app, "top_k").has_focus
        await pilot.press("f6")
        await pilot.pause()
        assert (app.panel.size.height, len(visible())) == (rows, num_visible)


@pytest.mark.parametrize("size", [(20, 5), (1, 1)])
async def test_tiny_terminal(size: tuple[int, int]) -> None:
    app = PanelApp()
    async with app.run_test(size=size) as pilot:
        app.query_one(TemperatureSlider).focus()
        await pilot.press("f6", "f5", "right", "tab", "1", "tab", "2")
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert app.changes
