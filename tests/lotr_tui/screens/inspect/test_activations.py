"""Activations along a text; painted values are compared with `engine.analysis.activations`."""

import numpy as np
import pytest
from textual.widgets import Input

from engine.analysis.activations import record_activations
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import ModelConfig
from engine.data.tokenizers import UNK_ID
from engine.models.combinations import CacheSettings, NeuralCache
from lotr_tui.screens.inspect.activations import MAX_TOKENS, ActivationsScreen
from lotr_tui.screens.inspect.heat_strip import HeatStrips
from lotr_tui.screens.inspect.page import part_names
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import (
    ACTIVATIONS_TEXT,
    ONE_LAYER_LSTM,
    TWO_LAYER_LSTM,
    gate_strips,
    is_idle,
    make_kneser_ney,
    open_activations,
    painted,
    painted_lines,
    status_text,
)
from tests.support.app import VOCABULARY
from tests.support.attention import TOKENS
from tests.support.models import random_lstm
from tests.support.open_inspectors import open_session_model
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import notices, until


@pytest.fixture
def session_model(tmp_path):
    return SessionModel("two", "2 layers", TWO_LAYER_LSTM, run=tmp_path)


def expected_activations(lstm=TWO_LAYER_LSTM, text=ACTIVATIONS_TEXT):
    return record_activations(lstm, tokenize_with_offsets(text, VOCABULARY, eos_per_line=True).ids)


def strip_heading(app):
    return painted_lines(app.screen.query_one(HeatStrips))[0]


def unit_heading(app):
    return status_text(app, "#along-heading")


def unit_lines(app):
    return painted_lines(app.screen.query_one("#along"))


async def test_strips_and_list_follow_the_cursor_of_the_text(make_host, session_model):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_activations(pilot, session_model)
        text, strips = app.screen.query_one(TextView), gate_strips(app)
        layer = expected_activations()[0]

        def check(position):
            assert text.cursor == position
            assert f'on reading "{TOKENS[position]}" · word {position + 1} of {len(TOKENS)}' in strip_heading(app)
            assert strips.selected_value == pytest.approx(float(layer.get(app.screen.gate)[position, strips.item]))
            assert any(line.startswith(f"▸{TOKENS[position]}") for line in unit_lines(app))

        check(13)
        await pilot.press("N")
        check(12)
        text.focus()
        await pilot.press("home")
        await pilot.pause()
        check(0)
        await pilot.click(TextView, offset=(15, 0))
        await pilot.pause()
        check(2)
        await pilot.press("e")  # edits the text
        app.screen.query_one(Input).value = "the lamp zyzzyva"
        await pilot.press("enter")
        await until(pilot, lambda: is_idle(app) and '"‹zyzzyva›" · word 3 of 3' in strip_heading(app))
        assert strips.has_focus
        ids = [*VOCABULARY.encode("the lamp").tolist(), UNK_ID]
        expected = record_activations(TWO_LAYER_LSTM, ids)[0].cell[-1, strips.item]
        assert strips.selected_value == pytest.approx(float(expected))


async def test_a_pinned_unit_stays_shown_along_the_text(make_host, session_model):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_activations(pilot, session_model)
        await pilot.press(
            "home", "right", "right", "space", "right_square_bracket", "right", "up", "up"
        )  # pins a unit and leaves it
        assert unit_heading(app) == "layer 1 unit 2 cell along the text · pinned"
        values = expected_activations()[0].cell[:, 2]
        rows = unit_lines(app)[: len(TOKENS)]
        assert [row[1:].split()[0] for row in rows] == TOKENS
        assert [float(row[1:].split()[1]) for row in rows] == pytest.approx(values.tolist(), abs=6e-4)
        await pilot.press("space")
        assert unit_heading(app).startswith("layer 2 unit 3 output along the text")


async def test_models_and_texts_that_have_no_activations_or_other_ones(make_host, session_model):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(20, 5), notifications=True) as pilot:
        for model, text, message in [
            (make_kneser_ney(), ACTIVATIONS_TEXT, "no LSTM in this model"),
            (TWO_LAYER_LSTM, "?! \x1b[ …", "the text has no words"),
        ]:
            await open_activations(pilot, SessionModel("x", "", model), text)
            await pilot.resize_terminal(200, 50)
            await pilot.pause()
            assert message in strip_heading(app)
            await pilot.press("escape")
            assert not isinstance(app.screen, ActivationsScreen)

        await open_activations(pilot, SessionModel("cached", "", NeuralCache(TWO_LAYER_LSTM, CacheSettings())))
        assert "inside the LSTM as trained" in status_text(app, "#status")
        expected = expected_activations()[0].cell[-1, gate_strips(app).item]
        assert gate_strips(app).selected_value == pytest.approx(float(expected))
        await pilot.press("escape")

        screen = await open_activations(pilot, SessionModel("one", "", ONE_LAYER_LSTM), "the lamp " * 600)
        await pilot.press("right_square_bracket")
        assert "layer 1 of 1" in strip_heading(app)
        assert screen.check_action("step_layer", (1,)) is False
        assert f"word {MAX_TOKENS:,} of {MAX_TOKENS:,}" in strip_heading(app)
        assert "1,000 words" in notices(app)


# Tokens that are parts of words


async def test_rows_are_tokens_and_the_cursor_marks_whole_characters(make_host):
    tokenizer = bpe_tokenizer()
    session_model = open_session_model(tokenizer)
    app = make_host(session_model=session_model)
    text = "The wizard’s tower — é 😀?!\nfrost"
    async with app.run_test(size=(120, 60), notifications=True) as pilot:
        screen = await open_activations(pilot, session_model, text)
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
        expected = record_activations(session_model.model, tokens.ids)
        np.testing.assert_allclose(screen.reading.layers[0].cell, expected[0].cell, atol=1e-6)
        rows = [row.replace("▸", " ").split() for row in unit_lines(app)]
        names = part_names(tokens, tokenizer)
        shown = [row[0] for row in rows if row]
        assert shown == names[-len(shown) :]
        view = app.screen.query_one(TextView)
        assert painted(view).splitlines() == ["The wizard’s tower — é 😀?!¶", "frost"]
        heading = f'on reading "{names[-1]}" of "frost" · token {len(tokens)} of {len(tokens)}'
        assert heading in strip_heading(app)
        bytes_of_smiley = [index for index, token in enumerate(tokens) if token == "😀"]
        view.move_cursor(bytes_of_smiley[0])
        for _ in range(4):
            await pilot.pause()
            assert [part.text for part in view.render_line(0) if part.text and part.style.reverse] == ["😀"]
            await pilot.press("n")


async def test_line_of_a_mogrifier_follows_word_and_layer(make_host, session_model):
    config = ModelConfig(embedding_size=6, hidden_size=8, num_layers=2, mogrifier_rounds=2, mogrifier_rank=3)
    lstm = random_lstm(config, VOCABULARY, seed=1)
    layers = expected_activations(lstm)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(92, 24)) as pilot:
        await open_activations(pilot, SessionModel("mogrified", "2 layers", lstm))
        for key, layer, position in ((None, 0, 13), ("N", 0, 12), ("right_square_bracket", 1, 12)):
            await pilot.press(*[key] if key else [])
            first, second = (each[position].mean() for each in layers[layer].mogrifier)
            line = status_text(app, "#mogrifier")
            assert line.startswith(f"layer input ×{first:.2f} · hidden ×{second:.2f}  ")
