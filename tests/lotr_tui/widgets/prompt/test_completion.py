"""Completion of the prompt: grey text after the cursor that tab inserts."""

from lotr_tui.widgets.prompt import Completion
from tests.support.prompt import run_prompt, type_text, visible_lines


def complete_bilbo(text):
    word = text.rsplit(maxsplit=1)[-1]
    return Completion("bilbo"[len(word) :] if word and "bilbo".startswith(word) and not text.endswith(" ") else "")


async def test_tab_and_right_insert_the_completion_and_enter_does_not():
    async with run_prompt() as (pilot, app, prompt):
        prompt.completer = complete_bilbo
        for key in ("tab", "right"):
            await type_text(pilot, "the bi")
            assert visible_lines(prompt) == ["the bilbo"]
            assert prompt.value == "the bi"
            await pilot.press(key)
            assert prompt.value == "the bilbo"
            await pilot.press("space", "i", "s", "enter")
            assert app.sent.pop() == "the bilbo is"
        await type_text(pilot, "the bi")
        await pilot.press("enter")
        assert app.sent == ["the bi"]  # without the completion


async def test_only_the_end_of_the_text_is_completed():
    async with run_prompt() as (pilot, _, prompt):
        prompt.completer = complete_bilbo
        await type_text(pilot, "bi")
        await pilot.press("left")
        assert visible_lines(prompt) == ["bi"]
        await pilot.press("right")
        assert prompt.value == "bi"
        prompt.clear()
        await type_text(pilot, "the\nbi")
        assert visible_lines(prompt) == ["the", "bilbo"]
        await pilot.press("shift+left")
        assert visible_lines(prompt) == ["the", "bi"]
