"""What is pasted into the prompt: no more than fits, nothing that moves the terminal."""

import base64
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from lotr_tui.widgets.prompt import MAX_CHARACTERS, clean
from tests.lotr_tui.widgets.test_prompt import SPACED, Pilots, paste, shown, type_text


async def test_a_megabyte_is_cut_and_said():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        await type_text(pilot, "is ")
        await paste(pilot, "bilbo " * 200_000)
        assert prompt.value == ("is " + "bilbo " * 200_000)[:MAX_CHARACTERS]
        assert app.notices == ["a prompt has at most 4,000 characters: 3,997 of the 1,200,000 pasted were taken"]
        await pilot.press("x", "y")
        assert len(prompt.value) == MAX_CHARACTERS
        assert len(app.notices) == 1
        await pilot.press("backspace", "x", "y", "z")
        assert len(prompt.value) == MAX_CHARACTERS
        assert app.notices[1:] == ["the prompt is full: 4,000 characters"]


async def test_what_was_selected_makes_room():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        prompt.value = "x" * MAX_CHARACTERS
        prompt.select_all()
        await paste(pilot, "y" * MAX_CHARACTERS)
        assert prompt.value == "y" * MAX_CHARACTERS
        assert app.notices == []


PASTES = [
    ("\x1b[31mred\x1b[0m", "red", 2),
    ("\x1b]0;title\x07a\x1b]52;c;" + base64.b64encode(b"x").decode() + "\x1b\\b", "ab", 2),
    ("a\x1b]unended", "aunended", 1),
    ("\x9b2Ja\x1b", "a", 2),
    ("a\x00\x07\x08b\x7f", "ab", 4),
    ("a\r\nb\rc\u2028d\x0be\n\n", "a\nb\nc\nd\ne", 0),
    ("a\tb", "a b", 0),
    ("\u202egnp.exe\u202c", "gnp.exe", 2),
    ("\ud800a\uffff", "a", 2),
    ("[red]b[/red] <unk>", "[red]b[/red] <unk>", 0),
]


async def test_control_characters_are_left_out_and_said():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        for pasted, value, removed in PASTES:
            prompt.value = ""
            app.notices.clear()
            await paste(pilot, pasted)
            assert prompt.value == value
            assert app.notices == ([f"control characters were left out: {removed}"] if removed else [])
            prompt.value = pasted
            assert prompt.value == value


@given(st.text(st.characters() | st.sampled_from("\x1b[];?m\\\x07\x9b")))
def test_what_is_left_cannot_move_the_terminal(text):
    kept, removed = clean(text)
    assert all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") for c in kept)
    assert removed >= 0
    assert clean(kept.rstrip("\n"))[1] == 0


WRITINGS = ["日本語 の 文", "e\u0301a\u0308\u0323", "שלום עולם", "سلام می\u200cروم", "👩\u200d👧 ok", "\u0301x"]


async def test_every_writing_survives():
    async with Pilots(vocabulary=SPACED) as (pilot, prompt):
        app = pilot.app
        for text in WRITINGS:
            await paste(pilot, text)
            assert prompt.value == text
            await pilot.press("left", "right", "home", "end", "enter")
            assert app.sent.pop() == text
            assert app.notices == []


async def test_text_is_shown_as_text():
    async with Pilots() as (pilot, prompt):
        prompt.value = "[red]is[/red] <unk> :smile:"
        await pilot.pause()
        assert shown(prompt) == ["[red]is[/red] <unk> :smile:"]
