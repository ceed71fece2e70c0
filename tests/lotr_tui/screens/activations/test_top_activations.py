"""The search for the top activations of a unit, and its list of results."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.widgets import Input

from engine.analysis.activations import BATCH_SIZE, TopActivations, find_top_activations
from engine.data.lines import Line
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.activations.top_activations import UnitTopActivations
from lotr_tui.screens.text.view import TokenTextView
from lotr_tui.session import training_text, unit_search
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.unit_search import count_search_steps
from tests.support import analysis
from tests.support.app import VOCABULARY
from tests.support.open_inspectors import open_session_model, use_training_text
from tests.support.open_models import LINES, bpe_tokenizer
from tests.support.pilot import notices, until


def use_random_training_text(monkeypatch):
    """Make 150 random lines the training text of every run, and return them."""
    rng = np.random.default_rng(1)
    train = tuple(rng.integers(2, len(VOCABULARY), rng.integers(2, 9)).astype(np.int32) for _ in range(150))
    texts = [Line(VOCABULARY.decode(ids).capitalize().replace(" ", "\n", 1)) for ids in train]
    data = SimpleNamespace(tokenizer=VOCABULARY, train_lines=train, train_source_lines=texts)
    monkeypatch.setattr(training_text, "load_training_data", lambda run: data)
    return train


def heading(app):
    return analysis.status_text(app, "#search-heading")


def result_lines(app):
    return analysis.painted_lines(app.screen.query_one(UnitTopActivations))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 20), max_size=200))
def test_the_step_count_is_the_number_of_cancellation_checks(lengths):
    lines = [np.full(length, 2, np.int32) for length in lengths if length]  # a dataset has no empty lines
    checks = []
    if lines:
        find_top_activations(analysis.ONE_LAYER_LSTM, lines, 0, 0, cancelled=lambda: checks.append(1))
        assert len(checks) == count_search_steps(lines) >= -(-len(lines) // BATCH_SIZE)


async def test_results_are_the_top_activations_and_enter_or_a_second_click_loads_a_line(
    make_host, session_model, monkeypatch
):
    lines = use_random_training_text(monkeypatch)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await analysis.open_activations(pilot, session_model)
        await pilot.press("f2", "home", "right", "f4")
        await until(pilot, lambda: analysis.is_idle(app))
        expected = find_top_activations(analysis.TWO_LAYER_LSTM, lines, 1, 1, "cell")
        assert f"of all {expected.num_tokens:,} words" in heading(app)
        examples = [*expected.highest, *expected.lowest]
        results = app.screen.query_one(UnitTopActivations)
        assert list(results.examples) == examples
        rows = result_lines(app)
        assert rows[0].startswith("▲")
        assert f"{examples[0].value:+.3f}" in rows[0]
        assert rows[len(expected.highest)].startswith("▼")
        for row, example in zip(rows[: len(examples)], examples, strict=True):
            before, after = "".join(example.context_before), "".join(example.context_after)
            assert f"{before} [{example.token.strip()}]{after}".strip() in row
        results.focus()
        await pilot.press("end", "home", "pagedown", "pageup", "down", "up", "down", "enter")
        text, selected = app.screen.query_one(TokenTextView), examples[1]
        await until(pilot, lambda: analysis.is_idle(app) and len(text.page.tokens) == len(lines[selected.line_index]))
        await pilot.pause()
        assert analysis.gate_strips(app).selected_value == pytest.approx(selected.value, abs=1e-5)
        assert text.cursor == selected.position
        before = app.screen.query_one(Input).value
        await pilot.click(UnitTopActivations, offset=(20, 3))
        assert app.screen.query_one(Input).value == before
        await pilot.click(UnitTopActivations, offset=(20, 3))
        await until(pilot, lambda: analysis.is_idle(app) and app.screen.query_one(Input).value != before)
        assert app.screen.query_one(Input).value == VOCABULARY.decode(lines[examples[3].line_index]).capitalize()


async def test_results_of_a_model_of_byte_pairs_show_their_context_as_text(make_host, monkeypatch, tmp_path):
    tokenizer = bpe_tokenizer()
    use_training_text(monkeypatch, tokenizer)
    session_model = open_session_model(tokenizer, tmp_path)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await analysis.open_activations(pilot, session_model, "The wizard")
        await pilot.press("home", "f4")
        await until(pilot, lambda: screen.is_idle)
        expected = find_top_activations(session_model.model, tokenizer.encode_lines(LINES), 0, 0)
        results = app.screen.query_one(UnitTopActivations)
        assert results.examples == (*expected.highest, *expected.lowest)
        for row, example in zip(result_lines(app), results.examples, strict=False):
            before, token, after = "".join(example.context_before), example.token, "".join(example.context_after)
            assert token.startswith("<0x") or f"{before}{token}{after}" in LINES[example.line_index]
            space = " " if token.startswith(" ") and token != " " else ""
            assert f"{(before + space)[-20:].lstrip()}[{token.strip(' ') or '·'}]{after[:20]}".rstrip() in row


class EndlessSearch:
    """Substitute for `find_top_activations` that searches half of the text and then waits until it is stopped."""

    def __init__(self, lines):
        self.num_steps = count_search_steps(lines) // 2
        self.half_done = threading.Event()

    def __call__(self, *args, cancelled, **options):
        for _ in range(self.num_steps):
            cancelled()
        self.half_done.set()
        while not cancelled():
            time.sleep(0.01)
        return TopActivations((), (), 123)


async def test_a_search_shows_its_progress_and_is_stopped_by_f4_or_escape(make_host, session_model, monkeypatch):
    search = EndlessSearch(use_random_training_text(monkeypatch))
    monkeypatch.setattr(unit_search, "find_top_activations", search)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await analysis.open_activations(pilot, session_model)
        for key in ("f4", "escape"):
            search.half_done.clear()
            await pilot.press("home", "f4")
            await until(pilot, lambda: search.half_done.is_set() and "%" in heading(app))
            assert "searching for layer 1 unit 0 cell … " in heading(app)
            assert 45 <= int(heading(app).split("%")[0].split()[-1]) <= 100
            assert "f4 stops" in heading(app)
            await pilot.press(key)
            await until(pilot, lambda: analysis.is_idle(app))
            assert "highest ▲ and lowest ▼ of 123 words, stopped early" in heading(app)
            assert isinstance(app.screen, ActivationsScreen)


async def test_a_missing_training_text_is_reported(make_host, tmp_path, monkeypatch):
    app = make_host()
    async with app.run_test(size=(200, 50), notifications=True) as pilot:
        for run in (None, tmp_path / "gone", tmp_path / "other words"):
            if run and run.name == "other words":
                data = SimpleNamespace(tokenizer=None, train_lines=(), train_source_lines=())
                monkeypatch.setattr(training_text, "load_training_data", lambda run, data=data: data)
            await analysis.open_activations(pilot, SessionModel("x", "", analysis.TWO_LAYER_LSTM, run=run))
            await pilot.press("f4")
            await until(pilot, lambda: analysis.is_idle(app))
            if run is None:
                assert "this model has no run" in notices(app)
            else:
                assert heading(app) == "the search failed"
                assert len(result_lines(app)[0].strip()) > 10
