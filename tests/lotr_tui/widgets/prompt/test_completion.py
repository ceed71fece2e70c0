"""Completion of the prompt: grey text after the cursor that tab inserts."""

from lotr_tui.widgets.prompt.completion import Completion
from lotr_tui.widgets.prompt.prompt_input import TYPING_HINT, UNKNOWN_HINT, PromptInput
from tests.support.prompt import PromptPilot, paste, type_text, visible_lines


def complete_bilbo(text):
    """Complete the last word to "bilbo"."""
    word = text.rsplit(maxsplit=1)[-1]
    return Completion("bilbo"[len(word) :] if word and "bilbo".startswith(word) and not text.endswith(" ") else "")


async def test_tab_and_right_insert_the_completion():
    async with PromptPilot() as (pilot, app, prompt):
        prompt.completer = complete_bilbo
        for key in ("tab", "right"):
            await type_text(pilot, "the bi")
            assert visible_lines(prompt) == ["the bilbo"]
            assert prompt.value == "the bi"
            await pilot.press(key)
            assert prompt.value == "the bilbo"
            await pilot.press("space", "i", "s", "enter")
            assert app.sent.pop() == "the bilbo is"


async def test_enter_sends_what_was_typed_without_the_completion():
    async with PromptPilot() as (pilot, app, prompt):
        prompt.completer = complete_bilbo
        await type_text(pilot, "the bi")
        await pilot.press("enter")
        assert app.sent == ["the bi"]


async def test_only_the_end_of_the_text_is_completed():
    async with PromptPilot() as (pilot, _, prompt):
        prompt.completer = complete_bilbo
        await type_text(pilot, "bi")
        await pilot.press("left")
        assert visible_lines(prompt) == ["bi"]
        await pilot.press("right")
        assert prompt.value == "bi"
        await pilot.press("home", "x")
        assert visible_lines(prompt) == ["xbi"]
        prompt.clear()
        await type_text(pilot, "the\nbi")
        assert visible_lines(prompt) == ["the", "bilbo"]
        await pilot.press("shift+left")
        assert visible_lines(prompt) == ["the", "bi"]


async def test_tab_without_a_completion_leaves_the_prompt():
    async with PromptPilot() as (pilot, app, prompt):
        await app.mount(PromptInput(id="other"))
        prompt.focus()
        await type_text(pilot, "zz")
        await pilot.press("tab")
        assert prompt.value == "zz"
        assert app.focused is app.query_one("#other")


async def test_hint_explains_underlined_words_and_keys():
    async with PromptPilot() as (pilot, _, prompt):
        assert prompt.hint == ""
        await type_text(pilot, "bilbo")
        await pilot.pause()
        assert prompt.hint == TYPING_HINT
        await type_text(pilot, " zzz")
        await pilot.pause()
        assert prompt.hint == TYPING_HINT  # the word may not be complete
        await type_text(pilot, " is")
        await pilot.pause()
        assert prompt.hint == UNKNOWN_HINT
        prompt.value = ""
        await paste(pilot, "bilbo ☺ мир is")
        await pilot.pause()
        assert prompt.hint == UNKNOWN_HINT
        await pilot.press("enter")
        await pilot.pause()
        assert prompt.hint == ""
