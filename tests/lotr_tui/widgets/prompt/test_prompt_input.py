"""Prompt without the rest of the session: editing, unknown words and sending."""

from lotr_tui.widgets import prompt as module
from tests.support.pilot import until
from tests.support.prompt import WHITESPACE_VOCABULARY, PromptPilot, paste, type_text, underlined


async def test_prompts_are_edited_sent_and_restored_by_keys():
    async with PromptPilot() as (pilot, app, prompt):
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


# Words outside the vocabulary


async def test_only_words_and_characters_that_the_model_does_not_know_are_marked():
    async with PromptPilot() as (pilot, _, prompt):
        await type_text(pilot, "Bilbo smiled, don't smile a bilbos")
        await pilot.press("space")
        assert underlined(prompt) == ["smiled", "smile", "bilbos"]
        assert prompt.unknown_words == ("smiled", "smile", "bilbos")
        await pilot.press("ctrl+u")
        await paste(pilot, "bilbo ☺ мир, is ")
        assert underlined(prompt) == ["☺", "мир"]
        await pilot.press("ctrl+u")
        await type_text(pilot, "/ladder zzz ")
        assert underlined(prompt) == []
        prompt.value = "//zzz"
        assert underlined(prompt) == ["zzz"]
        prompt.value = "中文 e\u0301 bilbo zzz שלום " + "a " * 20 + "yyy is"  # wide and combining, on wrapped lines
        await pilot.pause()
        assert underlined(prompt) == ["中文", "e", "zzz", "שלום", "yyy"]
        prompt.tokenizer = WHITESPACE_VOCABULARY
        prompt.value = "Bilbo ☺ is"
        assert underlined(prompt) == ["☺"]


async def test_word_is_not_marked_while_it_is_typed(monkeypatch):
    monkeypatch.setattr(module, "TYPING_PAUSE_SECONDS", 3600)
    async with PromptPilot() as (pilot, _, prompt):
        await type_text(pilot, "bilb")
        assert underlined(prompt) == []
        await pilot.press("space")
        assert underlined(prompt) == ["bilb"]


async def test_word_is_marked_after_a_pause(monkeypatch):
    monkeypatch.setattr(module, "TYPING_PAUSE_SECONDS", 0.02)
    async with PromptPilot() as (pilot, _, prompt):
        await pilot.press(*"bilbx")
        await until(pilot, lambda: underlined(prompt) == ["bilbx"])
