"""Recall of earlier prompts with the arrow keys."""

from lotr_tui.session.history import HistoryError, PromptHistory
from tests.support.prompt import run_prompt, type_text


def make_history(tmp_path, *prompts):
    history = PromptHistory(tmp_path / "history.jsonl")
    for prompt in prompts:
        history.add(prompt)
    return history


async def test_up_and_down_recall_prompts_and_return_to_the_draft(tmp_path):
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


async def test_up_moves_within_the_lines_before_it_recalls(tmp_path):
    async with run_prompt(make_history(tmp_path, "older")) as (pilot, _, prompt):
        await type_text(pilot, "\ntwo\nlines")  # no recorded prompt starts with this draft
        await pilot.press("up", "up")
        assert prompt.cursor_location[0] == 0
        assert prompt.value == "\ntwo\nlines"
        prompt.value = "old" + "\n"
        await pilot.press("backspace", "up")
        assert prompt.value == "older"


async def test_sent_prompts_are_recalled_in_the_next_session(tmp_path):
    async with run_prompt(make_history(tmp_path)) as (pilot, _, prompt):
        await type_text(pilot, "two\nlines")
        await pilot.press("enter", "up")
        assert prompt.value == "two\nlines"
    async with run_prompt(PromptHistory(tmp_path / "history.jsonl")) as (pilot, _, prompt):
        await pilot.press("up")
        assert prompt.value == "two\nlines"


async def test_prompt_is_sent_when_the_history_cannot_be_written(tmp_path, monkeypatch):
    history = make_history(tmp_path)

    def fail(text):
        raise HistoryError("prompts are not saved: no space")

    monkeypatch.setattr(history, "add", fail)
    async with run_prompt(history) as (pilot, app, _):
        await pilot.press("a", "enter")
        assert app.notices == ["prompts are not saved: no space"]
        assert app.sent == ["a"]
