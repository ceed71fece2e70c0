"""Typed and pasted text reaches the prompt, whichever widget of the session has the focus."""

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from lotr_tui.screens.session.conversation.search_bar import SearchBar
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.reply_mode_label import ReplyModeLabel
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.widgets.pane_tabs import PaneTabs
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.sampler_panel import SamplerPanel
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support.pilot import MakeApp, entries, reply_to, until
from tests.support.prompt import paste, type_text

FOCUSABLE = (
    "TemperatureSlider",
    "PresetPicker",
    *(f"#{name} Input" for name in ("seed", "max_tokens", "top_k", "top_p", "min_p", "repetition_penalty")),
)
"""Selectors of the widgets besides the prompt that can have the focus before there is a reply."""


def prompt_of(pilot: Pilot[None]) -> PromptInput:
    return pilot.app.screen.query_one(PromptInput)


def focused_name(pilot: Pilot[None]) -> str:
    return type(pilot.app.screen.focused).__name__


async def test_all_focusable_widgets_are_covered(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause()
        focusable = {widget for widget in app.screen.query("*") if widget.can_focus}
        covered = {app.screen.query_one(selector) for selector in FOCUSABLE}
        hidden = {app.screen.query_one("#query")}  # input of the search bar, which keeps what is typed
        assert focusable - covered - hidden == {prompt_of(pilot)}


@pytest.mark.parametrize("selector", FOCUSABLE)
async def test_typed_prompt_is_sent_from_any_focused_widget(make_app: MakeApp, selector: str) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.press("f4")  # shows all controls
        await pilot.pause()
        widget = app.screen.query_one(selector)
        widget.focus()
        await pilot.pause()
        assert app.screen.focused is widget
        await type_text(pilot, "bilbo is")
        assert prompt_of(pilot).value == "bilbo is"
        assert focused_name(pilot) == "PromptInput"
        widget.focus()
        await pilot.press("enter")
        await until(pilot, lambda: entries(app, Exchange))
        assert "❯ bilbo is" in entries(app, Exchange)[0]


async def test_keys_that_arrive_together_are_typed_in_order(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.query_one(TemperatureSlider).focus()
        await pilot.pause()
        for character in "the lamp was lit":
            app.post_message(events.Key("space" if character == " " else character, character))
        await pilot.pause()
        assert prompt_of(pilot).value == "the lamp was lit"


async def test_numbers_stay_in_the_control_that_takes_them(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.query_one(TemperatureSlider).focus()
        await pilot.press("1", "full_stop", "2")
        assert app.screen.query_one(TemperatureSlider).value == 1.2
        seed = app.screen.query_one("#seed Input", Input)
        seed.focus()
        await pilot.press("4", "2")
        await paste(pilot, "17")
        assert seed.value == "4217"
        assert prompt_of(pilot).value == ""
        await pilot.press("full_stop")  # no character of a seed
        assert prompt_of(pilot).value == "."
        await pilot.press("f4")
        await pilot.pause()
        top_p = app.screen.query_one("#top_p Input", Input)
        top_p.focus()
        await pilot.press("full_stop", "9")
        assert top_p.value == ".9"


async def test_enter_in_a_number_field_keeps_the_number_and_returns_to_the_prompt(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.query_one("#seed Input").focus()
        await pilot.press("7", "enter")
        assert app.screen.query_one(SamplerPanel).seed() == 7
        assert focused_name(pilot) == "PromptInput"
        assert not app._notifications  # there is nothing to send yet


@pytest.mark.parametrize("selector", ["TemperatureSlider", "#seed Input"])
async def test_pasted_text_reaches_the_prompt(make_app: MakeApp, selector: str) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.query_one(selector).focus()
        await pilot.press("ctrl+v")  # nothing was copied in the app, and no widget fails
        app.screen.query_one(selector).focus()
        await paste(pilot, "bilbo is 4")
        assert prompt_of(pilot).value == "bilbo is 4"
        assert app.screen.query_one(SamplerPanel).seed() is None


async def test_backspace_after_a_click_on_the_slider_deletes_a_typed_letter(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await type_text(pilot, "bilbox")
        await pilot.click(TemperatureSlider, offset=(30, 0))
        await pilot.press("backspace")
        assert prompt_of(pilot).value == "bilbo"


async def test_clicks_on_label_and_tabs_do_not_keep_keys_from_the_prompt(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.click(ReplyModeLabel)
        await type_text(pilot, "the ")
        await pilot.resize_terminal(80, 24)
        await pilot.click(PaneTabs, offset=(3, 0))
        await pilot.click(Transcript, offset=(3, 3))
        await type_text(pilot, "lamp")
        assert prompt_of(pilot).value == "the lamp"


async def test_cursor_on_the_words_keeps_its_keys_and_leaves_the_others_to_the_prompt(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await reply_to(pilot)
        await pilot.press("ctrl+g", "j")
        assert focused_name(pilot) == "Transcript"
        assert prompt_of(pilot).value == ""
        await type_text(pilot, "the jar")
        assert prompt_of(pilot).value == "the jar"
        assert app.screen.query_one(Transcript).cursor is None


async def test_search_keeps_what_is_typed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await reply_to(pilot)
        await pilot.press("ctrl+f")
        await type_text(pilot, "is 4")
        assert app.screen.query_one(SearchBar).query_one(Input).value == "is 4"
        assert prompt_of(pilot).value == ""


async def test_keys_reach_the_prompt_when_nothing_has_the_focus(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        app.screen.set_focus(None)
        await type_text(pilot, "lamp")
        assert prompt_of(pilot).value == "lamp"
