"""Older prompts, recalled in the prompt."""

from lotr_tui.session.history import History, HistoryError
from tests.lotr_tui.widgets.test_prompt import Pilots, type_text


def history_of(tmp_path, *texts):
    history = History(tmp_path / "history.jsonl")
    for text in texts:
        history.add(text)
    return history


async def test_up_and_down_recall_and_return_to_what_was_typed(tmp_path):
    async with Pilots(prompts=history_of(tmp_path, "bilbo is", "frodo", "bilbo was")) as (pilot, prompt):
        seen = []
        for key in ("up", "up", "up", "up", "down", "down", "down", "down"):
            await pilot.press(key)
            seen.append(prompt.value)
        assert seen == ["bilbo was", "frodo", "bilbo is", "bilbo is", "frodo", "bilbo was", "", ""]
        await type_text(pilot, "bil")
        seen.clear()
        for key in ("up", "up", "up", "down", "down"):
            await pilot.press(key)
            seen.append(prompt.value)
        assert seen == ["bilbo was", "bilbo is", "bilbo is", "bilbo was", "bil"]
        assert prompt.cursor_location == (0, 3)


async def test_up_moves_within_lines_before_it_recalls(tmp_path):
    async with Pilots(prompts=history_of(tmp_path, "older")) as (pilot, prompt):
        await type_text(pilot, "\ntwo\nlines")  # the draft starts no older prompt
        await pilot.press("up", "up")
        assert prompt.cursor_location[0] == 0
        assert prompt.value == "\ntwo\nlines"
        prompt.value = "old" + "\n"
        await pilot.press("backspace", "up")
        assert prompt.value == "older"


async def test_lines_recalled_are_walked_once_the_cursor_has_moved(tmp_path):
    async with Pilots(prompts=history_of(tmp_path, "one", "two\nlines")) as (pilot, prompt):
        await pilot.press("up", "up")
        assert prompt.value == "one"
        await pilot.press("down", "left", "up")
        assert prompt.value == "two\nlines"
        assert prompt.cursor_location[0] == 0
        await pilot.press("up")
        assert prompt.value == "one"
        await pilot.press("down", "home", "down")
        assert prompt.value == ""


async def test_what_was_edited_is_a_new_text_to_recall_from(tmp_path):
    async with Pilots(prompts=history_of(tmp_path, "bilbo is", "bilbo was")) as (pilot, prompt):
        await pilot.press("up", "backspace", "backspace", "backspace", "up", "up")
        assert prompt.value == "bilbo is"
        await pilot.press("down", "down")
        assert prompt.value == "bilbo "


async def test_what_is_sent_is_kept_for_the_next_session(tmp_path):
    async with Pilots(prompts=history_of(tmp_path)) as (pilot, prompt):
        await type_text(pilot, "two\nlines")
        await pilot.press("enter", "up")
        assert prompt.value == "two\nlines"
    async with Pilots(prompts=History(tmp_path / "history.jsonl")) as (pilot, prompt):
        await pilot.press("up")
        assert prompt.value == "two\nlines"


async def test_prompts_that_cannot_be_kept_are_said_and_sent(tmp_path, monkeypatch):
    history = history_of(tmp_path)

    def full(text):
        raise HistoryError("prompts are not kept: no space")

    monkeypatch.setattr(history, "add", full)
    async with Pilots(prompts=history) as (pilot, _):
        app = pilot.app
        await pilot.press("a", "enter")
        assert app.notices == ["prompts are not kept: no space"]
        assert app.sent == ["a"]


async def test_without_prompts_up_and_down_do_nothing():
    async with Pilots() as (pilot, prompt):
        await pilot.press("up", "down", "a", "up", "down")
        assert prompt.value == "a"
