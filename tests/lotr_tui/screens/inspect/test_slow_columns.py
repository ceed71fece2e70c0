"""Columns of slow models: other models do not wait for them, and they can be added by their names."""

import threading

import pytest
from textual.widgets import Input, OptionList, Static

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.inspect.comparison import LadderScreen, ModelChoiceDialog, SideBySideScreen
from lotr_tui.session.cast import Roles, named_speaker
from lotr_tui.session.columns import PromptContext
from lotr_tui.session.training_text import ModelChoice
from tests.support.columns import columns_text, until_columns_ended
from tests.support.pilot import text_of, until
from tests.support.slow_models import REFUSED_TEXT, FakeSlowModel, slow_session_model

SETTINGS = SamplerSettings(max_tokens=20)
CONTEXT = PromptContext("conversation", None, Roles(system_prompt="You are Gandalf."))


@pytest.fixture
def model():
    model = FakeSlowModel()
    yield model
    model.release()


async def test_a_fast_column_does_not_wait_for_a_slow_one_and_models_are_added_by_name(
    make_host, model, loader, tmp_path
):
    loader.released.set()
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    app = make_host()
    app.state.settings.change(recent_models=("hf:owner/used-last",))
    async with app.run_test(size=(120, 35)) as pilot:
        model.hold()
        screen = SideBySideScreen(slow_session_model(model), "bilbo is", SETTINGS, 7, 0, CONTEXT)
        await app.push_screen(screen)
        await until(pilot, lambda: len(screen.slots) == 2 and screen.slots[1].done_event)
        assert loader.choices == [ModelChoice("run", "lstm")]
        assert screen.slots[0].is_empty
        await pilot.press("right")
        assert screen.selected_index == 1
        model.release()
        await until_columns_ended(pilot, screen)
        assert screen.slots[0].token_events
        assert [message.text for message in model.chat.encoded[-1]] == ["You are Gandalf.", "bilbo is"]

        await pilot.press("a")
        dialog = app.screen
        assert isinstance(dialog, ModelChoiceDialog)
        assert str(dialog.query_one(OptionList).options[-1].prompt) == "hf:owner/used-last"
        await pilot.press(*"gguf:/missing", "enter")
        assert "there is no such file" in text_of(dialog.query_one("#problem", Static))
        dialog.query_one(Input).value = f"gguf:{file}"
        await pilot.press("enter")
        await until(pilot, lambda: len(loader.choices) == 2)
        assert loader.choices[-1] == ModelChoice("run", f"gguf:{file}")
        assert screen.slots[-1].title == "small"

        screen.query_one("#prompt", Input).value = REFUSED_TEXT
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        assert "chat template cannot write" in screen.slots[0].failure
    assert threading.main_thread().name not in model.threads


async def test_ladder_reads_the_conversation_once_and_line_breaks_begin_lines(make_host, model):
    model.prefer("\n", 14)
    app = make_host()
    async with app.run_test(size=(120, 35)) as pilot:
        screen = LadderScreen(slow_session_model(model), "bilbo is", SETTINGS, 7, 0, CONTEXT)
        await app.push_screen(screen)
        await until_columns_ended(pilot, screen)
        num_context = len(model.chat.encode(model.chat.encoded[-1]))
        assert model.num_read <= num_context + len(screen.slots) * SETTINGS.max_tokens
        assert "\n" in screen.slots[2].shown_words
        assert "¶" not in columns_text(screen)


def test_speaker_who_is_named_in_a_system_prompt():
    cast = ("FRODO", "GANDALF", "KING OF THE DEAD", "SOMEONE")
    assert named_speaker(cast, "You are Gandalf, a friend of Frodo.") == "GANDALF"
    assert named_speaker(cast, "You are the King of the Dead") == "KING OF THE DEAD"
    assert named_speaker(cast, "You help.") == ""
