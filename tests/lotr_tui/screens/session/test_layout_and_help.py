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
from lotr_tui.session.history import PromptHistory
from lotr_tui.widgets.charts.perplexity_chart import PerplexityChart
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.pane_tabs import PaneTabs
from lotr_tui.widgets.preset_picker import PresetPicker
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support import pilot as ui
from tests.support.learn import open_class_before
from tests.support.prompt import paste, type_text

SIZES = [(120, 35), (60, 20)]


def footer(app):
    """Return the keys of the footer with their descriptions."""
    return [f"{hint.key_display} {hint.description}" for hint in app.screen.query_one(KeyFooter).visible_keys()]


def help_text(app):
    return ui.text_of(app.screen.query_one(HelpLine))


async def until_help(pilot, text):
    """Run the app until the help line contains a text, or with "" until it is empty."""
    await ui.until(pilot, lambda: text in help_text(pilot.app) if text else not help_text(pilot.app))


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


@pytest.mark.parametrize("size", SIZES)
async def test_footer_shows_the_keys_of_each_state(make_app, size):
    async with make_app(pace=5).run_test(size=size) as pilot:
        app = pilot.app
        wide, narrow = {"^s sessions", "f6 reply", "^o runs", "^t train"}, {"f2 pane"}
        await ui.until(pilot, lambda: (wide if size[0] >= 100 else narrow) <= set(footer(app)))
        assert footer(app)[0] == "⏎ send"
        assert footer(app)[-3:] == ["^p palette", "^q quit", "f1 help"]
        ui.set_field(app, "max_tokens", "20")
        await ui.send(pilot, "bilbo is")
        await ui.until(pilot, lambda: footer(app)[:2] == ["esc stop", "f5 pace"])
        await pilot.press("escape")
        await ui.until_reply_ended(pilot)
        await ui.until(pilot, lambda: [key for key in footer(app) if key != "f2 pane"][:2] == ["^g words", "^r again"])
        assert footer(app)[-3:] == ["^p palette", "^q quit", "f1 help"]
        await pilot.press("ctrl+g")
        await ui.until(pilot, lambda: footer(app)[:3] == ["←→ word", "esc back", "1-8 pick"])
        await pilot.press("escape", "ctrl+f")
        await ui.until(pilot, lambda: footer(app)[0] == "esc close" and "earlier match" in help_text(app))
        await pilot.press("escape", "tab")
        await ui.until(pilot, lambda: footer(app)[:2] == ["←→ change", "esc prompt"])


async def test_hints_follow_what_was_tried_and_do_not_return(make_app):
    app = make_app()
    open_class_before()
    async with app.run_test(size=(120, 35)) as pilot:
        await ui.until(pilot, lambda: help_text(app) == "You are talking to the bundled model (51 words)")
        assert ui.transcript_text(app).strip() == 'Type "Bilbo Baggins is" and press enter.'
        for pane, text in ((NextTokenBars, "after sampling, and raw"), ("#training", "lower is better")):
            await pilot.hover(pane)
            await until_help(pilot, text)
        await pilot.hover("#prompt")
        await ui.reply_to(pilot)
        for keys, text in (
            ((), "F7 and F8 change the temperature"), (("f7",), "ctrl+g shows the alternatives"),
            (("ctrl+g",), "1-8 replace it"), (("escape",), "ctrl+r replies again"), (("tab",), "Low temperatures"),
            (("escape",), "ctrl+r replies again"),
        ):  # fmt: skip
            await pilot.press(*keys)
            await until_help(pilot, text)
        for text in ("The bars: ", "The chart: ", "ctrl+t trains a model", ""):
            await ui.reply_to(pilot)
            await until_help(pilot, text)
    for number in range(6):
        PromptHistory().add(f"the pony {number}")
    async with make_app().run_test(size=(80, 24)) as pilot:
        await ui.reply_to(pilot)
        await until_help(pilot, "")
        for text in ("after sampling, and raw", "lower is better"):
            await pilot.press("f2")
            await until_help(pilot, text)


# Typing anywhere

FIELDS = ("seed", "max_tokens", "top_k", "top_p", "min_p", "repetition_penalty")
FOCUSABLE = (TemperatureSlider, PresetPicker, *(f"#{name} Input" for name in FIELDS))
"""Selectors of the widgets besides the prompt that can have the focus before there is a reply."""


async def test_typed_and_pasted_text_reaches_the_prompt_from_any_focused_widget(make_app):
    async with make_app().run_test(size=(160, 45)) as pilot:
        app = pilot.app
        prompt = app.screen.query_one(PromptInput)
        await pilot.press("f4")  # shows all controls
        await pilot.pause()
        focusable = {widget for widget in app.screen.query("*") if widget.can_focus}
        hidden = {app.screen.query_one("#query")}  # input of the search bar, which keeps what is typed
        assert focusable - {app.screen.query_one(each) for each in FOCUSABLE} - hidden == {prompt}
        for selector in FOCUSABLE:
            app.screen.query_one(selector).focus()
            await pilot.press("i", "s")
            assert prompt.value == "is"
            assert app.screen.focused is prompt
            prompt.clear()
        for selector in (TemperatureSlider, "#seed Input"):
            app.screen.query_one(selector).focus()
            await pilot.press("ctrl+v")  # nothing was copied in the app, and no widget fails
            await paste(pilot, "bilbo is 4")
            assert prompt.value == "bilbo is 4"
            prompt.clear()
        app.screen.query_one(TemperatureSlider).focus()
        await pilot.pause()
        for character in "the lamp was lit":  # keys that arrive together
            app.post_message(events.Key("space" if character == " " else character, character))
        await ui.until(pilot, lambda: prompt.value == "the lamp was lit")
        await pilot.click(TemperatureSlider, offset=(30, 0))
        await pilot.press("backspace")
        assert prompt.value == "the lamp was li"
        app.screen.set_focus(None)
        await type_text(pilot, "t")
        assert prompt.value == "the lamp was lit"
        app.screen.query_one("#seed Input").focus()
        await pilot.press("enter")
        assert app.screen.focused is prompt
        await pilot.press("enter")
        await ui.until_reply_ended(pilot)


async def test_numbers_stay_in_the_control_that_takes_them_and_clicks_keep_no_key_from_the_prompt(make_app):
    async with make_app().run_test(size=(160, 45)) as pilot:
        app = pilot.app
        prompt, slider = app.screen.query_one(PromptInput), app.screen.query_one(TemperatureSlider)
        await pilot.press("tab", "1", "full_stop", "2", "shift+tab")
        assert app.screen.focused is prompt
        assert slider.value == 1.2
        seed = app.screen.query_one("#seed Input", Input)
        seed.focus()
        await pilot.press("4", "2")
        await paste(pilot, "17")
        assert seed.value == "4217"
        assert prompt.value == ""
        await pilot.press("full_stop")  # no character of a seed
        assert prompt.value == "."
        prompt.clear()
        await pilot.click(ReplyModeLabel)
        await type_text(pilot, "the ")
        await pilot.resize_terminal(80, 24)
        await pilot.click(PaneTabs, offset=(3, 0))
        await pilot.click(Transcript, offset=(3, 3))
        await type_text(pilot, "lamp")
        assert prompt.value == "the lamp"
        await pilot.press("enter")
        await ui.until_reply_ended(pilot)
        await pilot.press("ctrl+g", "j")
        assert prompt.value == ""
        await type_text(pilot, "the jar")
        assert prompt.value == "the jar"
        assert app.screen.query_one(Transcript).cursor is None
