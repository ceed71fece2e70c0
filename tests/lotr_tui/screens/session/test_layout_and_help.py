"""Panes at each size, footer and help line in each state, and typed text that reaches the prompt from anywhere."""

import pytest

from lotr_tui.screens.session.keys import FOOTER_KEYS
from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.session.reply import Reply
from lotr_tui.widgets.keys import KeyFooter
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.slider import SamplerPanel
from tests.support import pilot as ui
from tests.support.prompt import paste, type_ahead
from tests.support.scenes import show_ended_training
from tests.support.tables import iter_binding_tables

SIZES = [(120, 35), (60, 20)]


def footer(app):
    sides = app.screen.query_one(KeyFooter).visible_keys()
    return [f"{hint.key_display} {hint.description}" for side in sides for hint in side]


# Layout


@pytest.mark.parametrize("size", SIZES)
async def test_all_panes_or_one_at_a_time_are_visible_and_notifications_cover_no_control(opened, size):
    async with opened(size=size, notifications=True) as (pilot, app):
        screen = app.screen
        await ui.until(pilot, lambda: screen.query("#training"))
        await pilot.pause()
        assert not screen.query_one("#training").region.area  # the curve appears when something is trained
        show_ended_training(app)
        await pilot.pause()
        for shown in ("#transcript", "#next", "#training") if size[0] < 100 else ("#transcript",):
            for pane in ("#transcript", "#next", "#training"):
                assert bool(screen.query_one(pane).region.area) == (size[0] >= 100 or pane == shown)
            assert screen.query_one("#run").region.x == screen.query_one("#temperature").region.right  # all is painted
            for fixed in ("#temperature", "#prompt"):
                assert screen.query_one(fixed).region.height == 1
                assert screen.region.contains_region(screen.query_one(fixed).region)
            await pilot.press("tab")
            await pilot.pause()
        if size[0] < 100:
            screen.action_show_pane("training")
            await ui.reply_to(pilot)
            assert screen.query_one("#transcript").region.area
        for number in (1, 2, 3):
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


async def test_footer_shows_the_keys_of_each_state_and_a_hint_follows_the_first_prompt(opened):
    async with opened(pace=5, size=(120, 35)) as (pilot, app):
        await ui.until(pilot, lambda: {"⏎ send", "tab pane", "^o models", "^t train"} <= set(footer(app)))
        ui.set_field(app, "max_tokens", "20")
        await ui.send(pilot, "bilbo is")
        await ui.until(pilot, lambda: footer(app)[:2] == ["esc stop", "tab pane"])
        await pilot.press("escape")
        await ui.until_reply_ended(pilot)
        await ui.until(pilot, lambda: footer(app)[:2] == ["^g words", "^r again"])
        assert footer(app)[-3:] == ["^p palette", "^q quit", "f1 help"]
        assert "Next: see the most likely" in ui.lines_of(app.screen.query_one("HelpLine"))
        await pilot.press("ctrl+g")
        await ui.until(pilot, lambda: footer(app)[:3] == ["←→ word", "esc prompt", "1-8 pick"])


# The focus


def first_line(app):
    """Return the row of the first prompt in the transcript, with its padding."""
    return 1 + next(y for y, line in enumerate(ui.transcript_text(app).splitlines()) if "❯" in line)


WAYS = [
    (SIZES[0], ["escape", "tab", "click word", "click bars"]),
    (SIZES[1], ["tab tab", "shift+tab", "click prompt line", "ctrl+g escape"]),
]


@pytest.mark.parametrize(("size", "ways"), WAYS)
async def test_what_is_typed_reaches_the_prompt_wherever_escape_tab_and_clicks_have_led(opened, size, ways):
    async with opened(size=size) as (pilot, app):
        screen = app.screen
        targets = {
            "word": lambda: pilot.click(Transcript, offset=(6, first_line(app))), "bars": lambda: pilot.click("#next"),
            "prompt line": lambda: pilot.click("#prompt-mark"),
        }  # fmt: skip
        await ui.reply_to(pilot)
        for number, way in enumerate(ways, 2):
            for line in ("/preset wild", "lovely old friend"):  # which begins with a key of the conversation
                action, _, target = way.partition(" ")
                if action == "click":
                    await targets[target]()
                    assert target != "word" or screen.query_one(Transcript).cursor is not None
                else:
                    await pilot.press(*way.split())
                await type_ahead(pilot, line)
                await ui.until_reply_ended(pilot)
            assert screen.query_one(SamplerPanel).preset == "wild", way
            assert ui.screen_name(app) == "SessionScreen"
            assert ui.latest_reply(app).prompt == "lovely old friend", way
            assert len(ui.entries(app, Reply)) == number
            screen.query_one(SamplerPanel).apply_preset("chat")


async def test_letters_are_keys_of_the_conversation_after_ctrl_g_only_which_the_prompt_says(opened):
    async with opened(size=(120, 35)) as (pilot, app):
        prompt, transcript = app.screen.query_one(PromptInput), app.screen.query_one(Transcript)
        await ui.reply_to(pilot)
        usual = prompt.placeholder
        await pilot.press("ctrl+g")
        assert app.screen.focused is transcript
        assert ui.bars_text(app).startswith("WORD ")
        assert "letters are keys" in prompt.placeholder
        await pilot.press("y")
        assert app.clipboard
        for keys, typed in ((["escape"], ""), (["slash"], "/"), (["j", "y"], "jy"), (["9"], "9")):
            await pilot.press("ctrl+g", *keys)  # escape, or a character that is no key there, goes back
            await ui.until(pilot, lambda typed=typed: prompt.value == typed)
            assert app.screen.focused is prompt
            assert (transcript.cursor, prompt.placeholder) == (None, usual)
            prompt.clear()
        await pilot.press("ctrl+g")
        await paste(pilot, "bilbo is 4")
        assert prompt.value == "bilbo is 4"
        assert app.screen.focused is prompt
        await pilot.press("ctrl+f")
        assert "find" in prompt.placeholder
