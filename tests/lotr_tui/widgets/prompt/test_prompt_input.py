"""Prompt without the rest of the session: editing, unknown words and sending."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events

from engine.data.tokenizers.words import word_spans
from lotr_tui.widgets.prompt import prompt_input as module
from tests.support.pilot import until
from tests.support.prompt import (
    SESSION_KEYS,
    WHITESPACE_VOCABULARY,
    WORD_VOCABULARY,
    PromptPilot,
    count_cursor_cells,
    paste,
    type_text,
    underlined,
    visible_lines,
)


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
            (["home", "delete"], "ne two "),
            (["end", "ctrl+u"], ""),
            (["ctrl+z", "home", "shift+right", "shift+right", "x"], "x two "),
            (["end", "shift+home", "backspace"], ""),
        ]:
            await pilot.press(*keys)
            assert prompt.value == value, keys


async def test_keys_that_arrive_together_act_in_order():
    async with PromptPilot() as (pilot, app, prompt):
        for key in ("a", "b", "backspace", "c", "ctrl+j", "d", "left", "e", "enter", "f"):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        assert app.sent == ["ac\ned"]
        assert prompt.value in ("f", "")  # depends on when the app clears the prompt


async def test_height_follows_the_lines_up_to_five():
    async with PromptPilot() as (pilot, _, prompt):
        heights = [prompt.size.height]
        for _ in range(6):
            await pilot.press("x", "ctrl+j")
            await pilot.pause()
            heights.append(prompt.size.height)
            assert prompt.size.width == 60
            assert count_cursor_cells(prompt) == 1
        assert heights == [1, 2, 3, 4, 5, 5, 5]
        assert visible_lines(prompt) == ["x", "x", "x", "x", ""]
        await pilot.press(*["backspace"] * 6)
        assert visible_lines(prompt) == ["x", "x", "x", ""]
        await paste(pilot, "\n".join("abcdefgh"))
        assert visible_lines(prompt) == list("defgh")
        await pilot.press("enter")
        await pilot.pause()
        assert prompt.size.height == 1
        prompt.value = "x" * 150  # wraps
        await pilot.pause()
        assert prompt.size.height == 3


async def test_keys_of_the_session_reach_the_app():
    async with PromptPilot() as (pilot, app, prompt):
        await type_text(pilot, "bilbo")
        keys = [key for key in (*SESSION_KEYS, "escape", "pageup", "pagedown") if key != "ctrl+p"]
        await pilot.press(*keys)  # without ctrl+p, which opens Textual's command palette
        assert app.num_session_keys == len(keys)
        assert prompt.value == "bilbo"
        prompt_keys = {key for key, active in app.screen.active_bindings.items() if active.node is prompt}
        assert not {"ctrl+c", "ctrl+p", "ctrl+x"} & prompt_keys


async def test_cursor_is_visible_and_does_not_blink():
    async with PromptPilot() as (pilot, app, prompt):
        assert count_cursor_cells(prompt) == 1  # on the placeholder
        assert visible_lines(prompt) == ["Type here; / lists commands"]
        await type_text(pilot, "is")
        assert count_cursor_cells(prompt) == 1
        assert not prompt.cursor_blink
        app.set_focus(None)
        await pilot.pause()
        assert count_cursor_cells(prompt) == 0
        prompt.focus()
        await pilot.pause()
        assert count_cursor_cells(prompt) == 1


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
        await pilot.press("x")
        assert underlined(prompt) == []
        await pilot.press("space")
        assert underlined(prompt) == ["bilbx"]
        await pilot.press("backspace")
        assert underlined(prompt) == []


@pytest.mark.parametrize("keys", [[*"bilbx", "space", "backspace"]])
async def test_word_is_marked_after_a_pause(monkeypatch, keys):
    monkeypatch.setattr(module, "TYPING_PAUSE_SECONDS", 0.02)
    async with PromptPilot() as (pilot, _, prompt):
        await pilot.press(*keys)
        await until(pilot, lambda: underlined(prompt) == ["bilbx"])


@given(st.text(st.characters() | st.sampled_from("abcABC'İKßΣ9 -\n\t\x00"), max_size=60))
def test_token_spans_are_the_words_of_the_tokenizer(text):
    for tokenizer in (WORD_VOCABULARY, WHITESPACE_VOCABULARY):
        spans = list(word_spans(text, tokenizer.name))
        assert [word for _, _, word in spans] == tokenizer.split(text)
        previous_end = 0
        for start, end, word in spans:
            # "İ" may end one word without starting another.
            assert previous_end <= start < end <= len(text) or start == previous_end - 1
            previous_end = end
            assert tokenizer.split(text[start:end])[0].startswith(word[:1])
        if text.isascii():
            assert [text[start:end].lower() for start, end, _ in spans] == [word.lower() for _, _, word in spans]
