"""Prompt without the rest of the session: editing, sending, completion, recall, and what pasted text may hold."""

import base64

from lotr_tui.session.settings import PromptHistory
from lotr_tui.widgets.prompt import MAX_PROMPT_CHARACTERS, Completion
from tests.support.prompt import paste, run_prompt, type_text, visible_lines


def complete_bilbo(text):
    word = text.rsplit(maxsplit=1)[-1]
    return Completion("bilbo"[len(word) :] if word and "bilbo".startswith(word) and not text.endswith(" ") else "")


PASTES = [
    ("\x1b[31mred\x1b[0m", "red", 2),
    ("\x1b]0;title\x07a\x1b]52;c;" + base64.b64encode(b"x").decode() + "\x1b\\b", "ab", 2),
    ("a\x1b]unended", "aunended", 1), ("\x9b2Ja\x1b", "a", 2), ("a\x00\x07\x08b\x7f", "ab", 4),
    ("a\r\nb\rc\u2028d\x0be\n\n", "a\nb\nc\nd\ne", 0), ("a\tb", "a b", 0), ("\u202egnp.exe\u202c", "gnp.exe", 2),
    ("\ud800a\uffff", "a", 2), ("[red]b[/red] <unk>", "[red]b[/red] <unk>", 0),
]  # fmt: skip


class TestEditing:
    async def test_prompts_are_edited_sent_and_restored_by_keys(self):
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
                (["ctrl+w"], "one two "), (["ctrl+left", "ctrl+k"], "one "), (["ctrl+z"], "one two "),
                (["home", "shift+right", "shift+right", "x"], "xe two "),
            ]:  # fmt: skip
                await pilot.press(*keys)
                assert prompt.value == value, keys

    async def test_tab_and_right_insert_the_completion_and_enter_does_not(self):
        async with run_prompt() as (pilot, app, prompt):
            prompt.completer = complete_bilbo
            for key in ("tab", "right"):
                await type_text(pilot, "the bi")
                assert visible_lines(prompt) == ["the bilbo"]
                assert prompt.value == "the bi"
                assert prompt.get_help_line() == "Enter sends the text; tab inserts the grey completion"
                await pilot.press(key)
                assert (prompt.value, prompt.get_help_line()) == ("the bilbo", "Enter sends the text")
                await pilot.press("space", "i", "s", "enter")
                assert app.sent.pop() == "the bilbo is"
            await type_text(pilot, "the bi")
            await pilot.press("enter")
            assert app.sent == ["the bi"]  # without the completion

    async def test_only_the_end_of_the_text_is_completed(self):
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

    async def test_long_paste_is_cut_with_a_notice(self):
        async with run_prompt() as (pilot, app, prompt):
            await type_text(pilot, "is ")
            await paste(pilot, "bilbo " * 200_000)
            assert prompt.value == ("is " + "bilbo " * 200_000)[:MAX_PROMPT_CHARACTERS]
            assert app.notices == ["pasted 3,997 of 1,200,000 characters: a prompt has at most 4,000"]
            await pilot.press("x", "y")
            assert len(prompt.value) == MAX_PROMPT_CHARACTERS
            assert len(app.notices) == 1

    async def test_control_characters_are_removed_with_a_notice(self):
        async with run_prompt() as (pilot, app, prompt):
            for pasted, value, removed in PASTES:
                prompt.value = ""
                app.notices.clear()
                await paste(pilot, pasted)
                assert prompt.value == value
                assert app.notices == ([f"control characters removed: {removed}"] if removed else [])
                prompt.value = pasted
                assert prompt.value == value


def make_history(tmp_path, *prompts):
    history = PromptHistory(tmp_path / "history.jsonl")
    for prompt in prompts:
        history.add(prompt)
    return history


class TestRecall:
    async def test_up_and_down_recall_prompts_and_return_to_the_draft(self, tmp_path):
        async with run_prompt(make_history(tmp_path, "bilbo is", "frodo", "bilbo was")) as (pilot, _, prompt):
            values = []
            for key in ("up", "up", "up", "up", "down", "down", "down", "down"):
                await pilot.press(key)
                values.append(prompt.value)
            assert values == ["bilbo was", "frodo", "bilbo is", "bilbo is", "frodo", "bilbo was", "", ""]
            await type_text(pilot, "bil")
            values.clear()
            for key in ("up", "up", "up", "down", "down"):
                await pilot.press(key)
                values.append(prompt.value)
            assert values == ["bilbo was", "bilbo is", "bilbo is", "bilbo was", "bil"]
            assert prompt.cursor_location == (0, 3)

    async def test_up_moves_within_the_lines_before_it_recalls(self, tmp_path):
        async with run_prompt(make_history(tmp_path, "older")) as (pilot, _, prompt):
            await type_text(pilot, "\ntwo\nlines")  # no recorded prompt starts with this draft
            await pilot.press("up", "up")
            assert prompt.cursor_location[0] == 0
            assert prompt.value == "\ntwo\nlines"
            prompt.value = "old" + "\n"
            await pilot.press("backspace", "up")
            assert prompt.value == "older"

    async def test_sent_prompts_are_recalled_in_the_next_session(self, tmp_path):
        async with run_prompt(make_history(tmp_path)) as (pilot, _, prompt):
            await type_text(pilot, "two\nlines")
            await pilot.press("enter", "up")
            assert prompt.value == "two\nlines"
        async with run_prompt(PromptHistory(tmp_path / "history.jsonl")) as (pilot, _, prompt):
            await pilot.press("up")
            assert prompt.value == "two\nlines"

    async def test_prompt_is_sent_when_the_history_cannot_be_written(self, tmp_path, monkeypatch):
        history = make_history(tmp_path)

        monkeypatch.setattr(history, "add", lambda text: "prompts are not saved: no space")
        async with run_prompt(history) as (pilot, app, _):
            await pilot.press("a", "enter")
            assert app.notices == ["prompts are not saved: no space"]
            assert app.sent == ["a"]
