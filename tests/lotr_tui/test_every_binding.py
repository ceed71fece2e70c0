"""Tests of every key binding: the key is pressed in the app, and its effect is observed."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import Screen

from lotr_tui.commands import collect_bindings, iter_binding_tables
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.session.conversation.view import ConversationView
from tests.support import scenes
from tests.support.app import FakeJob, training_events
from tests.support.bindings.activations import ACTIVATIONS
from tests.support.bindings.attention import ATTENTION
from tests.support.bindings.learn import LEARN
from tests.support.bindings.learn_attention import LEARN_ATTENTION
from tests.support.bindings.learn_counting import LEARN_COUNTING
from tests.support.bindings.learn_memory import LEARN_MEMORY
from tests.support.bindings.learn_perplexity import LEARN_PERPLEXITY
from tests.support.bindings.learn_training import LEARN_TRAINING
from tests.support.bindings.rows import Row, Stage
from tests.support.bindings.runs import RUNS
from tests.support.bindings.session import SESSION
from tests.support.bindings.texts import TEXTS
from tests.support.bindings.training import TRAINING
from tests.support.pilot import MakeApp, until

STAGES: dict[str, Stage] = (
    SESSION
    | TEXTS
    | ACTIVATIONS
    | ATTENTION
    | TRAINING
    | RUNS
    | LEARN
    | LEARN_ATTENTION
    | LEARN_COUNTING
    | LEARN_MEMORY
    | LEARN_PERPLEXITY
    | LEARN_TRAINING
)
BINDINGS: dict[str, Binding] = {str(binding.id): binding for _, table in iter_binding_tables() for binding in table}


def test_every_binding_has_a_row() -> None:
    assert {row.id for stage in STAGES.values() for row in stage.rows} == set(BINDINGS)


def test_every_widget_with_bindings_has_a_title() -> None:
    """The help and the palette group the bindings of widgets by this title."""
    node_types = [node_type for node_type, _ in iter_binding_tables() if not issubclass(node_type, Screen)]
    untitled = [
        node_type for node_type in node_types if collect_bindings(node_type) and not node_type.BINDING_GROUP_TITLE
    ]
    assert not untitled


@pytest.mark.parametrize("name", STAGES)
async def test_key_runs_its_action(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    stage = STAGES[name]
    scenes.make_deterministic(monkeypatch, times=6)
    monkeypatch.chdir(tmp_path)
    job = FakeJob(training_events()).release() if stage.trains else None
    app = make_app(pace=stage.pace, job=job)
    async with app.run_test(size=stage.size) as pilot:
        await stage.set_up(pilot)
        await until_idle(pilot, stage)
        for row in stage.rows:
            base = app.screen
            await pilot.press(*row.first_keys)
            row.prepare()
            await until_idle(pilot, stage)
            before = row.observe(app)
            await pilot.press(BINDINGS[row.id].key.split(",")[0])
            await until_expected(pilot, row, before)
            await until_idle(pilot, stage)
            while base in app.screen_stack and app.screen is not base:
                app.pop_screen()
                await pilot.pause()


async def until_expected(pilot: Pilot[None], row: Row, before: Any) -> None:
    """Run the app until the expected change is observed."""
    app: Any = pilot.app
    with suppress(AssertionError):
        await until(pilot, lambda: row.expect(before, row.observe(app)))
    after = row.observe(app)
    assert row.expect(before, after), f"{row.id}: {before!r} became {after!r}"


async def until_idle(pilot: Pilot[None], stage: Stage) -> None:
    """Run the app until all texts are complete, unless the stage is about texts that are being written."""
    await pilot.pause()
    views = pilot.app.screen_stack[0].query(ConversationView)
    if views and not stage.pace:
        await until(pilot, lambda: views.first().conversation.active_reply is None)
    screen = pilot.app.screen
    if isinstance(screen, LadderScreen) and not stage.pace:
        await until(pilot, lambda: all(slot.output.done_event for slot in screen.slots))
