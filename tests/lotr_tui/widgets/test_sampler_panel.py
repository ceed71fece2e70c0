"""The sampler panel by itself: what it says is what the chain gets, by keyboard and by mouse."""

from dataclasses import replace

import numpy as np
import pytest
from textual import on
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.errors import UnusableInput
from engine.generation.settings import SamplerSettings
from lotr_tui.theme import SHIRE, SHIRE_LIGHT
from lotr_tui.widgets.sampler_panel import PRESETS, PresetPicker, SamplerPanel
from lotr_tui.widgets.temperature_slider import TemperatureSlider

FULL = SamplerSettings(repetition_penalty=1.2, temperature=1.25, top_k=40, top_p=0.95, min_p=0.05, max_tokens=120)


class Around(App[None]):
    """A panel, and what it tells."""

    CSS = "Input { border: none; height: 1; }"
    BINDINGS = [  # noqa: RUF012
        ("f6", "panel('all')", "all"),
        ("f5", "panel('preset(1)')", "preset"),
        ("f9", "panel('hold_seed')", "hold"),
    ]

    async def action_panel(self, action: str) -> None:
        """As the session's keys do."""
        await self.query_one(SamplerPanel).run_action(action)

    def __init__(self, settings: SamplerSettings = SamplerSettings(), theme: str = "shire") -> None:  # noqa: B008
        super().__init__()
        self.register_theme(SHIRE)
        self.register_theme(SHIRE_LIGHT)
        self.theme = theme
        self._settings = settings
        self.told: list[SamplerSettings | str] = []

    def compose(self) -> ComposeResult:
        yield Input(id="prompt")
        yield SamplerPanel(self._settings)

    @property
    def panel(self) -> SamplerPanel:
        return self.query_one(SamplerPanel)

    @on(SamplerPanel.Changed)
    def _told(self) -> None:
        try:
            self.told.append(self.panel.settings())
        except UnusableInput as error:
            self.told.append(str(error))


def field(app: App[None], name: str) -> Input:
    return app.query_one(f"#{name} Input", Input)


def chain(app: App[None]) -> str:
    return str(app.query_one("#chain", Static).render())


async def type_in(pilot: Pilot[None], name: str, text: str) -> None:
    field(pilot.app, name).focus()
    await pilot.press(*("full_stop" if c == "." else c for c in text))


async def test_each_control_is_its_field_of_the_settings() -> None:
    app = Around()
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
            await type_in(pilot, name, text)
        await pilot.pause()
        assert app.panel.settings() == FULL
        assert app.panel.seed() == 77
        assert app.told[-1] == FULL
        assert chain(app) == FULL.chain()


async def test_what_was_kept_comes_back() -> None:
    random = np.random.default_rng(0)
    app = Around()
    async with app.run_test(size=(80, 20)) as pilot:
        for _ in range(60):
            kept = SamplerSettings(
                repetition_penalty=random.uniform(0.1, 10),
                temperature=int(random.integers(0, 201)) / 100,
                top_k=int(random.integers(0, 1_000_000)),
                top_p=1 - random.random(),
                min_p=10 ** random.uniform(-9, 0),
                max_tokens=int(random.integers(1, 1_000_000)),
            )
            app.panel.apply(kept)
            assert app.panel.settings() == kept
            await pilot.pause()
            assert app.told[-1] == kept


async def test_applied_settings_are_one_change() -> None:
    app = Around()
    async with app.run_test(size=(80, 20)) as pilot:
        app.panel.apply(FULL)
        await pilot.pause()
        assert app.panel.settings() == FULL
        assert app.told == [FULL]
        app.panel.apply(FULL)
        await pilot.pause()
        assert len(app.told) == 1
        app.panel.apply(SamplerSettings())
        await pilot.pause()
        assert app.panel.settings() == SamplerSettings()


WRONG = [
    ("top_p", "7.5", "top-p 7.5 is out of range"),
    ("top_p", "0", "top-p 0.0 is out of range"),
    ("min_p", "2", "min-p 2.0 is out of range"),
    ("repetition_penalty", "0", "repetition-penalty 0.0 is out of range"),
    ("max_tokens", "0", "max-tokens 0 is out of range"),
    ("seed", "9999999999999999999", "seed 9999999999999999999 is out of range"),
]


async def test_what_is_typed_wrong_is_marked_and_stays() -> None:
    app = Around()
    async with app.run_test(size=(160, 20)) as pilot:
        for name, text, said in WRONG:
            app.panel.apply(SamplerSettings())
            field(app, name).value = ""
            await type_in(pilot, name, text)
            await pilot.pause()
            box = app.query_one(f"#{name}")
            assert box.has_class("-wrong")
            assert said in str(box.tooltip)
            assert said in chain(app)
            with pytest.raises(UnusableInput, match=said.split()[0]):
                (app.panel.seed if name == "seed" else app.panel.settings)()
            app.panel.action_preset(1)
            await pilot.pause()
            if name in ("max_tokens", "seed"):  # a preset has neither
                assert field(app, name).value == text
                assert box.has_class("-wrong")
                field(app, name).value = ""
                await pilot.pause()
            assert not box.has_class("-wrong")
            assert chain(app) == app.panel.settings().chain()


async def test_letters_are_not_taken() -> None:
    app = Around()
    async with app.run_test(size=(160, 20)) as pilot:
        await type_in(pilot, "top_k", "4x-2e")
        await type_in(pilot, "top_p", "0.9.1")
        assert (field(app, "top_k").value, field(app, "top_p").value) == ("42", "0.91")


async def test_presets_go_round_and_leave_the_words() -> None:
    app = Around(SamplerSettings(top_k=3, max_tokens=77))
    async with app.run_test(size=(80, 20)) as pilot:
        assert app.panel.preset == "own"
        picker = app.query_one(PresetPicker)
        picker.focus()
        seen = []
        for _ in range(len(PRESETS) + 1):
            await pilot.press("right")
            await pilot.pause()
            seen.append(app.panel.preset)
            assert app.panel.settings() == replace(PRESETS[app.panel.preset], max_tokens=77)
            assert app.panel.preset in str(picker.render())
        assert seen == [*PRESETS, "greedy"]
        await pilot.press("left")
        await pilot.pause()
        assert app.panel.preset == "notebook 1.0"
        app.query_one(TemperatureSlider).value = 0.33
        await pilot.pause()
        assert "own" in str(picker.render())
        await pilot.press("left")
        await pilot.pause()
        assert app.panel.preset == "notebook 1.0"


async def test_presets_by_mouse() -> None:
    app = Around(PRESETS["careful"])
    async with app.run_test(size=(80, 20)) as pilot:
        await pilot.click(PresetPicker, offset=(6, 0))
        await pilot.pause()
        assert app.panel.preset == "balanced"
        await pilot.click(PresetPicker, offset=(0, 0))
        await pilot.pause()
        assert app.panel.preset == "careful"


async def test_the_seed_in_use_is_seen_and_can_be_held() -> None:
    app = Around()
    async with app.run_test(size=(60, 20)) as pilot:
        assert app.panel.seed() is None
        app.panel.show_seed(481_516)
        assert field(app, "seed").placeholder == "drawn 481516"
        field(app, "seed").focus()
        await pilot.press("enter")
        assert app.panel.seed() == 481_516
        await pilot.press("f9")
        assert app.panel.seed() is None


async def test_a_seed_cannot_be_held_before_one_was_drawn() -> None:
    app = Around()
    async with app.run_test(size=(60, 20)):
        app.panel.action_hold_seed()
        assert app.panel.seed() is None


NAMES = ["temperature", "seed", "max_tokens", "top_k", "top_p", "min_p", "repetition_penalty", "preset", "chain"]


@pytest.mark.parametrize(
    ("width", "rows", "seen", "all_rows"), [(60, 1, 3, 3), (80, 2, 5, 3), (100, 2, 9, 2), (200, 2, 9, 2)]
)
async def test_everything_can_be_reached_at_any_width(width: int, rows: int, seen: int, all_rows: int) -> None:
    app = Around()
    async with app.run_test(size=(width, 20)) as pilot:
        await pilot.pause()

        def visible() -> list[str]:
            """Names of the controls that stand on the screen with all they have."""
            found = []
            for name in NAMES:
                widget = app.query_one(f"#{name}")
                if widget.region.area:
                    assert app.screen.region.contains_region(widget.region), name
                    found.append(name)
            return found

        assert (app.panel.size.height, len(visible())) == (rows, seen)
        app.query_one(TemperatureSlider).focus()
        await pilot.press("f6")
        await pilot.pause()
        assert (app.panel.size.height, visible()) == (all_rows, NAMES)
        assert field(app, "top_k").has_focus
        await pilot.press("f6")
        await pilot.pause()
        assert (app.panel.size.height, len(visible())) == (rows, seen)


@pytest.mark.parametrize("size", [(20, 5), (1, 1)])
async def test_a_tiny_terminal(size: tuple[int, int]) -> None:
    app = Around()
    async with app.run_test(size=size) as pilot:
        app.query_one(TemperatureSlider).focus()
        await pilot.press("f6", "f5", "right", "tab", "1", "tab", "2")
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert app.told
