"""Sparklines and bars, slider and inputs, the keys of the footer, and the settings of the sampler panel."""

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual import on
from textual.binding import Binding, BindingType
from textual.events import Paste
from textual.widgets import Static

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from lotr_tui.formatting import bar, sparkline
from lotr_tui.screens.session.keys import CAST_HINT, CHAT_HINT, HINTS, STRENGTH_HINT
from lotr_tui.screens.session.transcript import MOUSE_HELP
from lotr_tui.session.settings import PRETRAINED_SAMPLER
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.keys import FooterKey, KeyFooter
from lotr_tui.widgets.slider import CUSTOM_PRESET, SAMPLER_PRESETS, SamplerPanel, TemperatureSlider
from tests.support.app import ThemedApp
from tests.support.pilot import notices, text_of, until
from tests.support.tables import iter_binding_tables


class TestSmall:
    @pytest.mark.parametrize(
        ("values", "max_value", "line"),
        [
            ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"), ([0, 5, 10], None, "▁▅█"), ([math.nan, 3, math.inf], 3, " █ "),
            ([math.nan, 522, 522.1], None, " ──"), ([-5, 50], 10, "▁█"), ([], None, ""),
        ],
    )  # fmt: skip
    def test_sparkline(self, values, max_value, line):
        assert sparkline(values, max_value) == line

    @given(st.floats(0, 2), st.integers(1, 30))
    def test_a_bar_is_as_long_as_its_value(self, value, width):
        drawn = bar(value, width)
        eighths = sum(8 if char == "█" else " ▏▎▍▌▋▊▉".index(char) for char in drawn)
        assert eighths == pytest.approx(min(value, 1) * width * 8, abs=0.51)
        assert len(drawn) <= width

    async def test_keys_clicks_and_drags_set_the_temperature(self):
        async with ThemedApp().run_test(size=(120, 30)) as pilot:
            slider = TemperatureSlider(0.8)
            await pilot.app.mount(slider)
            slider.focus()
            for keys, value in [(["right"], 0.85), (["end", "right"], 2.0), (["home", "right"], 0.05)]:
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

    async def test_text_that_is_too_long_for_an_input_is_refused_with_a_notice(self, make_host):
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

    def test_help_of_every_part_fits_a_terminal_of_80_columns(self):
        texts = [getattr(node_type, "HELP_LINE", "") for node_type, _ in iter_binding_tables()]
        texts += [CAST_HINT, CHAT_HINT, STRENGTH_HINT, *HINTS, MOUSE_HELP]
        assert len(set(texts)) > 10
        assert [text for text in texts if cell_len(text) > 78] == []


KEYS = "^a apples  ^b bread  c,d cheese"
KEYS_AT_RIGHT = "^p palette  ^q quit  f1 help"
ALL_KEYS = f"{KEYS}  {KEYS_AT_RIGHT}"


class PantryApp(ThemedApp):
    """App with bindings, one of them hidden, that records the items taken."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+z", "take('apples')", "hidden", show=False),
        Binding("ctrl+a", "take('apples')", "apples", id="pantry.apples", tooltip="Take an apple"),
        Binding("ctrl+b", "take('bread')", "bread"),
        Binding("c,d", "take('cheese')", "cheese", key_display="c,d"),
        Binding("e", "take('eggs')", "eggs", id="pantry.eggs", show=False),
        Binding("f1", "toggle_help", "help"),
        Binding("ctrl+q", "quit", "quit"),
        Binding("ctrl+p", "command_palette", "palette"),
    ]

    def __init__(self, keys=None):
        super().__init__()
        self._keys = keys
        self.taken: list[str] = []
        self.num_bells = 0
        self.sold_out = ""

    def compose(self):
        yield Static("a shelf")
        yield KeyFooter(None if self._keys is None else lambda: self._keys or ())

    def action_take(self, item):
        self.taken.append(item)

    def check_action(self, action, parameters):
        return None if parameters == (self.sold_out,) else True

    def bell(self):
        self.num_bells += 1


def footer_text(app):
    return text_of(app.screen.query_one(KeyFooter)).rstrip()


class TestFooter:
    async def test_no_key_is_cut_off_and_help_quit_and_palette_are_at_the_right_edge(self):
        app = PantryApp()
        async with app.run_test(size=(100, 10)) as pilot:
            for width, keys, keys_at_right in [
                (len(ALL_KEYS) + 2, KEYS, KEYS_AT_RIGHT), (len(ALL_KEYS) + 1, "^a apples  ^b bread", KEYS_AT_RIGHT),
                (40, "", KEYS_AT_RIGHT), (28, "", "^q quit  f1 help"), (12, "", "f1 help"),
            ]:  # fmt: skip
                await pilot.resize_terminal(width, 10)
                gap = " " * (width - 2 - len(keys) - len(keys_at_right))
                await until(pilot, lambda: footer_text(app) == keys + gap + keys_at_right)  # noqa: B023

    async def test_screen_chooses_the_keys_of_its_state(self):
        keys = [FooterKey("pantry.eggs", "an egg", "e-f"), FooterKey("pantry.jam"), FooterKey("pantry.apples")]
        app = PantryApp(keys)
        async with app.run_test(size=(80, 10)) as pilot:
            await until(pilot, lambda: footer_text(app).startswith("e-f an egg  ^a apples   "))
            assert footer_text(app).endswith(KEYS_AT_RIGHT)
            await pilot.click(KeyFooter, offset=(1, 0))
            assert app.taken == ["eggs"]

    async def test_a_click_presses_a_key_unless_it_is_disabled(self):
        app = PantryApp()
        async with app.run_test(size=(len(ALL_KEYS) + 2, 10)) as pilot:
            await until(pilot, lambda: footer_text(app) == ALL_KEYS)
            footer = app.screen.query_one(KeyFooter)
            positions = [ALL_KEYS.index("^a"), ALL_KEYS.index("bread") + 4, ALL_KEYS.index("c,d")]
            for x in (*positions, ALL_KEYS.index("^b") - 1):  # the last one is between two keys
                await pilot.click(KeyFooter, offset=(1 + x, 0))
            assert app.taken == ["apples", "bread", "cheese"]
            app.sold_out = "bread"
            app.screen.refresh_bindings()
            enabled = [True, False, True, True, True, True]
            await until(pilot, lambda: [hint.enabled for side in footer.visible_keys() for hint in side] == enabled)
            await pilot.click(KeyFooter, offset=(1 + ALL_KEYS.index("bread"), 0))
            assert (app.taken[3:], app.num_bells) == ([], 1)


CHAIN = {"temperature": 1.25, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
ALL_CHANGED = SamplerSettings(repetition_penalty=1.2, max_tokens=120, **CHAIN)


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


async def test_last_random_seed_can_be_fixed_and_is_shown_then():
    app = PanelApp()
    async with app.run_test(size=(60, 20)):
        assert app.panel.seed is None
        seed = app.panel.draw_seed()
        app.panel.set_texts({"seed": "last"})
        assert shown(app, "#run") == f"seed {seed}   30 words"
        assert app.panel.seed == seed == app.panel.draw_seed()
        app.panel.set_texts({"seed": "random"})
        assert app.panel.seed is None
        assert shown(app, "#run") == "random seed   30 words"
