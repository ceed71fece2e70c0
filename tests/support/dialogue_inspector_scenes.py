"""Scenes for snapshots of the inspectors with a model that knows speakers."""

from typing import Any

from textual.pilot import Pilot

from engine.generation.settings import SamplerSettings
from engine.models.dialogue import DialogueModel
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.screens.lens.who_screen import WhoLensScreen
from lotr_tui.session.column_output import PromptContext
from lotr_tui.session.conversation.cast import Roles
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import is_idle
from tests.support.columns import until_columns_ended
from tests.support.dialogues import CAST, dialogue_model, dialogue_session_model
from tests.support.pilot import until

SCRIPT = "GANDALF: where is the ranger?\nFRODO: he walked with our friend\nwe walked all night to the high tower"
SETTINGS = SamplerSettings(top_k=20, max_tokens=20)


def confident_session_model() -> SessionModel:
    """Return a model with low entropy, whose speakers differ much."""
    model = dialogue_model(CAST)
    lstm = model.model
    assert isinstance(lstm, NumpyLSTM)
    weights = {name: 2.5 * value for name, value in lstm.weights.items()}
    sure = DialogueModel(NumpyLSTM(lstm.config, lstm.tokenizer, weights), model.turn_model)
    return SessionModel("scenes", "a small dialogue model", sure)


async def _open_lens(pilot: Pilot[None], *keys: str) -> None:
    await pilot.app.push_screen(WhoLensScreen(confident_session_model(), SCRIPT))
    await until(pilot, lambda: is_idle(pilot.app))
    await pilot.press(*keys)
    await until(pilot, lambda: is_idle(pilot.app))
    pilot.app.clear_notifications()  # that the model has no run
    await pilot.pause(0.1)


async def script_lens(pilot: Pilot[None]) -> None:
    """The surprise of the words of a script, and the cursor on a word."""
    await _open_lens(pilot, "up")


async def who_lens(pilot: Pilot[None]) -> None:
    """The likely speakers of the last line of a script."""
    await _open_lens(pilot, "f5")


async def pair_lens(pilot: Pilot[None]) -> None:
    """The words of a line between two speakers."""
    await _open_lens(pilot, "f5", "f6")


async def speaker_pair_dialog(pilot: Pilot[None]) -> None:
    """The dialog for two speakers, with a name that is not in the cast."""
    await _open_lens(pilot, "f5", "f5")
    app: Any = pilot.app
    await pilot.press("f8")
    await until(pilot, lambda: app.screen.query("Input"))
    app.screen.query_one("Input").value = "Gandalf, Golum"
    await pilot.press("enter")
    await pilot.pause(0.1)


async def speakers_side_by_side(pilot: Pilot[None]) -> None:
    """Three speakers who answer the same line."""
    app: Any = pilot.app
    context = PromptContext("conversation", roles=Roles("", "GOLLUM"))
    screen = SideBySideScreen(dialogue_session_model(), app.runs_dir, "where is the ranger", SETTINGS, 3, 0, context)
    await app.push_screen(screen)
    await until(pilot, lambda: len(screen.slots) == 3)
    await until_columns_ended(pilot, screen)


async def column_dialog(pilot: Pilot[None]) -> None:
    """The dialog for another speaker or model, in which a part of a name was typed."""
    await speakers_side_by_side(pilot)
    await pilot.press("f3", *"go")
    await pilot.pause(0.1)


async def speaker_ladder(pilot: Pilot[None]) -> None:
    """The same line answered by one speaker at five temperatures."""
    app: Any = pilot.app
    context = PromptContext("conversation", roles=Roles("FRODO", "GOLLUM"))
    screen = LadderScreen(dialogue_session_model(), "where is the ranger", SETTINGS, 3, 0, context)
    await app.push_screen(screen)
    await until_columns_ended(pilot, screen)
