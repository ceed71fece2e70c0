"""Prompt without the rest of the session: editing and sending."""

from tests.support.prompt import run_prompt, type_text


async def test_prompts_are_edited_sent_and_restored_by_keys():
    async with run_prompt() as (pilot, app, prompt):
        await type_text(pilot, "Bilbo is")
        await pilot.press("enter")
        assert app.sent == ["Bilbo is"]
        assert prompt.value == ""
        await pilot.press("ctrl+z")
        assert prompt.value == "Bilbo is"
        await pilot.press("ctrl+u")
        await type_text(pilot, "one\ntwo")
        await pilot.press("left", "left", "ctrl+j", "enter")
        assert app.sent.pop() == "one\nt\nwo"
        await type_text(pilot, "one two three")
        for keys, value in [
            (["ctrl+w"], "one two "),
            (["ctrl+left", "ctrl+k"], "one "),
            (["ctrl+z"], "one two "),
            (["home", "shift+right", "shift+right", "x"], "xe two "),
        ]:
            await pilot.press(*keys)
            assert prompt.value == value, keys
