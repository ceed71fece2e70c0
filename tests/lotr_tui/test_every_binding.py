"""Every action of the binding table: its key is pressed in the app, and what it is for has happened."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot

from lotr_tui.app import LotrApp
from lotr_tui.commands import _tables
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from tests.lotr_tui.conftest import FakeJob, training_events
from tests.lotr_tui.screens.session.test_session_screen import until
from tests.support import scenes
from tests.support.bindings.activations import INSIDE
from tests.support.bindings.rows import Row, Stage
from tests.support.bindings.runs import RUNS
from tests.support.bindings.session import SESSION
from tests.support.bindings.texts import TEXTS
from tests.support.bindings.training import TRAINING

MakeApp = Callable[..., LotrApp]

STAGES: dict[str, Stage] = SESSION | TEXTS | INSIDE | TRAINING | RUNS
KEYS: dict[str, Binding] = {str(binding.id): binding for table in _tables() for binding in table}


def test_no_binding_is_left_out() -> None:
    assert {row.id for stage in STAGES.values() for row in stage.rows} == set(KEYS)


@pytest.mark.parametrize("name", STAGES)
async def test_its_key_does_what_it_is_for(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    stage = STAGES[name]
    scenes.make_fixed(monkeypatch, times=6)
    monkeypatch.chdir(tmp_path)
    job = FakeJob(training_events()).release() if stage.trains else None
    app = make_app(pace=stage.pace, job=job)
    async with app.run_test(size=stage.size) as pilot:
        await stage.set_up(pilot)
        await at_rest(pilot, stage)
        for row in stage.rows:
            base = app.screen
            await pilot.press(*row.first)
            row.prepare()
            await at_rest(pilot, stage)
            before = row.look(app)
            await pilot.press(KEYS[row.id].key.split(",")[0])
            await happened(pilot, row, before)
            await at_rest(pilot, stage)
            while base in app.screen_stack and app.screen is not base:
                app.pop_screen()
                await pilot.pause()


async def happened(pilot: Pilot[None], row: Row, before: Any) -> None:
    """Wait for what is wanted."""
    app: Any = pilot.app
    with suppress(AssertionError):
        await until(pilot, lambda: row.wanted(before, row.look(app)))
    after = row.look(app)
    assert row.wanted(before, after), f"{row.id}: {before!r} became {after!r}"


async def at_rest(pilot: Pilot[None], stage: Stage) -> None:
    """Until all words have come, where they are not what it is about."""
    await pilot.pause()
    views = pilot.app.screen_stack[0].query(ConversationView)
    if views and not stage.pace:
        await until(pilot, lambda: views.first().conversation.writing is None)
    screen = pilot.app.screen
    if isinstance(screen, LadderScreen) and not stage.pace:
        await until(pilot, lambda: all(slot.text.done for slot in screen.slots))
