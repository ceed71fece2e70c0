"""Text, lists and logit lens of the attention screen; painted values are compared with the record of the model."""

import numpy as np
import pytest

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Float32Array
from lotr_tui.formatting import format_percent
from lotr_tui.screens.attention.attended_list import AttendedList
from lotr_tui.screens.attention.head_along_text import HeadAlongText
from lotr_tui.screens.attention.layer_predictions import LayerPredictions
from lotr_tui.screens.attention.strip_columns import shade_levels
from lotr_tui.screens.attention.text_view import AttentionTextView
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import ACTIVATIONS_TEXT, MakeHost, status_text
from tests.support.app import VOCABULARY
from tests.support.attention import (
    NAMES,
    TOKENS,
    RandomAttentionModel,
    attention_strips,
    expected_record,
    list_lines,
    open_attention,
)
from tests.support.pilot import until


async def test_a_pinned_head_shades_the_text_while_the_cursor_moves(
    make_host: MakeHost, session_model: SessionModel
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        await pilot.press("down", "down", "f3", "f2", "down", "down")  # head 2 of layer 3 is pinned
        weights = expected_record(session_model).weights[2, 1]
        text = app.screen.query_one(AttentionTextView)
        for _ in range(5):
            await pilot.press("comma")
            await pilot.pause()
            query = text.cursor
            for token in range(len(TOKENS)):
                expected = int(shade_levels(weights[query, token + 1 : token + 2])[0]) if token < query else 0
                assert text.shade_level(token) == expected, (query, token)
                is_later = "attention-text--later" in text.token_component_classes(token)
                assert is_later == (token > query)
            heading = status_text(app, "#attended-heading")
            assert heading == "layer 3 head 2 looks most at · pinned"
            rows = [line.replace("▸", " ").split() for line in list_lines(app, AttendedList)[: query + 1]]
            order = np.argsort(-weights[query, : query + 1], kind="stable")
            assert [row[0] for row in rows] == [NAMES[position] for position in order]
            numbers = [format_percent(float(weights[query, position])).split()[0] for position in order]
            assert [row[-3] if row[-1] != "%" else row[-2] for row in rows] == numbers
        await pilot.press("f3")
        await pilot.pause()
        assert status_text(app, "#attended-heading") == "layer 1 head 4 looks most at"


async def test_a_head_along_the_text_shows_what_it_attends_to_most(
    make_host: MakeHost, session_model: SessionModel
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        await pilot.press("down", "f3")
        weights = expected_record(session_model).weights[2, 0]
        lines = list_lines(app, HeadAlongText)
        assert lines[0].split() == ["Bilbo", "100", "%"]
        for token in range(1, len(TOKENS)):
            target = 1 + int(weights[token, 1 : token + 1].argmax())
            words = lines[token].replace("▸", " ").split()
            expected = [TOKENS[token], *format_percent(float(weights[token, 0])).split(), NAMES[target]]
            assert words[: len(expected)] == expected
            assert words[4:6] == format_percent(float(weights[token, target])).split()
        app.screen.query_one(HeadAlongText).focus()
        await pilot.press("up")
        await pilot.pause()
        assert app.screen.query_one(AttentionTextView).cursor == 12


async def test_the_list_of_positions_moves_the_cursor_of_the_strips(
    make_host: MakeHost, session_model: SessionModel
) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        attended = app.screen.query_one(AttendedList)
        attended.focus()
        await pilot.press("home", "down")
        await pilot.pause()
        assert attention_strips(app).position == attended.positions[1]


async def test_each_layer_shows_its_prediction(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        model, record = session_model.model, expected_record(session_model)
        assert isinstance(model, RandomAttentionModel)
        ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
        for _ in range(3):
            token = screen.query_one(AttentionTextView).cursor
            log_probs = model.layer_log_probs(record.layer_outputs[:, token]).astype(np.float64)
            lines = list_lines(app, LayerPredictions)
            for layer, (line, row) in enumerate(zip(lines, log_probs, strict=False)):
                words = line.replace("▸", " ").split()
                assert words[0] == ("input" if layer == 0 else str(layer))
                figures = [word for word in words[1:] if not set(word) <= set("█▉▊▋▌▍▎▏")]
                entropy = -(np.exp(row) * row).sum() / np.log(2)
                assert float(figures[0]) == pytest.approx(entropy, abs=0.06)
                assert int(figures[1]) == 1 + (row > row[ids[token]]).sum()
                assert " ".join(figures[2:4]) == format_percent(float(np.exp(row[ids[token]])))
                best = int(row.argmax())
                assert figures[4] == VOCABULARY.tokens[best].replace("<unk>", "rare").replace("<eos>", "end")
            await pilot.press("comma")
            await until(pilot, lambda: screen.is_idle)
            await pilot.pause()


async def test_predictions_are_computed_once_per_token(
    make_host: MakeHost, session_model: SessionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = session_model.model
    assert isinstance(model, RandomAttentionModel)
    calls = []
    layer_log_probs = model.layer_log_probs

    def count_calls(rows: Float32Array) -> Float32Array:
        calls.append(len(rows))
        return layer_log_probs(rows)

    monkeypatch.setattr(model, "layer_log_probs", count_calls)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        assert len(calls) == 1
        for key, count in [("comma", 2), ("full_stop", 2), ("comma", 2), ("f2", 2), ("comma", 3)]:
            await pilot.press(key)
            await until(pilot, lambda: screen.is_idle)
            assert len(calls) == count
        assert model.num_records == 2  # the start alone, for the number of heads, and the text


async def test_the_layers_of_the_lens_are_those_of_the_strips(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        lens = screen.query_one(LayerPredictions)
        assert (screen.layer_index, lens.cursor) == (2, 3)
        lens.focus()
        for key, layer, line in [("up", 1, 2), ("home", 0, 0), ("f2", 1, 2), ("shift+f2", 0, 1), ("shift+f2", 2, 3)]:
            await pilot.press(key)
            await pilot.pause()
            assert (screen.layer_index, lens.cursor) == (layer, line), key
