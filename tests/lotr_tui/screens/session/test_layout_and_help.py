"""Panes at each size, footer and help line in each state, and typed text that reaches the prompt from anywhere."""

import pytest
from textual import events
from textual.widgets import Input

from lotr_tui.commands import iter_binding_tables
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.first_steps import FirstSteps
from lotr_tui.screens.session.footer import FOOTER_KEYS
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.screens.session.reply_mode_label import ReplyModeLabel
from lotr_tui.widgets.charts.perplexity_chart import PerplexityChart
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.preset_picker import PresetPicker
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support import pilot as ui
from tests.support.prompt import paste, type_text

SIZES = [(120, 35), (60, 20)]


def footer(app):
    return [f"{hint.key_display} {hint.description}" for hint in app.screen.query_one(KeyFooter).visible_keys()]


# Layout


@pytest.mark.parametrize("size", SIZES)
async def test_all_panes_or_one_at_a_time_are_visible_and_notifications_cover_no_control(make_app, size):
    panes = (Transcript, NextTokenBars, PerplexityChart)
    async with make_app().run_test(size=size, notifications=True) as pilot:
        screen = pilot.app.screen
        await ui.until(pilot, lambda: screen.query("#training"))
        await pilot.pause()
        for pane in panes:
            shown = [each for each in panes if screen.query_one(each).region.area]
            assert shown == (list(panes) if size[0] >= 100 else [pane])
            for fixed in ("#temperature", "#prompt"):
                assert screen.query_one(fixed).region.height == 1
                assert screen.region.contains_region(screen.query_one(fixed).region)
            await pilot.press("f2")
            await pilot.pause()
        await pilot.press("f5", "f5", "f5")
        await ui.until(pilot, lambda: ui.notices(pilot.app) == "pace: 25 words per second")  # the others are replaced
        for number in (1, 2):
            screen.notify(f"message {number} is so long that it takes more than one line", timeout=60)
        await ui.until(pilot, lambda: len([toast for toast in screen.query("Toast") if toast.size.area]) >= 3)
        toasts = [toast.region for toast in screen.query("Toast")]
        fixed = ["#status", "#controls", "#prompt", "HelpLine", "KeyFooter"]
        for selector in (*fixed, "#next") if size[0] >= 100 else fixed:
            region = screen.query_one(selector).region
            assert region.area
            assert not any(toast.overlaps(region) for toast in toasts), selector


# Footer and help line


def test_every_key_of_the_footer_has_a_binding():
    ids = {str(binding.id) for _, table in iter_binding_tables() for binding in table}
    assert {key.binding_id for keys in FOOTER_KEYS.values() for key in keys} <= ids


def test_step_that_was_done_early_has_no_hint():
    steps, hints = FirstSteps(num_earlier_prompts=0), []
    steps.finish("words")
    for _ in range(6):
        steps.show_next()
        hints.append(steps.hint(is_narrow=False))
    for hint, text in zip(hints, ("F7 and F8", "ctrl+r", "The bars", "The chart", "ctrl+t", ""), strict=True):
        assert text in hint
    assert not any("ctrl+g" in hint for hint in hints)


async def test_footer_shows_the_keys_of_each_state(make_app):
    async with make_app(pace=5).run_test(size=(120, 35)) as pilot:
        app = pilot.app
        await ui.until(pilot, lambda: {"^s sessions", "f6 reply", "^o runs", "^t train"} <= set(footer(app)))
        ui.set_field(app, "max_tokens", "20")
        await ui.send(pilot, "bilbo is")
        await ui.until(pilot, lambda: footer(app)[:2] == ["esc stop", "f5 pace"])
        await pilot.press("escape")
        await ui.until_reply_ended(pilot)
        await ui.until(pilot, lambda: footer(app)[:2] == ["^g words", "^r again"])
        assert footer(app)[-3:] == ["^p palette", "^q quit", "f1 help"]
        await pilot.press("ctrl+g")
        await ui.until(pilot, lambda: footer(app)[:3] == ["←→ word", "esc back", "1-8 pick"])


# Typing anywhere

FIELDS = ("seed", "max_tokens", "top_k", "top_p", "min_p", "repetition_penalty")
FOCUSABLE = (TemperatureSlider, PresetPicker, *(f"#{name} Input" for name in FIELDS))
"""Selectors of the widgets besides the prompt that can have the focus before there is a reply."""


async def test_typed_and_pasted_text_reaches_the_prompt_and_numbers_stay_in_the_control_that_takes_them(make_app):
    async with make_app().run_test(size=(160, 45)) as pilot:
        app = pilot.app
        prompt, slider = app.screen.query_one(PromptInput), app.screen.query_one(TemperatureSlider)
        seed = app.screen.query_one("#seed Input", Input)
        await pilot.press("f4")  # shows all controls
        await pilot.pause()
        focusable = {widget for widget in app.screen.query("*") if widget.can_focus}
        hidden = {app.screen.query_one("#query")}  # input of the search bar, which keeps what is typed
        assert focusable - {app.screen.query_one(each) for each in FOCUSABLE} - hidden == {prompt}
        for selector in FOCUSABLE:
            app.screen.query_one(selector).focus()
            await pilot.press("s")
            assert prompt.value == "s"
            assert app.screen.focused is prompt
            prompt.clear()
        for control in (slider, seed):
            control.focus()
            await paste(pilot, "bilbo is 4")
            assert prompt.value == "bilbo is 4"
            prompt.clear()
        slider.focus()
        await pilot.press("1", "full_stop", "2")
        assert slider.value == 1.2
        seed.focus()
        await pilot.press("4", "2")
        await paste(pilot, "17")
        assert seed.value == "4217"
        slider.focus()
        await pilot.pause()
        for character in "the lamp was lit":  # keys that arrive together
            app.post_message(events.Key("space" if character == " " else character, character))
        await ui.until(pilot, lambda: prompt.value == "the lamp was lit")
        await pilot.click(ReplyModeLabel)
        await pilot.press("backspace")
        assert prompt.value == "the lamp was li"
        seed.focus()
        await pilot.press("enter")
        assert app.screen.focused is prompt
        await pilot.press("enter")
        await ui.until_reply_ended(pilot)
        await pilot.press("ctrl+g", "j")
        assert prompt.value == ""
        await type_text(pilot, "the jar")
        assert prompt.value == "the jar"
        assert app.screen.query_one(Transcript).cursor is None
