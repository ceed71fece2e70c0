"""Tests of the search for the top activations of a unit and of the list of results."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App
from textual.widgets import Input

from engine.analysis.activations import BATCH_SIZE, TopActivations, find_top_activations
from engine.data.lines import Line
from engine.data.tokenizers.base import TokenIds
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.activations.top_activations import UnitTopActivations
from lotr_tui.screens.text.view import TokenTextView
from lotr_tui.session import training_text, unit_search
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.unit_search import count_search_steps
from tests.support import analysis
from tests.support.analysis import MakeHost
from tests.support.app import VOCABULARY
from tests.support.pilot import notices, until


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[TokenIds, ...]:
    """Training text that every run seems to have."""
    rng = np.random.default_rng(1)
    train = tuple(rng.integers(2, len(VOCABULARY), rng.integers(2, 9)).astype(np.int32) for _ in range(150))
    texts = [Line(VOCABULARY.decode(ids).capitalize().replace(" ", "\n", 1)) for ids in train]
    data = SimpleNamespace(tokenizer=VOCABULARY, train_lines=train, train_source_lines=texts)
    monkeypatch.setattr(training_text, "load_training_data", lambda run: data)
    return train


class EndlessSearch:
    """Replacement for `find_top_activations` that searches half of the text and then waits until it is stopped."""

    def __init__(self, lines: tuple[TokenIds, ...]) -> None:
        self.num_steps = count_search_steps(lines) // 2
        self.half_done, self.stopped = threading.Event(), threading.Event()

    def __call__(self, *args: Any, cancelled: Callable[[], bool], **options: Any) -> TopActivations:
        for _ in range(self.num_steps):
            cancelled()
        self.half_done.set()
        while not cancelled():
            self.stopped.wait(0.01)
        self.stopped.set()
        return TopActivations((), (), 123)


@pytest.fixture
def search(lines: tuple[TokenIds, ...], monkeypatch: pytest.MonkeyPatch) -> EndlessSearch:
    search = EndlessSearch(lines)
    monkeypatch.setattr(unit_search, "find_top_activations", search)
    return search


def heading(app: App[Any]) -> str:
    return analysis.status_text(app, "#search-heading")


def result_lines(app: App[Any]) -> list[str]:
    return analysis.painted_lines(app.screen.query_one(UnitTopActivations))


@given(st.lists(st.integers(0, 20), max_size=200))
def test_the_step_count_is_the_number_of_cancellation_checks(lengths: list[int]) -> None:
    lines = [np.full(length, 2, np.int32) for length in lengths if length]  # a dataset has no empty lines
    num_checks = 0

    def count() -> bool:
        nonlocal num_checks
        num_checks += 1
        return False

    if lines:
        find_top_activations(analysis.ONE_LAYER_LSTM, lines, 0, 0, cancelled=count)
        assert num_checks == count_search_steps(lines)
        assert -(-len(lines) // BATCH_SIZE) <= num_checks


@pytest.mark.parametrize("size", [(60, 20), (200, 50)])
async def test_the_results_are_the_top_activations(
    make_host: MakeHost, session_model: SessionModel, lines: tuple[TokenIds, ...], size: tuple[int, int]
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=size) as pilot:
        await analysis.open_activations(pilot, session_model)
        await pilot.press("f2", "home", "right", "f4")
        await until(pilot, lambda: analysis.is_idle(app))
        expected = find_top_activations(analysis.TWO_LAYER_LSTM, lines, 1, 1, "cell")
        assert f"of all {expected.num_tokens:,} words" in heading(app) or size[0] == 60
        results = app.screen.query_one(UnitTopActivations)
        examples = [*expected.highest, *expected.lowest]
        assert list(results.examples) == examples
        rows = result_lines(app)
        assert rows[0].startswith("▲")
        assert f"{examples[0].value:+.3f}" in rows[0]
        assert f"[{examples[0].token.strip()}]" in rows[0]
        if size[0] == 200:
            for row, example in zip(rows[: len(examples)], examples, strict=True):
                before, after = "".join(example.context_before), "".join(example.context_after)
                context = f"{before} [{example.token.strip()}]{after}"
                assert context.strip() in row
            assert rows[len(expected.highest)].startswith("▼")
        results.focus()
        await pilot.press("end", "home", "pagedown", "pageup", "down", "up", "down", "enter")
        text, selected = app.screen.query_one(TokenTextView), examples[1]
        await until(pilot, lambda: analysis.is_idle(app) and len(text.page.tokens) == len(lines[selected.line_index]))
        await pilot.pause()
        assert analysis.gate_strips(app).selected_value == pytest.approx(selected.value, abs=1e-5)
        assert text.cursor == selected.position


async def test_a_second_click_on_a_result_loads_its_line(
    make_host: MakeHost, session_model: SessionModel, lines: tuple[TokenIds, ...]
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await analysis.open_activations(pilot, session_model)
        await pilot.press("f4")
        await until(pilot, lambda: analysis.is_idle(app))
        example, before = app.screen.query_one(UnitTopActivations).examples[3], app.screen.query_one(Input).value
        await pilot.click(UnitTopActivations, offset=(20, 3))
        assert app.screen.query_one(Input).value == before
        await pilot.click(UnitTopActivations, offset=(20, 3))
        await until(pilot, lambda: analysis.is_idle(app) and app.screen.query_one(Input).value != before)
        assert app.screen.query_one(Input).value == VOCABULARY.decode(lines[example.line_index]).capitalize()


@pytest.mark.parametrize("key", ["f4", "escape"])
async def test_a_search_shows_its_progress_and_can_be_stopped(
    make_host: MakeHost, session_model: SessionModel, search: EndlessSearch, key: str
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await analysis.open_activations(pilot, session_model)
        await pilot.press("home", "f4")
        await until(pilot, search.half_done.is_set)
        await until(pilot, lambda: "%" in heading(app))
        assert "searching for layer 1 unit 0 cell … " in heading(app)
        percent = int(heading(app).split("%")[0].split()[-1])
        assert 45 <= percent <= 100
        assert "f4 stops" in heading(app)
        await pilot.press(key)
        await until(pilot, lambda: analysis.is_idle(app))
        assert search.stopped.is_set()
        assert "highest ▲ and lowest ▼ of 123 words, stopped early" in heading(app)
        assert isinstance(app.screen, ActivationsScreen)


async def test_closing_the_screen_stops_the_search(
    make_host: MakeHost, session_model: SessionModel, search: EndlessSearch
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await analysis.open_activations(pilot, session_model)
        await pilot.press("f4")
        app.pop_screen()
        await until(pilot, search.stopped.is_set)


@pytest.mark.parametrize("run", [None, "gone", "other words"])
async def test_a_missing_training_text_is_reported(
    make_host: MakeHost, session_model: SessionModel, tmp_path: Path, run: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if run == "other words":
        data = SimpleNamespace(tokenizer=None, train_lines=(), train_source_lines=())
        monkeypatch.setattr(training_text, "load_training_data", lambda run: data)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50), notifications=True) as pilot:
        session_model = SessionModel("x", "", analysis.TWO_LAYER_LSTM, run=None if run is None else tmp_path / run)
        await analysis.open_activations(pilot, session_model)
        await pilot.press("f4")
        await until(pilot, lambda: analysis.is_idle(app))
        if run is None:
            assert "this model has no run" in notices(app)
        else:
            assert heading(app) == "the search failed"
            assert len(result_lines(app)[0].strip()) > 10
