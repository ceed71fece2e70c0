"""Pasted text: at most what fits, and nothing that controls the terminal."""

import base64

from lotr_tui.widgets.prompt import MAX_PROMPT_CHARACTERS
from tests.support.prompt import paste, run_prompt, type_text


async def test_long_paste_is_cut_with_a_notice():
    async with run_prompt() as (pilot, app, prompt):
        await type_text(pilot, "is ")
        await paste(pilot, "bilbo " * 200_000)
        assert prompt.value == ("is " + "bilbo " * 200_000)[:MAX_PROMPT_CHARACTERS]
        assert app.notices == ["pasted 3,997 of 1,200,000 characters: a prompt has at most 4,000"]
        await pilot.press("x", "y")
        assert len(prompt.value) == MAX_PROMPT_CHARACTERS
        assert len(app.notices) == 1


PASTES = [
    ("\x1b[31mred\x1b[0m", "red", 2),
    ("\x1b]0;title\x07a\x1b]52;c;" + base64.b64encode(b"x").decode() + "\x1b\\b", "ab", 2),
    ("a\x1b]unended", "aunended", 1), ("\x9b2Ja\x1b", "a", 2), ("a\x00\x07\x08b\x7f", "ab", 4),
    ("a\r\nb\rc\u2028d\x0be\n\n", "a\nb\nc\nd\ne", 0), ("a\tb", "a b", 0), ("\u202egnp.exe\u202c", "gnp.exe", 2),
    ("\ud800a\uffff", "a", 2), ("[red]b[/red] <unk>", "[red]b[/red] <unk>", 0),
]  # fmt: skip


async def test_control_characters_are_removed_with_a_notice():
    async with run_prompt() as (pilot, app, prompt):
        for pasted, value, removed in PASTES:
            prompt.value = ""
            app.notices.clear()
            await paste(pilot, pasted)
            assert prompt.value == value
            assert app.notices == ([f"control characters removed: {removed}"] if removed else [])
            prompt.value = pasted
            assert prompt.value == value
