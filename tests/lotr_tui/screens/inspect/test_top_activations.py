"""The search for the top activations of a unit, and its list of results."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from engine.analysis.activations import BATCH_SIZE, TopActivations, find_top_activations
from engine.data.corpus import Line
from lotr_tui.screens.inspect.activations import ActivationsScreen
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session import training_text
from lotr_tui.session.session_model import SessionModel
from tests.support import analysis
from tests.support.app import VOCABULARY
from tests.support.pilot import until


@pytest.fixture
def session_model(tmp_path):
    return SessionModel("two", "2 layers", analysis.TWO_LAYER_LSTM, run=tmp_path)


def use_random_training_text(monkeypatch):
    """Make 150 random lines the training text of every run, and return them."""
    rng = np.random.default_rng(1)
    train = tuple(rng.integers(2, len(VOCABULARY), rng.integers(2, 9)).astype(np.int32) for _ in range(150))
    texts = [Line(VOCABULARY.decode(ids).capitalize().replace(" ", "\n", 1)) for ids in train]
    data = SimpleNamespace(tokenizer=VOCABULARY, train_lines=train, train_source_lines=texts, cast=())
    monkeypatch.setattr(training_text, "load_training_data", lambda run: data)
    return train


def heading(app):
    return analysis.status_text(app, "#search-heading")


def result_lines(app):
    return analysis.painted_lines(app.screen.query_one("#search"))


async def test_results_are_the_top_activations_and_enter_loads_a_line(make_host, session_model, monkeypatch):
    lines = use_random_training_text(monkeypatch)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await analysis.open_activations(pilot, session_model)
        await pilot.press("right_square_bracket", "home", "right", "slash")
        await until(pilot, lambda: analysis.is_idle(app))
        expected = find_top_activations(analysis.TWO_LAYER_LSTM, lines, 1, 1, "cell")
        assert f"of all {expected.num_tokens:,} words" in heading(app)
        examples = [*expected.highest, *expected.lowest]
        results = app.screen.query_one("#search")
        assert list(app.screen.examples) == examples
        rows = result_lines(app)
        assert rows[0].startswith("▸▲")
        assert f"{examples[0].value:+.3f}" in rows[0]
        assert rows[len(expected.highest)].startswith(" ▼")
        for row, example in zip(rows[: len(examples)], examples, strict=True):
            before, after = "".join(example.context_before), "".join(example.context_after)
            assert f"{before} [{example.token.strip()}]{after}".strip() in row
        results.focus()
        await pilot.press("down", "enter")
        text, selected = app.screen.query_one(TextView), examples[1]
        await until(pilot, lambda: analysis.is_idle(app) and len(text.page.tokens) == len(lines[selected.line_index]))
        await pilot.pause()
        assert analysis.gate_strips(app).selected_value == pytest.approx(selected.value, abs=1e-5)
        assert text.cursor == selected.position


class EndlessSearch:
    """Substitute for `find_top_activations` that searches half of the text and then waits until it is stopped."""

    def __init__(self, lines):
        longest = sorted(map(len, lines), reverse=True)[::BATCH_SIZE]
        self.num_steps = (sum(longest) + len(longest)) // 2
        self.half_done = threading.Event()

    def __call__(self, *args, cancelled, **options):
        for _ in range(self.num_steps):
            cancelled()
        self.half_done.set()
        while not cancelled():
            time.sleep(0.01)
        return TopActivations((), (), 123)


async def test_a_search_shows_its_progress_and_is_stopped_by_its_key_or_escape(make_host, session_model, monkeypatch):
    search = EndlessSearch(use_random_training_text(monkeypatch))
    monkeypatch.setattr(training_text, "find_top_activations", search)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await analysis.open_activations(pilot, session_model)
        for key in ("slash", "escape"):
            search.half_done.clear()
            await pilot.press("home", "slash")
            await until(pilot, lambda: search.half_done.is_set() and "%" in heading(app))
            assert "searching for layer 1 unit 0 cell … " in heading(app)
            assert 45 <= int(heading(app).split("%")[0].split()[-1]) <= 100
            assert "esc stops" in heading(app)
            await pilot.press(key)
            await until(pilot, lambda: analysis.is_idle(app))
            assert "highest ▲ and lowest ▼ of 123 words, stopped early" in heading(app)
            assert isinstance(app.screen, ActivationsScreen)
