"""Completion of the prompt: grey text after the cursor that tab inserts."""

from rich.style import Style

from lotr_tui.widgets.prompt.completion import Completion
from lotr_tui.widgets.prompt.prompt_input import TYPING_HINT, UNKNOWN_HINT, PromptInput
from tests.support.prompt import PromptPilot, paste, type_text, visible_lines


def complete_bilbo(text: str) -> Completion:
    """Complete the last word to "bilbo"."""
    word = text.rsplit(maxsplit=1)[-1]
    return Completion("bilbo"[len(word) :] if word and "bilbo".startswith(word) and not text.endswith(" ") else "")


def ghost_style(prompt: PromptInput, text: str) -> Style:
    return next(segment.style for segment in prompt.render_line(0) if segment.text == text and segment.style)


async def test_tab_and_right_insert_the_completion() -> None:
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


async def test_completion_looks_different_from_typed_text() -> None:
    async with PromptPilot() as (pilot, _, prompt):
        prompt.completer = complete_bilbo
        await type_text(pilot, "bi")
        assert ghost_style(prompt, "bo").color != ghost_style(prompt, "bi").color


async def test_enter_sends_what_was_typed_without_the_completion() -> None:
    async with PromptPilot() as (pilot, app, prompt):
        prompt.completer = complete_bilbo
        await type_text(pilot, "the bi")
        await pilot.press("enter")
        assert app.sent == ["the bi"]


async def test_keys_that_arrive_together_complete_the_typed_word() -> None:
    async with PromptPilot() as (pilot, _, prompt):
        prompt.completer = complete_bilbo
        await pilot.press("b", "i", "tab", "space", "i", "s")
        assert prompt.value == "bilbo is"


async def test_only_the_end_of_the_text_is_completed() -> None:
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


async def test_backspace_and_undo_complete_the_text_that_is_left() -> None:
    async with PromptPilot() as (pilot, _, prompt):
        prompt.completer = complete_bilbo
        await type_text(pilot, "bil")
        await pilot.press("backspace")
        assert visible_lines(prompt) == ["bilbo"]
        await pilot.press("x")
        assert visible_lines(prompt) == ["bix"]
        await pilot.press("ctrl+z")
        assert prompt.value in ("bi", "")
        prompt.value = ""
        assert prompt.suggestion == ""


async def test_tab_without_a_completion_leaves_the_prompt() -> None:
    async with PromptPilot() as (pilot, app, prompt):
        await app.mount(PromptInput(id="other"))
        prompt.focus()
        await type_text(pilot, "zz")
        await pilot.press("tab")
        assert prompt.value == "zz"
        assert app.focused is app.query_one("#other")


async def test_completion_at_the_edge_does_not_change_the_size() -> None:
    async with PromptPilot() as (pilot, _, prompt):
        prompt.completer = complete_bilbo
        await type_text(pilot, "a" * 56 + " bi")
        assert prompt.value.endswith("bi")
        assert prompt.size.height == 1
        assert prompt.render_line(0).cell_length <= 60 + len("lbo")
        await pilot.press("tab")
        assert prompt.value.endswith(" bilbo")
        await pilot.pause()
        assert prompt.size.height == 2


async def test_hint_explains_underlined_words_and_keys() -> None:
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
