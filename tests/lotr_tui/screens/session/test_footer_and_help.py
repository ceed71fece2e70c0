"""Tests of the footer and the help line of the session, in each of its states."""

import pytest
from textual.pilot import Pilot

from lotr_tui.app import LotrApp
from lotr_tui.commands import iter_binding_tables
from lotr_tui.screens.session.first_steps import FirstSteps
from lotr_tui.screens.session.footer import FOOTER_KEYS
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.session.history import PromptHistory
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.sampler_panel import SamplerPanel
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support.learn import open_class_before
from tests.support.pilot import MakeApp, notices, reply_to, send, set_field, text_of, until, until_reply_ended


def footer(app: LotrApp) -> list[str]:
    """Return the keys of the footer with their descriptions."""
    return [f"{hint.key_display} {hint.description}" for hint in app.screen.query_one(KeyFooter).visible_keys()]


def help_text(app: LotrApp) -> str:
    return text_of(app.screen.query_one(HelpLine))


async def until_help(pilot: Pilot[None], text: str) -> None:
    """Run the app until the help line contains a text, or with "" until it is empty."""
    line = pilot.app.screen.query_one(HelpLine)
    await until(pilot, lambda: text in text_of(line) if text else not text_of(line))


def test_every_key_of_the_footer_has_a_binding() -> None:
    ids = {str(binding.id) for _, table in iter_binding_tables() for binding in table}
    assert {key.binding_id for keys in FOOTER_KEYS.values() for key in keys} <= ids


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((120, 35), {"^s sessions", "f6 reply", "^o runs", "^t train"}),
        ((100, 30), {"^s sessions", "f6 reply", "^o runs", "^t train"}),
        ((80, 24), {"^t train", "f2 pane"}),
        ((60, 20), {"f2 pane"}),
    ],
)
async def test_footer_shows_help_quit_and_palette_and_what_matters_before_and_after_a_reply(
    make_app: MakeApp, size: tuple[int, int], expected: set[str]
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: expected <= set(footer(app)))
        assert footer(app)[0] == "⏎ send"
        assert footer(app)[-3:] == ["^p palette", "^q quit", "f1 help"]
        await reply_to(pilot)
        await until(pilot, lambda: [key for key in footer(app) if key != "f2 pane"][:2] == ["^g words", "^r again"])
        assert footer(app)[-3:] == ["^p palette", "^q quit", "f1 help"]
        if size[0] >= 100:
            assert {"^s sessions", "f6 reply"} <= set(footer(app))


async def test_footer_shows_the_keys_of_each_state(make_app: MakeApp) -> None:
    app = make_app(pace=5)
    async with app.run_test(size=(80, 24)) as pilot:
        set_field(app, "max_tokens", "20")
        await send(pilot, "bilbo is")
        await until(pilot, lambda: footer(app)[:2] == ["esc stop", "f5 pace"])
        await pilot.press("escape")
        await until_reply_ended(pilot)
        await until(pilot, lambda: footer(app)[0] == "^g words")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: footer(app)[:3] == ["←→ word", "esc back", "1-8 pick"])
        await pilot.press("escape", "ctrl+f")
        await until(pilot, lambda: footer(app)[0] == "esc close" and "earlier match" in help_text(app))
        await pilot.press("escape")
        app.screen.query_one(TemperatureSlider).focus()
        await until(pilot, lambda: footer(app)[:3] == ["←→ change", "esc prompt", "f4 all controls"])


async def test_first_screen_says_only_what_to_type(make_app: MakeApp) -> None:
    app = make_app()
    open_class_before()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: help_text(app) == "You are talking to the bundled model (51 words)")
        transcript = app.screen.query_one("#transcript")
        lines = [transcript.render_line(y).text.strip() for y in range(transcript.size.height)]
        assert list(filter(None, lines)) == ['Type "Bilbo Baggins is" and press enter.']


async def test_hints_follow_what_was_tried_and_none_is_shown_twice(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot)
        await until_help(pilot, "F7 and F8 change the temperature")
        await pilot.press("f7")
        await until_help(pilot, "ctrl+g shows the alternatives")
        await pilot.press("ctrl+g")
        await until_help(pilot, "1-8 replace it")
        await pilot.press("escape")
        await until_help(pilot, "ctrl+r replies again")
        for text in ("The bars: ", "The chart: ", "ctrl+t trains a model", ""):
            await reply_to(pilot)
            await until_help(pilot, text)
        await pilot.press("f8")
        await pilot.pause()
        assert not help_text(app)


async def test_hints_do_not_return_in_the_next_session(make_app: MakeApp) -> None:
    app = make_app()  # sets LOTR_TUI_HOME
    for number in range(6):
        PromptHistory().add(f"the pony {number}")
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot)
        await pilot.pause()
        assert not help_text(app)


def test_step_that_was_done_early_has_no_hint() -> None:
    steps = FirstSteps(num_earlier_prompts=0)
    steps.finish("words")
    hints = []
    for _ in range(6):
        steps.show_next()
        hints.append(steps.hint(is_narrow=False))
    assert "F7 and F8" in hints[0]
    assert "ctrl+r" in hints[1]
    assert "ctrl+t" in hints[4]
    assert hints[5] == ""
    assert not any("ctrl+g" in hint for hint in hints)


async def test_focused_control_is_explained(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot)
        app.screen.query_one(TemperatureSlider).focus()
        await until_help(pilot, "Low temperatures")
        app.screen.query_one("#seed Input").focus()
        await until_help(pilot, "The same seed")
        await pilot.press("f4")
        await until_help(pilot, "empty: all words")
        await pilot.press("escape")
        await until_help(pilot, "Next:")


async def test_pane_under_the_pointer_is_explained(make_app: MakeApp) -> None:
    app = make_app()
    open_class_before()
    async with app.run_test(size=(120, 35)) as pilot:
        await pilot.pause()
        for pane, text in ((NextTokenBars, "after sampling, and raw"), ("#training", "lower is better")):
            await pilot.hover(pane)
            await until_help(pilot, text)
        await pilot.hover("#prompt")
        await until_help(pilot, "talking to the bundled model")


async def test_visible_pane_of_a_narrow_terminal_is_explained(make_app: MakeApp) -> None:
    app = make_app()
    open_class_before()
    async with app.run_test(size=(80, 24)) as pilot:
        for text in ("after sampling, and raw", "lower is better", "talking to the bundled model"):
            await pilot.press("f2")
            await until_help(pilot, text)


@pytest.mark.parametrize("size", [(120, 35), (100, 30), (80, 24), (60, 20)])
async def test_notifications_cover_neither_the_prompt_nor_its_controls(
    make_app: MakeApp, size: tuple[int, int]
) -> None:
    app = make_app()
    async with app.run_test(size=size, notifications=True) as pilot:
        for number in (1, 2):
            app.screen.notify(f"message {number} is so long that it takes more than one line", timeout=60)
        await until(pilot, lambda: [toast for toast in app.screen.query("Toast") if toast.size.area][1:])
        toasts = [toast.region for toast in app.screen.query("Toast")]
        fixed = ["#status", "#controls", "#prompt", "HelpLine", "KeyFooter"]
        for selector in (*fixed, "#next") if size[0] >= 100 else fixed:
            region = app.screen.query_one(selector).region
            assert region.area
            assert not any(toast.overlaps(region) for toast in toasts), selector


async def test_notifications_of_the_pace_replace_each_other(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20), notifications=True) as pilot:
        await pilot.press("f5", "f5", "f5")
        await until(pilot, lambda: notices(app) == "pace: 25 words per second")


async def test_filters_appear_on_a_wide_terminal_only_while_they_are_needed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await pilot.pause()
        panel, filters = app.screen.query_one(SamplerPanel), app.screen.query_one("#filters")
        height = panel.size.height
        assert not filters.region.area
        set_field(app, "top_k", "5")
        await until(pilot, lambda: filters.region.area)
        set_field(app, "top_k", "")
        await until(pilot, lambda: not filters.region.area)
        await pilot.press("f4")
        await until(pilot, lambda: filters.region.area)
        assert panel.size.height == height
