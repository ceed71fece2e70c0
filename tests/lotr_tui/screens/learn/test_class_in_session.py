"""The class above a session: key, slash command, material of the session, and the hint for a new user."""

import pytest

from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.screens.session.screen import CLASS_HINT, SessionScreen
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.screen_lines import HelpLine
from tests.support.learn import chapter_screen
from tests.support.pilot import conversation_of, notices, reply_to, send, text_of, until


async def until_figure(pilot):
    """Wait until the class is open, and its figure is shown."""
    await until(pilot, lambda: isinstance(pilot.app.screen, ChapterScreen) and pilot.app.screen.is_idle, 30)
    return chapter_screen(pilot)


@pytest.mark.usefixtures("slider_figure")
async def test_new_user_is_invited_and_key_and_command_open_the_class_above_the_session(opened):
    async with opened((80, 24)) as (pilot, app):
        await until(pilot, lambda: app.screen.is_ready)
        await pilot.pause()
        help_line, prompt = app.screen.query_one(HelpLine), app.screen.query_one("#prompt", PromptInput)
        assert text_of(help_line) == CLASS_HINT
        assert len(CLASS_HINT) <= 58  # fits a terminal of 60 columns
        await pilot.press(*"/learn cou", "tab")
        assert prompt.value == "/learn counting"
        await pilot.press("escape")
        await send(pilot, "/learn perplexty")
        assert "there is no chapter 'perplexty'; did you mean perplexity" in notices(app)
        assert prompt.value == ""
        for typed, index in (("/learn 8", 7), ("/learn", 0)):
            await send(pilot, typed)
            assert (await until_figure(pilot)).index == index
            await pilot.press("escape")
            assert prompt.value == ""
        reply = await reply_to(pilot)
        assert text_of(help_line).startswith("Next:")
        prompt.value = "half a"
        app.screen.action_learn()
        screen = await until_figure(pilot)
        index = screen.index
        await pilot.press(*["right"] * len(CHAPTERS[index].task), "escape")
        assert isinstance(app.screen, SessionScreen)
        assert prompt.value == "half a"
        assert conversation_of(app).current_reply is reply
        assert isinstance(app.focused, PromptInput)
        await send(pilot, "/learn")
        assert (await until_figure(pilot)).index == (index + 1) % len(CHAPTERS)  # the first task is done
