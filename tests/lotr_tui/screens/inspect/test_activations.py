"""Gate strips and activations along a text; painted values are compared with `engine.analysis.activations`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input

from engine.analysis.activations import ACTIVATION_NAMES, record_activations
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import ModelConfig
from engine.data.tokenizers import UNK_ID
from engine.models.combinations import CacheSettings, NeuralCache
from lotr_tui.formatting import BLOCK_HEIGHTS
from lotr_tui.screens.inspect import heat_strip
from lotr_tui.screens.inspect.heat_strip import NEGATIVE_CHARS, POSITIVE_CHARS, HeatStrips, even_columns, value_char
from lotr_tui.screens.inspect.layers import LABEL_WIDTH, MAX_TOKENS, SIGMOID_GATES, ActivationsScreen
from lotr_tui.screens.inspect.text_view import TextView, token_names
from lotr_tui.session.session_model import SessionModel
from tests.support import analysis as ui
from tests.support.app import VOCABULARY
from tests.support.attention import TOKENS
from tests.support.models import random_lstm
from tests.support.open_inspectors import open_session_model
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import notices, until


@pytest.fixture
def session_model(tmp_path):
    return SessionModel("two", "2 layers", ui.TWO_LAYER_LSTM, run=tmp_path)


def expected_activations(lstm=ui.TWO_LAYER_LSTM):
    return record_activations(lstm, tokenize_with_offsets(ui.ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids)


def gate_of(app):
    return ACTIVATION_NAMES[ui.heat_strips(app).row]


def strip_heading(app):
    return ui.painted_lines(ui.heat_strips(app))[0]


def unit_heading(app):
    return ui.status_text(app, "#along-heading")


def unit_lines(app):
    return ui.painted_lines(app.screen.query_one("#along"))


def kind_of(gate):
    return "gate" if gate in SIGMOID_GATES else "signed"


def value_range(char, gate, scale):
    if gate in SIGMOID_GATES:
        return BLOCK_HEIGHTS.index(char) / 8, (BLOCK_HEIGHTS.index(char) + 1) / 8
    if char == heat_strip.ZERO_CHAR:
        return -scale / 8, scale / 8
    level, sign = (POSITIVE_CHARS.index(char), 1) if char in POSITIVE_CHARS else (NEGATIVE_CHARS.index(char), -1)
    low, high = (level + 0.5) / 4 * scale, (level + 1.5) / 4 * scale
    return (low, high) if sign > 0 else (-high, -low)


@given(st.floats(-2, 2), st.sampled_from(ACTIVATION_NAMES), st.floats(0.1, 2))
def test_a_character_stands_for_a_range_around_its_value(value, gate, scale):
    value = abs(value) / 2 if gate in SIGMOID_GATES else max(-scale, min(value, scale))
    low, high = value_range(value_char(value, kind_of(gate), scale), gate, scale)
    assert low - 1e-9 <= value <= high + 1e-9


async def test_painted_strips_fill_the_width_with_the_activations(hosted, session_model):
    layers = expected_activations()
    async with hosted((60, 20), session_model=session_model) as (pilot, app):
        await ui.open_activations(pilot, session_model)
        strips = ui.heat_strips(app)

        def check(layer, first=0):
            for gate, row in zip(ACTIVATION_NAMES, ui.painted_lines(strips)[1:7], strict=True):
                values = layer.get(gate)[-1]
                scale = 1.0 if gate in SIGMOID_GATES else float(np.abs(layer.get(gate)).max())
                assert row[1:].startswith(gate)
                assert float(row.split()[-1]) == pytest.approx(values[strips.item], abs=6e-4)
                cells = row[LABEL_WIDTH : -heat_strip.VALUE_WIDTH]
                assert len(cells) == strips.size.width - LABEL_WIDTH - heat_strip.VALUE_WIDTH
                columns = even_columns(len(values) - first, strips.num_cells, first)
                expected = np.repeat(columns.reduce(values, kind_of(gate)), columns.widths)
                for char, value in zip(cells, expected, strict=True):
                    low, high = value_range(char, gate, scale)
                    assert low - 1e-5 <= value <= high + 1e-5

        check(layers[0])
        assert int(strips.columns().sizes.max()) == 3
        await pilot.press("z", "end")  # the last page of the zoomed strips
        await pilot.pause()
        check(layers[0], len(layers[0].cell[0]) - strips.num_cells)
        await pilot.press("right_square_bracket", "z")
        await pilot.resize_terminal(200, 50)
        await pilot.pause()
        check(layers[1])


async def test_keys_and_clicks_move_the_cursor_over_units_and_gates(hosted, session_model):
    async with hosted((80, 24), session_model=session_model) as (pilot, app):
        await ui.open_activations(pilot, session_model)
        strips, layer = ui.heat_strips(app), expected_activations()[0]
        assert (strips.item, gate_of(app)) == (int(np.abs(layer.cell[-1]).argmax()), "cell")
        await pilot.press("down", "g")
        assert (strips.item, gate_of(app)) == (int(np.abs(layer.hidden[-1]).argmax()), "hidden")
        assert ui.selected_value(strips) == pytest.approx(float(layer.hidden[-1, strips.item]))
        for row, gate in enumerate(ACTIVATION_NAMES, 1):
            expected = strips.columns().largest_position(5, layer.get(gate)[-1])
            await pilot.click(HeatStrips, offset=(1 + LABEL_WIDTH + 5, row))
            assert (strips.item, gate_of(app)) == (expected, gate)


async def test_strips_and_list_follow_the_cursor_of_the_text(hosted, session_model):
    async with hosted((80, 24), session_model=session_model) as (pilot, app):
        await ui.open_activations(pilot, session_model)
        text, strips = app.screen.query_one(TextView), ui.heat_strips(app)
        layer = expected_activations()[0]

        def check(position):
            assert text.cursor == position
            assert f'on reading "{TOKENS[position]}" · word {position + 1} of {len(TOKENS)}' in strip_heading(app)
            assert ui.selected_value(strips) == pytest.approx(float(layer.get(gate_of(app))[position, strips.item]))
            assert any(line.startswith(f"▸{TOKENS[position]}") for line in unit_lines(app))

        check(13)
        await pilot.press("N")
        check(12)
        await pilot.press("e")  # edits the text
        app.screen.query_one(Input).value = "the lamp zyzzyva"
        await pilot.press("enter")
        await until(pilot, lambda: ui.is_idle(app) and '"‹zyzzyva›" · word 3 of 3' in strip_heading(app))
        assert strips.has_focus
        ids = [*VOCABULARY.encode("the lamp").tolist(), UNK_ID]
        expected = record_activations(ui.TWO_LAYER_LSTM, ids)[0].cell[-1, strips.item]
        assert ui.selected_value(strips) == pytest.approx(float(expected))


async def test_a_pinned_unit_stays_shown_along_the_text(hosted, session_model):
    async with hosted((200, 50), session_model=session_model) as (pilot, app):
        await ui.open_activations(pilot, session_model)
        await pilot.press("home", "right", "right", "space")
        await pilot.press("right_square_bracket", "right", "up", "up")
        assert unit_heading(app) == "layer 1 unit 2 cell along the text · pinned"
        values = expected_activations()[0].cell[:, 2]
        rows = unit_lines(app)[: len(TOKENS)]
        assert [row[1:].split()[0] for row in rows] == TOKENS
        assert [float(row[1:].split()[1]) for row in rows] == pytest.approx(values.tolist(), abs=6e-4)
        await pilot.press("space")
        assert unit_heading(app).startswith("layer 2 unit 3 output along the text")


async def test_models_and_texts_that_have_no_activations_or_other_ones(hosted, session_model):
    async with hosted((20, 5), notifications=True, session_model=session_model) as (pilot, app):
        for model, text, message in [
            (ui.make_kneser_ney(), ui.ACTIVATIONS_TEXT, "no LSTM in this model"),
            (ui.TWO_LAYER_LSTM, "?! \x1b[ …", "the text has no words"),
        ]:
            await ui.open_activations(pilot, SessionModel("x", "", model), text)
            await pilot.resize_terminal(200, 50)
            await pilot.pause()
            assert message in strip_heading(app)
            await pilot.press("escape")
            assert not isinstance(app.screen, ActivationsScreen)

        await ui.open_activations(pilot, SessionModel("cached", "", NeuralCache(ui.TWO_LAYER_LSTM, CacheSettings())))
        assert "inside the LSTM as trained" in ui.status_text(app, "#status")
        expected = expected_activations()[0].cell[-1, ui.heat_strips(app).item]
        assert ui.selected_value(ui.heat_strips(app)) == pytest.approx(float(expected))
        await pilot.press("escape")

        screen = await ui.open_activations(pilot, SessionModel("one", "", ui.ONE_LAYER_LSTM), "the lamp " * 600)
        await pilot.press("right_square_bracket")
        assert "layer 1 of 1" in strip_heading(app)
        assert screen.check_action("step_layer", (1,)) is False
        assert f"word {MAX_TOKENS:,} of {MAX_TOKENS:,}" in strip_heading(app)
        assert "1,000 words" in notices(app)


async def test_rows_are_tokens_and_the_cursor_marks_whole_characters(make_host):
    tokenizer = bpe_tokenizer()
    session_model = open_session_model(tokenizer)
    app = make_host(session_model=session_model)
    text = "The wizard’s tower — é 😀?!\nfrost"
    async with app.run_test(size=(120, 60), notifications=True) as pilot:
        screen = await ui.open_activations(pilot, session_model, text)
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
        expected = record_activations(session_model.model, tokens.ids)
        np.testing.assert_allclose(screen.reading.layers[0].cell, expected[0].cell, atol=1e-6)
        rows = [row.replace("▸", " ").split() for row in unit_lines(app)]
        names = token_names(screen.page, tokenizer)
        shown = [row[0] for row in rows if row]
        assert shown == names[-len(shown) :]
        view = app.screen.query_one(TextView)
        assert ui.painted(view).splitlines() == ["The wizard’s tower — é 😀?!¶", "frost"]
        heading = f'on reading "{names[-1]}" of "frost" · token {len(tokens)} of {len(tokens)}'
        assert heading in strip_heading(app)
        bytes_of_smiley = [index for index, token in enumerate(tokens) if token == "😀"]
        view.move_cursor(bytes_of_smiley[0])
        for _ in range(4):
            await pilot.pause()
            assert [part.text for part in view.render_line(0) if part.text and part.style.reverse] == ["😀"]
            await pilot.press("n")


async def test_line_of_a_mogrifier_follows_word_and_layer(hosted, session_model):
    config = ModelConfig(embedding_size=6, hidden_size=8, num_layers=2, mogrifier_rounds=2, mogrifier_rank=3)
    lstm = random_lstm(config, VOCABULARY, seed=1)
    layers = expected_activations(lstm)
    async with hosted((92, 24), session_model=session_model) as (pilot, app):
        await ui.open_activations(pilot, SessionModel("mogrified", "2 layers", lstm))
        for key, layer, position in ((None, 0, 13), ("N", 0, 12), ("right_square_bracket", 1, 12)):
            await pilot.press(*[key] if key else [])
            first, second = (each[position].mean() for each in layers[layer].mogrifier)
            line = ui.status_text(app, "#mogrifier")
            assert line.startswith(f"layer input ×{first:.2f} · hidden ×{second:.2f}  ")
