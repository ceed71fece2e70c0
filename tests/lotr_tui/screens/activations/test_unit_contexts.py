"""The search for the words that drive a unit, and the list of those found."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input

from engine.analysis.activations import BATCH, Extremes, extremes
from engine.data.vocabulary import Ids
from lotr_tui.screens.activations.screen import InsideScreen
from lotr_tui.screens.activations.unit_contexts import UnitFound
from lotr_tui.screens.text.view import PageText
from lotr_tui.session import unit_search
from lotr_tui.session.player import Player
from lotr_tui.session.unit_search import steps_of
from tests.lotr_tui.conftest import VOCABULARY
from tests.lotr_tui.screens.activations.test_activations_screen import (
    DECODER,
    SMALL,
    TEXT,
    MakeHost,
    at_rest,
    heading,
    look,
    painted,
    strips,
)
from tests.lotr_tui.screens.session.test_session_screen import until


@pytest.fixture
def player(tmp_path: Path) -> Player:
    return Player("two", "2 layers", DECODER, run=tmp_path)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[Ids, ...]:
    """The training text is there."""
    chance = np.random.default_rng(1)
    train = tuple(chance.integers(2, len(VOCABULARY), chance.integers(2, 9)).astype(np.int32) for _ in range(150))
    monkeypatch.setattr(
        unit_search, "training_data", lambda run: SimpleNamespace(vocabulary=VOCABULARY, train_lines=train)
    )
    return train


@given(st.lists(st.integers(0, 20), max_size=200))
def test_steps_are_those_that_a_search_asks(lengths: list[int]) -> None:
    lines = [np.full(length, 2, np.int32) for length in lengths]
    asked = 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    if sum(lengths):
        kept = [line for line in lines if len(line)]  # as a dataset has them
        extremes(SMALL, kept, 0, 0, cancelled=count)
        assert asked == steps_of(kept)
        assert -(-len(kept) // BATCH) <= asked


@pytest.mark.parametrize("size", [(60, 20), (200, 50)])
async def test_what_is_found_are_the_extremes(
    make_host: MakeHost, player: Player, lines: tuple[Ids, ...], size: tuple[int, int]
) -> None:
    app = make_host(player=player)
    async with app.run_test(size=size) as pilot:
        await look(pilot, app, player)
        await pilot.press("f2", "home", "right", "f4")
        await until(pilot, lambda: at_rest(app))
        expected = extremes(DECODER, lines, 1, 1, "cell")
        assert f"of all {expected.words:,} words" in heading(app, "#found-heading") or size[0] == 60
        found = app.screen.query_one(UnitFound)
        items = [*expected.highest, *expected.lowest]
        assert [item for _, item in found._items] == items
        first = painted(app, UnitFound)[0]
        assert first.startswith("▲")
        assert f"{items[0].value:+.3f}" in first
        assert f"[{items[0].word}]" in first
        if size[0] == 200:
            rows = painted(app, UnitFound)[: len(items)]
            for row, item in zip(rows, items, strict=True):
                assert f"{' '.join(item.before)} [{item.word}] {' '.join(item.after)}".strip() in row
            assert rows[len(expected.highest)].startswith("▼")
        found.focus()
        await pilot.press("end", "home", "pagedown", "pageup", "down", "up", "down", "enter")
        await until(
            pilot, lambda: at_rest(app) and len(app.screen.query_one(PageText).page.words) == len(lines[items[1].line])
        )
        await pilot.pause()
        assert strips(app).value == pytest.approx(items[1].value, abs=1e-5)
        assert app.screen.query_one(PageText).cursor == items[1].position


async def test_found_lines_answer_the_mouse(make_host: MakeHost, player: Player, lines: tuple[Ids, ...]) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        await pilot.press("f4")
        await until(pilot, lambda: at_rest(app))
        item = app.screen.query_one(UnitFound)._items[3][1]
        await pilot.click(UnitFound, offset=(20, 3))
        assert app.screen.query_one(Input).value == TEXT
        await pilot.click(UnitFound, offset=(20, 3))
        await until(pilot, lambda: at_rest(app) and app.screen.query_one(Input).value != TEXT)
        assert app.screen.query_one(Input).value == VOCABULARY.decode(lines[item.line])


@pytest.mark.parametrize("key", ["f4", "escape"])
async def test_a_search_says_how_far_it_is_and_can_be_stopped(
    make_host: MakeHost, player: Player, lines: tuple[Ids, ...], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    half, stopped = threading.Event(), threading.Event()

    def slow(*args: Any, cancelled: Callable[[], bool], **options: Any) -> Extremes:
        for _ in range(steps_of(lines) // 2):
            cancelled()
        half.set()
        while not cancelled():
            stopped.wait(0.01)
        stopped.set()
        return Extremes((), (), 123)

    monkeypatch.setattr(unit_search, "extremes", slow)
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        await pilot.press("home", "f4")
        await until(pilot, half.is_set)
        await until(pilot, lambda: "%" in heading(app, "#found-heading"))
        assert "searching for layer 1 unit 0 cell … " in heading(app, "#found-heading")
        share = int(heading(app, "#found-heading").split("%")[0].split()[-1])
        assert 45 <= share <= 100
        assert "f4 stops" in heading(app, "#found-heading")
        await pilot.press(key)
        await until(pilot, lambda: at_rest(app))
        assert stopped.is_set()
        assert "highest and lowest stopped after 123 words" in heading(app, "#found-heading")
        assert isinstance(app.screen, InsideScreen)


async def test_leaving_stops_the_search(
    make_host: MakeHost, player: Player, lines: tuple[Ids, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def slow(*args: Any, cancelled: Callable[[], bool], **options: Any) -> Extremes:
        while not cancelled():
            stopped.wait(0.01)
        stopped.set()
        return Extremes((), (), 0)

    monkeypatch.setattr(unit_search, "extremes", slow)
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        await pilot.press("f4")
        app.pop_screen()
        await until(pilot, stopped.is_set)


@pytest.mark.parametrize("run", [None, "gone", "other words"])
async def test_where_there_is_no_training_text_a_search_says_so(
    make_host: MakeHost, player: Player, tmp_path: Path, run: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if run == "other words":
        data = SimpleNamespace(vocabulary=None, train_lines=())
        monkeypatch.setattr(unit_search, "training_data", lambda run: data)
    app = make_host(player=player)
    async with app.run_test(size=(200, 50), notifications=True) as pilot:
        await look(pilot, app, Player("x", "", DECODER, run=None if run is None else tmp_path / run))
        await pilot.press("f4")
        await until(pilot, lambda: at_rest(app))
        if run is None:
            assert any("no finished run" in note.message for note in app._notifications)
        else:
            assert heading(app, "#found-heading") == "nothing was found"
            assert len(painted(app, UnitFound)[0].strip()) > 10
