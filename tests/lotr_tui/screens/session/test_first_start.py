"""The first start without SmolLM2: one question, and a download beside the small model."""

import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine.errors import InvalidInputError
from engine.models.pretrained.names import BASE_FILE, SMOLLM2, base_folder
from engine.runs.directory import resolve_run
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import SettingsStore
from lotr_tui.session.transcript import Note
from tests.support import pilot as ui


class FakeFetcher:
    """Function that fetches nothing, and stores SmolLM2 once it is released; a failure is raised instead."""

    def __init__(self):
        self.calls = 0
        self.released = threading.Event()
        self.failure = None

    def __call__(self, report, cancelled):
        self.calls += 1
        report(SimpleNamespace(text="downloading", done_bytes=34_000_000, total_bytes=98_000_000))
        while not self.released.wait(0.01):
            if cancelled():
                return
        if self.failure is not None:
            raise self.failure
        store_base()


def store_base():
    folder = base_folder(SMOLLM2)
    folder.mkdir(parents=True)
    (folder / BASE_FILE).touch()


@pytest.fixture
def fetcher():
    fetcher = FakeFetcher()
    yield fetcher
    fetcher.released.set()


@pytest.fixture
def start(make_app, fetcher, loaded, monkeypatch):
    """Return a context with the app as the command without options opens it, with small models.

    The keys answer the question of the first start; without keys, it must not be asked.
    """

    def load(names, *arguments, on_progress, adapters):
        name = names[0] if names else "lstm"
        return replace(SessionModel.from_loaded(loaded), name=name, run=resolve_run(name))

    monkeypatch.setattr("lotr_tui.session.session_model.load_session_model", load)
    monkeypatch.setattr("engine.models.pretrained.fetch.fetch_smollm2", fetcher)

    @asynccontextmanager
    async def start(*keys):
        app = make_app(session_model=ModelLoader())
        async with app.run_test(size=(120, 30)) as pilot:
            if keys:
                await asked(pilot, *keys)
            await ui.until(pilot, lambda: ui.screen_name(app) == "SessionScreen" and app.screen.is_ready)
            yield pilot

    return start


def status(pilot):
    return ui.text_of(pilot.app.screen.query_one("#status"))


def noted(pilot):
    return " ".join("".join(ui.entries(pilot.app, Note)).split()) + ui.notices(pilot.app)


async def asked(pilot, *keys):
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "FirstModelDialog")
    await pilot.press(*keys)


async def use(pilot, name):
    await ui.send(pilot, f"/model {name}")
    await ui.until(pilot, lambda: name in status(pilot))


async def test_smollm2_is_fetched_beside_the_small_model_and_then_used(start, fetcher):
    async with start("enter") as pilot:
        await ui.until(pilot, lambda: "SmolLM2: 34 of 98 MB" in status(pilot))
        fetcher.released.set()
        await ui.until(pilot, lambda: "bundled" in status(pilot))
        await use(pilot, "lstm")
        await use(pilot, "bundled")
    assert fetcher.calls == 1


async def test_a_conversation_that_has_begun_keeps_its_model_and_is_told_how_to_switch(start, fetcher):
    async with start("enter") as pilot:
        await ui.reply_to(pilot)
        fetcher.released.set()
        await ui.until(pilot, lambda: "SmolLM2 is there: /model bundled talks to it" in noted(pilot))
        assert "lstm" in status(pilot)


@pytest.mark.parametrize("keys", [["escape"], ["down", "enter"]])
async def test_the_question_is_asked_once_and_a_command_asks_again(start, fetcher, keys):
    async with start(*keys):
        pass
    async with start() as pilot:
        await ui.send(pilot, "/model bundled")
        await asked(pilot, "escape")
        await ui.send(pilot, "/model smollm2")
        await asked(pilot, "enter")
        await ui.until(pilot, lambda: "SmolLM2: 34 of 98 MB" in status(pilot))
    assert fetcher.calls == 1


async def test_a_failure_is_one_line_and_can_be_tried_again(start, fetcher):
    fetcher.failure = InvalidInputError("no network; use `lotr-tui fetch smollm2`")
    fetcher.released.set()
    async with start("enter") as pilot:
        line = "SmolLM2 was not fetched: no network; use `lotr-tui fetch smollm2`; /model smollm2 tries again"
        await ui.until(pilot, lambda: line in noted(pilot))
        fetcher.failure = None
        await ui.send(pilot, "/model smollm2")
        await asked(pilot, "enter")
        await ui.until(pilot, lambda: "bundled" in status(pilot))


async def test_quitting_while_it_is_fetched_is_quick_and_the_next_start_says_how_to_go_on(start, fetcher):
    async with start("enter") as pilot:
        await pilot.press("ctrl+q")
    assert not pilot.app.state.model_fetch.is_running
    assert SettingsStore().current.first_model == "smollm2"
    async with start() as pilot:
        await ui.until(pilot, lambda: "SmolLM2 is not complete yet; /model smollm2 goes on with it" in noted(pilot))


async def test_nobody_is_asked_where_smollm2_is_there(start):
    store_base()
    async with start() as pilot:
        assert len(pilot.app.screen_stack) == 1
