"""Columns of slow models: other models do not wait for them, and they can be added by their names."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList, Static

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.comparison import side_by_side
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.model_dialog import ModelChoiceDialog
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.session.baselines import ModelChoice
from lotr_tui.session.column_output import PromptContext
from lotr_tui.session.conversation.cast import Roles, named_speaker
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import MakeHost
from tests.support.app import make_decoder
from tests.support.columns import columns_text, until_columns_ended
from tests.support.pilot import text_of, until
from tests.support.slow_models import REFUSED_TEXT, FakeSlowModel, slow_session_model

SETTINGS = SamplerSettings(max_tokens=20)


@pytest.fixture
def model() -> Iterator[FakeSlowModel]:
    model = FakeSlowModel()
    yield model
    model.release()


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[ModelChoice]:
    """Replace `load_model_choice` by a small model, and return the choices."""
    choices: list[ModelChoice] = []

    def load(choice: ModelChoice, runs_dir: Path | None) -> SessionModel:
        choices.append(choice)
        return SessionModel(choice.name, "", make_decoder())

    monkeypatch.setattr(side_by_side, "load_model_choice", load)
    return choices


def answers(system_prompt: str = "") -> PromptContext:
    return PromptContext("conversation", None, Roles(system_prompt=system_prompt))


async def test_a_fast_column_does_not_wait_for_a_slow_one(
    make_host: MakeHost, model: FakeSlowModel, choices: list[ModelChoice]
) -> None:
    app = make_host()
    async with app.run_test(size=(120, 35)) as pilot:
        model.hold()
        screen = SideBySideScreen(
            slow_session_model(model), None, "bilbo is", SETTINGS, 7, 0, answers("You are Gandalf.")
        )
        await app.push_screen(screen)
        await until(pilot, lambda: len(screen.slots) == 2 and screen.slots[1].output.done_event)
        assert choices == [ModelChoice("run", "bundled")]
        assert screen.slots[0].output.is_empty
        await pilot.press("f6")
        assert screen.selected_index == 1
        model.release()
        await until_columns_ended(pilot, screen)
        assert screen.slots[0].output.token_events
        assert model.chat is not None
        assert [message.text for message in model.chat.encoded[-1]] == ["You are Gandalf.", "bilbo is"]
    assert threading.main_thread().name not in model.threads


async def test_ladder_reads_the_conversation_once(make_host: MakeHost, model: FakeSlowModel) -> None:
    app = make_host()
    async with app.run_test(size=(120, 35)) as pilot:
        screen = LadderScreen(slow_session_model(model), "bilbo is", SETTINGS, 7, 0, answers())
        await app.push_screen(screen)
        await until_columns_ended(pilot, screen)
        assert all(slot.output.token_events for slot in screen.slots)
        assert model.chat is not None
        num_context = len(model.chat.encode(model.chat.encoded[-1]))
        assert model.num_read <= num_context + len(screen.slots) * SETTINGS.max_tokens
    assert threading.main_thread().name not in model.threads


async def test_line_breaks_begin_lines(make_host: MakeHost, model: FakeSlowModel, choices: list[ModelChoice]) -> None:
    model.prefer("\n", 14)
    app = make_host()
    async with app.run_test(size=(120, 35)) as pilot:
        screen = LadderScreen(slow_session_model(model), "bilbo is", SETTINGS, 7, 0, answers())
        await app.push_screen(screen)
        await until_columns_ended(pilot, screen)
        assert "\n" in screen.slots[2].output.shown_words
        assert "¶" not in columns_text(screen)


async def test_conversation_that_the_template_refuses_fails_its_column_alone(
    make_host: MakeHost, model: FakeSlowModel, choices: list[ModelChoice]
) -> None:
    app = make_host()
    async with app.run_test(size=(120, 35)) as pilot:
        screen = SideBySideScreen(slow_session_model(model), None, REFUSED_TEXT, SETTINGS, 7, 0, answers())
        await app.push_screen(screen)
        await until(pilot, lambda: len(screen.slots) == 2)
        await until_columns_ended(pilot, screen)
        assert "chat template cannot write" in screen.slots[0].output.failure


async def test_models_by_others_are_typed_or_chosen(
    make_host: MakeHost, model: FakeSlowModel, choices: list[ModelChoice], tmp_path: Path
) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    app = make_host()
    app.settings_store.change(recent_models=("hf:owner/used-last",))
    async with app.run_test(size=(120, 35)) as pilot:
        screen = SideBySideScreen(slow_session_model(model), None, "bilbo is", SETTINGS, 7, 0, answers())
        await app.push_screen(screen)
        await until(pilot, lambda: len(choices) == 1)
        await pilot.press("f3")
        dialog = app.screen
        assert isinstance(dialog, ModelChoiceDialog)
        options = dialog.query_one(OptionList)
        assert str(options.get_option_at_index(options.option_count - 1).prompt) == "hf:owner/used-last"
        await pilot.press(*"gguf:/missing")
        await pilot.press("enter")
        assert "there is no such file" in text_of(dialog.query_one("#problem", Static))
        dialog.query_one(Input).value = f"gguf:{file}"
        await pilot.press("enter")
        await until(pilot, lambda: len(choices) == 2)
        assert choices[-1] == ModelChoice("run", f"gguf:{file}")
        assert screen.slots[-1].output.title == "small"


def test_speaker_who_is_named_in_a_system_prompt() -> None:
    cast = ("FRODO", "GANDALF", "KING OF THE DEAD", "SOMEONE")
    assert named_speaker(cast, "You are Gandalf, a friend of Frodo.") == "GANDALF"
    assert named_speaker(cast, "You are the King of the Dead") == "KING OF THE DEAD"
    assert named_speaker(cast, "You help.") == ""
