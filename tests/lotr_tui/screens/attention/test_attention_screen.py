"""Tests of the attention screen; painted values are compared with the record of the model."""

from typing import Any

import numpy as np
import pytest
from textual.app import App
from textual.widgets import Input

from engine.analysis.attention import attention_rollout
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Float32Array
from engine.generation.prompt import prefill
from engine.models.attention import AttentionRecord
from engine.models.cache import CacheSettings, NeuralCache
from lotr_tui.formatting import format_percent
from lotr_tui.screens.attention import reading as reading_module
from lotr_tui.screens.attention.attended_list import AttendedList
from lotr_tui.screens.attention.head_along_text import HeadAlongText
from lotr_tui.screens.attention.layer_predictions import LayerPredictions
from lotr_tui.screens.attention.reading import ROLLOUT, HeadId
from lotr_tui.screens.attention.screen import AttentionScreen
from lotr_tui.screens.attention.strip_columns import SHADES, shade_levels
from lotr_tui.screens.attention.strips import AttentionStrips
from lotr_tui.screens.attention.text_view import AttentionTextView
from lotr_tui.screens.session.inspectors import InspectionContext, create_inspector_screen
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import (
    ACTIVATIONS_TEXT,
    ONE_LAYER_LSTM,
    MakeHost,
    painted_lines,
    status_text,
)
from tests.support.app import VOCABULARY
from tests.support.attention import (
    RandomAttentionModel,
    attention_session_model,
    attention_strips,
    open_attention,
)
from tests.support.numpy_transformer import random_transformer
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import notices, until

TOKENS = ["Bilbo", "Baggins", "is", "a", "friend", "the", "‹wizard›", "was", "lit", "¶", "we", "walked", "all", "night"]
NAMES = ["start", *TOKENS]
"""Names of the positions of `ACTIVATIONS_TEXT`."""
SIZES = pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35), (200, 50)])


def expected_record(model: SessionModel, text: str = ACTIVATIONS_TEXT) -> AttentionRecord:
    assert isinstance(model.model, RandomAttentionModel)
    return model.model.record_attention(tokenize_with_offsets(text, VOCABULARY, eos_per_line=True).ids)


def strip_lines(app: App[Any]) -> list[str]:
    return painted_lines(attention_strips(app))


def list_lines(app: App[Any], widget_type: type[Any]) -> list[str]:
    return painted_lines(app.screen.query_one(widget_type))


# Strips


async def test_strips_show_the_weights_of_each_head(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        weights = expected_record(session_model).weights
        for layer in (2, 0, 1):  # the last layer first, and from there to the first
            query = screen.query_one(AttentionTextView).cursor
            assert query == 13
            lines = strip_lines(app)
            assert lines[0] == f'layer {layer + 1} of 3 · predicting "night" · word 14 of 14'
            assert lines[1].split() == NAMES[:-1]
            rows = {"all layers": attention_rollout(weights, query)}
            rows |= {"mean": weights[layer, :, query].mean(0)}
            rows |= {f"head {head + 1}": weights[layer, head, query] for head in range(4)}
            for line, (label, values) in zip(lines[2:], rows.items(), strict=False):
                assert line[1:12].strip() == label
                start = 12
                for name, level in zip(NAMES[: query + 1], shade_levels(values[: query + 1]), strict=True):
                    assert line[start : start + len(name)] == SHADES[level] * len(name), (label, name)
                    start += len(name) + 1
                value = float(values[attention_strips(app).position])
                assert line.endswith(f" {format_percent(value)}")
            await pilot.press("f2")
            await pilot.pause()


async def test_the_cursor_moves_over_heads_and_positions(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        strips = attention_strips(app)
        weights = expected_record(session_model).weights
        for keys, row, position, head_id in [
            (("home",), 1, 0, HeadId(2, None)),
            (("up", "up"), 0, 0, ROLLOUT),
            (("end",), 0, 13, ROLLOUT),
            (("down", "down", "left"), 2, 12, HeadId(2, 0)),
            (("down", "m"), 3, int(weights[2, 1, 13].argmax()), HeadId(2, 1)),
            (("down", "down", "down", "end", "right"), 5, 13, HeadId(2, 3)),
            (("pageup",), 5, 12, HeadId(2, 3)),
            (("pagedown",), 5, 13, HeadId(2, 3)),
        ]:
            await pilot.press(*keys)
            await pilot.pause()
            assert (strips.row, strips.position, strips.head_id) == (row, position, head_id), keys
            marker = strip_lines(app)[-1]
            assert NAMES[position] in marker
            back = 14 - position
            assert marker.endswith("start of the text" if position == 0 else f"{back} word{'s' * (back > 1)} back")
        assert strips.selected_weight == pytest.approx(float(weights[2, 3, 13, 13]), rel=1e-5)
        await pilot.click(AttentionStrips, offset=(1 + 12 + 7, 2 + 2))  # below "Bilbo", first head
        await pilot.pause()
        assert (strips.row, strips.position) == (2, 1)


async def test_the_strips_follow_the_text(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        await pilot.press("down", "end")
        await pilot.press("comma", "comma")
        await pilot.pause()
        strips, weights = attention_strips(app), expected_record(session_model).weights
        assert 'predicting "walked" · word 12 of 14' in strip_lines(app)[0]
        assert strips.position == 11
        assert strips.selected_weight == pytest.approx(float(weights[2, 0, 11, 11]), rel=1e-5)
        app.screen.query_one(AttentionTextView).focus()
        await pilot.press("home")
        await pilot.pause()
        assert strips.num_positions == 1
        assert [line.split()[-2:] for line in strip_lines(app)[2:8]] == [["100", "%"]] * 6


async def test_a_long_text_shares_cells_until_it_is_zoomed(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        text = "we walked all night with our pony " * 20
        await open_attention(pilot, session_model, text)
        strips = attention_strips(app)
        assert strips.columns().positions_per_column == 3
        assert "3 words per cell" in status_text(app, "#legend")
        weights = expected_record(session_model, text).weights[2]
        await pilot.press("down", "down", "m")
        await pilot.pause()
        largest = int(weights[1, 139].argmax())
        assert strips.position == largest
        row = next(line for line in strip_lines(app) if line.startswith("▸"))
        column = strips.columns().column_of(largest)
        assert column is not None
        assert row[12 + column] == SHADES[int(shade_levels(weights[1, 139, largest : largest + 1])[0])]
        await pilot.press("z")
        await pilot.pause()
        assert strips.columns().positions_per_column == 1
        assert app.screen.reading.names[largest] in strip_lines(app)[1].split()  # type: ignore[attr-defined]
        await pilot.press("home")
        await pilot.pause()
        assert strip_lines(app)[1].split()[0] == "start"
        await pilot.press("z")
        await pilot.pause()
        assert strips.columns().positions_per_column == 3


async def test_many_heads_scroll(make_host: MakeHost) -> None:
    session_model = attention_session_model(VOCABULARY, num_heads=16)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(60, 20)) as pilot:
        await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        strips = attention_strips(app)
        seen: set[str] = set()
        for _ in range(17):
            await pilot.press("down")
            await pilot.pause()
            labels = [line[1:12].strip() for line in strip_lines(app)[2:-1]]
            assert labels[:2] == ["all layers", "mean"]
            assert any(line.startswith("▸") for line in strip_lines(app)[2:-1])
            heads = strips.visible_heads
            assert f"heads {heads.start + 1} to {heads.stop} of 16" in status_text(app, "#legend")
            seen |= set(labels)
        assert seen == {"all layers", "mean", *(f"head {head}" for head in range(1, 17))}


async def test_f4_leaves_out_the_start_of_the_text(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        await pilot.press("down", "end", "f4")
        await pilot.pause()
        weights = expected_record(session_model).weights[2, 0, 13, :14]
        assert "without the start" in strip_lines(app)[0]
        assert attention_strips(app).selected_weight == pytest.approx(float(weights[13] / weights[1:].sum()), rel=1e-4)
        assert strip_lines(app)[4][12:17] == "     "
        await pilot.press("f4")
        await pilot.pause()
        assert attention_strips(app).selected_weight == pytest.approx(float(weights[13]), rel=1e-5)


# Text and lists


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


# Logit lens


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


# Screen


@SIZES
async def test_f5_reaches_every_part(make_host: MakeHost, session_model: SessionModel, size: tuple[int, int]) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=size) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        parts: list[type[Any]] = [AttentionStrips, AttendedList, HeadAlongText, LayerPredictions]
        assert screen.query_one(AttentionStrips).has_focus
        for part in [*parts[1:], *parts]:
            await pilot.press("f5")
            await until(pilot, lambda: isinstance(app.focused, part))  # noqa: B023
            assert screen.query_one(part).size.height >= 3
            assert any(line.strip() for line in list_lines(app, part))
        for part in parts:
            is_visible = bool(screen.query_one(part).region)
            assert is_visible == (
                part is LayerPredictions or size[0] == 200 or (size[1] > 30 and part is not AttendedList)
            )


async def test_the_text_can_be_edited(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        await pilot.press("f5", "f6")
        field = screen.query_one(Input)
        assert field.has_focus
        field.value = "the lamp"
        await pilot.press("enter")
        await until(pilot, lambda: screen.is_idle and 'predicting "lamp" · word 2 of 2' in strip_lines(app)[0])
        await until(pilot, lambda: attention_strips(app).has_focus)
        await pilot.press("escape")
        assert not isinstance(app.screen, AttentionScreen)


async def test_the_inspector_depends_on_the_model(make_host: MakeHost, session_model: SessionModel) -> None:
    def screen_name(model: SessionModel) -> str:
        context: Any = InspectionContext(model, "", None, None, None, "", model, None, 0)  # type: ignore[arg-type]
        return type(create_inspector_screen("activations", context)).__name__

    assert screen_name(session_model) == "AttentionScreen"
    assert screen_name(SessionModel("lstm", "", ONE_LAYER_LSTM)) == "ActivationsScreen"
    cached = NeuralCache(RandomAttentionModel(VOCABULARY), CacheSettings())
    assert screen_name(SessionModel("cached", "", cached)) == "AttentionScreen"


async def test_a_transformer_of_our_own_shows_its_weights_and_its_last_layer_predicts_as_it_plays(
    make_host: MakeHost,
) -> None:
    model = random_transformer(VOCABULARY)
    session_model = SessionModel("gpt", "", model)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
        weights = model.record_attention(ids).weights
        await pilot.press("down", "down", "end")
        await pilot.pause()
        strips = attention_strips(app)
        assert strips.head_id == HeadId(len(weights) - 1, 1)
        assert strips.selected_weight == pytest.approx(float(weights[-1, 1, 13, 13]), rel=1e-5)
        log_probs = prefill(model, ids[:-1].tolist()).log_probs
        last_layer = list_lines(app, LayerPredictions)[len(weights)].replace("▸", " ").split()
        assert format_percent(float(np.exp(log_probs[ids[-1]]))) in " ".join(last_layer)
        assert f" {1 + int((log_probs > log_probs[ids[-1]]).sum())} " in " ".join(last_layer)
        assert screen.reading is not None
        assert screen.reading.attended(ROLLOUT, 13).sum() == pytest.approx(1, abs=1e-5)


async def test_only_the_end_of_a_long_text_is_analysed(
    make_host: MakeHost, session_model: SessionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "MAX_RECORD_BYTES", 4 * 3 * 4 * 41**2)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await open_attention(pilot, session_model, "we walked all night with our pony " * 20)
        assert "Only the last 40 words are analysed." in notices(app)
        assert "word 40 of 40" in strip_lines(app)[0]
        assert screen.text.split() == ("we walked all night with our pony " * 20).split()[-40:]


async def test_a_model_or_text_without_attention_is_reported(make_host: MakeHost, session_model: SessionModel) -> None:
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        for model, text, message in [
            (SessionModel("x", "", ONE_LAYER_LSTM), ACTIVATIONS_TEXT, "no Transformer in this model"),
            (session_model, "", "the text has no words"),
            (session_model, "?! \x1b[ …", "the text has no words"),
        ]:
            await open_attention(pilot, model, text)
            assert message in strip_lines(app)[0]
            await pilot.press("right", "down", "m", "z", "end", "pageup", "comma", "f2", "f3", "f4", "f5", "f5", "f6")
            await pilot.press("escape")
            assert not isinstance(app.screen, AttentionScreen)


async def test_a_failure_is_reported(
    make_host: MakeHost, session_model: SessionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        monkeypatch.setattr(session_model.model, "layer_log_probs", fail)
        await open_attention(pilot, session_model)
        assert "failed" in status_text(app, "#lens-heading")
        await pilot.press("escape")
        monkeypatch.setattr(session_model.model, "record_attention", fail)
        await open_attention(pilot, session_model)
        assert "cannot compute the attention" in strip_lines(app)[0]


async def test_a_model_with_one_layer_has_no_layer_key(make_host: MakeHost) -> None:
    session_model = attention_session_model(VOCABULARY, num_layers=1)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_attention(pilot, session_model)
        await pilot.press("f2")
        assert "layer 1 of 1" in strip_lines(app)[0]
        assert screen.check_action("step_layer", (1,)) is False


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
async def test_any_size_and_theme_can_be_used(make_host: MakeHost, session_model: SessionModel, theme: str) -> None:
    app = make_host(session_model=session_model, theme=theme)
    async with app.run_test(size=(20, 5)) as pilot:
        await open_attention(pilot, session_model)
        await pilot.press("right", "down", "z", "m", "comma", "f3", "f4", "f5", "f5", "f5", "f5", "f6", "f6")
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert any(line.startswith("▸") for line in strip_lines(app))


async def test_tokens_of_an_open_vocabulary_are_named(make_host: MakeHost) -> None:
    session_model = attention_session_model(bpe_tokenizer())
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        await open_attention(pilot, session_model, "The wizardry 😀")
        tokens = tokenize_with_offsets("The wizardry 😀", bpe_tokenizer())
        assert f'predicting "<0x80>" of "😀" · token {len(tokens)} of {len(tokens)}' in strip_lines(app)[0]
        assert strip_lines(app)[1].split()[:2] == ["start", "The"]
        assert "tokens back" in strip_lines(app)[-1] or "token back" in strip_lines(app)[-1]


def test_every_binding_has_an_id_and_a_tooltip() -> None:
    for owner in (AttentionScreen, AttentionStrips, AttendedList, HeadAlongText, LayerPredictions):
        for binding in owner.BINDINGS:
            assert not isinstance(binding, tuple)
            assert binding.id
            assert binding.tooltip
