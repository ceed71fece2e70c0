"""Tests of every key binding: the key is pressed in the app, and its effect is observed."""

from contextlib import suppress

import pytest

from lotr_tui.screens.inspect.comparison import LadderScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from tests.support import scenes
from tests.support.app import FakeJob, training_events
from tests.support.bindings.learn import LEARN_APPS
from tests.support.bindings.runs import RUN_APPS, TRAINING_APPS
from tests.support.bindings.session import SESSION_APPS
from tests.support.bindings.texts import TEXT_APPS
from tests.support.pilot import until
from tests.support.tables import iter_binding_tables

APPS = SESSION_APPS | TEXT_APPS | RUN_APPS | TRAINING_APPS | LEARN_APPS
"""Stages that are tested one after the other in one app."""
BINDINGS = {str(binding.id): binding for _, table in iter_binding_tables() for binding in table}


def test_every_binding_has_a_row():
    rows = [row for stages in APPS.values() for stage in stages for row in stage.rows]
    assert {id for row in rows for id in (row.id, row.back) if id} == set(BINDINGS)


@pytest.mark.parametrize("name", APPS)
async def test_keys_have_their_effects(make_app, monkeypatch, tmp_path, name):
    stages = APPS[name]
    scenes.make_deterministic(monkeypatch, times=6)
    monkeypatch.chdir(tmp_path)
    app = make_app(job=FakeJob(training_events()).release() if name in TRAINING_APPS else None)
    async with app.run_test(size=stages[0].size) as pilot:
        app.animation_level = "none"
        first_screen = app.screen
        for stage in stages:
            await close_screens_above(pilot, first_screen)
            await pilot.resize_terminal(*stage.size)
            await stage.set_up(pilot)
            await until_idle(pilot, stage)
            for row in stage.rows:
                await press_and_observe(pilot, stage, row)


def key_of(id):
    return BINDINGS[id].key.split(",")[0]


async def press_and_observe(pilot, stage, row):
    app = pilot.app
    base = app.screen
    if row.focus:
        app.screen.query_one(row.focus).focus()
    if row.first_keys:
        await pilot.press(*row.first_keys)
        await until_idle(pilot, stage)
    before = row.observe(app)
    await pilot.press(key_of(row.id))
    with suppress(AssertionError):
        await until(pilot, lambda: row.is_met(before, row.observe(app)))
    after = row.observe(app)
    assert row.is_met(before, after), f"{row.id}: {before!r} became {after!r}"
    await until_idle(pilot, stage)
    if row.back:
        await pilot.press(key_of(row.back))
        await until(pilot, lambda: app.screen is base)
    if base in app.screen_stack:
        await close_screens_above(pilot, base)


async def close_screens_above(pilot, screen):
    while pilot.app.screen is not screen and screen in pilot.app.screen_stack:
        pilot.app.pop_screen()
        await pilot.pause()


async def until_idle(pilot, stage):
    """Run the app until all texts are complete, unless the stage is about texts that are being written."""
    await pilot.pause()
    views, screen = pilot.app.screen_stack[0].query(ConversationView), pilot.app.screen
    if views and not stage.is_slow:
        await until(pilot, lambda: views.first().conversation.active_reply is None)
    if isinstance(screen, LadderScreen) and not stage.is_slow:
        await until(pilot, lambda: all(slot.done_event for slot in screen.slots))
