"""The attention of a text, the strips and lists of its screen, and models that it can and cannot show."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.analysis.activations import attention_rollouts
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.generation.generate import prefill
from engine.models.combinations import CacheSettings, NeuralCache
from engine.models.dialogue import DialogueModel
from lotr_tui.formatting import format_percent
from lotr_tui.screens.inspect import attention, heat_strip
from lotr_tui.screens.inspect.attention import MEAN, ROLLOUT, AttentionScreen, max_recorded_tokens, read_attention
from lotr_tui.screens.inspect.heat_strip import SHADES, HeatStrips, even_columns, named_columns, shade_levels
from lotr_tui.screens.inspect.layers import keep_last_tokens
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.screens.session.conversation_view import create_inside_screen
from lotr_tui.session.session_model import SessionModel
from tests.support import attention as ui
from tests.support.analysis import ACTIVATIONS_TEXT, ONE_LAYER_LSTM, selected_value, status_text
from tests.support.app import VOCABULARY
from tests.support.networks import random_transformer
from tests.support.open_models import bpe_tokenizer, character_tokenizer
from tests.support.pilot import notices, until

TEXT = "Bilbo Baggins is a friend\nthe wizard was lit"
SCRIPT = "GANDALF: we walked all night\nFRODO: the lamp was lit"


@pytest.fixture
def session_model():
    return ui.attention_session_model(VOCABULARY)


def shown(line):
    words = line.replace("▸", " ").split()
    return [word for word in words if not set(word) <= set("█▉▊▋▌▍▎▏")]


async def test_a_pinned_head_shades_the_text_and_is_listed_along_it(hosted, session_model):
    async with hosted((200, 50), session_model=session_model) as (pilot, app):
        screen = await ui.open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        await pilot.press("down", "down", "space")  # pins head 2 of layer 3
        await pilot.press("right_square_bracket", "down", "down")
        weights = ui.expected_record(session_model).weights[2, 1]
        text = app.screen.query_one(TextView)
        for _ in range(3):
            await pilot.press("N")
            await pilot.pause()
            query = text.cursor
            for token in range(len(ui.TOKENS)):
                expected = int(shade_levels(weights[query, token + 1 : token + 2])[0]) if token < query else 0
                assert screen.shade_level(token) == expected, (query, token)
            assert status_text(app, "#along-heading") == "layer 3 head 2 along the text · pinned"
        lines = ui.list_lines(app, "#along")
        assert lines[0].split() == ["Bilbo", "100", "%"]
        for token in range(1, len(ui.TOKENS)):
            target = 1 + int(weights[token, 1 : token + 1].argmax())
            words = shown(lines[token])
            expected = [ui.TOKENS[token], *format_percent(float(weights[token, 0])).split(), ui.NAMES[target]]
            assert words[: len(expected)] == expected
            assert words[4:6] == format_percent(float(weights[token, target])).split()


async def test_each_layer_shows_its_prediction_of_a_token(hosted, session_model):
    async with hosted((200, 50), session_model=session_model) as (pilot, app):
        screen = await ui.open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        record = ui.expected_record(session_model)
        ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
        for key in ("N", "N"):
            token = screen.query_one(TextView).cursor
            log_probs = session_model.model.layer_log_probs(record.layer_outputs[:, token]).astype(np.float64)
            for layer, (line, row) in enumerate(zip(ui.list_lines(app, "#lens"), log_probs, strict=False)):
                name, *figures = shown(line)
                assert name == ("input" if layer == 0 else str(layer))
                assert float(figures[0]) == pytest.approx(-(np.exp(row) * row).sum() / np.log(2), abs=0.06)
                assert int(figures[1]) == 1 + (row > row[ids[token]]).sum()
                assert " ".join(figures[2:4]) == format_percent(float(np.exp(row[ids[token]])))
                best = VOCABULARY.tokens[int(row.argmax())]
                assert figures[4] == best.replace("<unk>", "rare").replace("<eos>", "end")
            await pilot.press(key)
            await until(pilot, lambda: screen.is_idle)
            await pilot.pause()


async def test_a_transformer_of_our_own_shows_its_weights_and_its_last_layer_predicts_as_it_plays(hosted):
    model = random_transformer(VOCABULARY)
    session_model = SessionModel("gpt", "", model)
    async with hosted((120, 35), session_model=session_model) as (pilot, app):
        screen = await ui.open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
        weights = model.record_attention(ids).weights
        await pilot.press("down", "down", "end")
        await pilot.pause()
        assert selected_value(ui.heat_strips(app)) == pytest.approx(float(weights[-1, 1, 13, 13]), rel=1e-5)
        log_probs = prefill(model, ids[:-1].tolist()).log_probs
        last_layer = " ".join(shown(ui.list_lines(app, "#lens")[len(weights)]))
        assert format_percent(float(np.exp(log_probs[ids[-1]]))) in last_layer
        assert f" {1 + int((log_probs > log_probs[ids[-1]]).sum())} " in last_layer
        assert screen.reading.attended(0, ROLLOUT, 13).sum() == pytest.approx(1, abs=1e-5)
        await pilot.press("tab")
        await pilot.pause()
        assert all(line.count(" %") == 2 for line in ui.list_lines(app, "#along")[1:] if line.strip())


def test_the_inspector_depends_on_the_model(session_model):
    cached = SessionModel("cached", "", NeuralCache(session_model.model, CacheSettings()))
    lstm = SessionModel("lstm", "", ONE_LAYER_LSTM)
    for model, name in ((session_model, "AttentionScreen"), (cached, "AttentionScreen"), (lstm, "ActivationsScreen")):
        assert type(create_inside_screen(model, "")).__name__ == name


@pytest.mark.parametrize(
    ("wrapper", "argument", "part"), [(DialogueModel, ("SAM",), ""), (NeuralCache, CacheSettings(), " as trained")]
)
async def test_the_title_tells_a_part_that_predicts_otherwise_than_the_model(hosted, wrapper, argument, part):
    model = SessionModel("gpt", "", wrapper(ui.RandomAttentionModel(bpe_tokenizer()), argument))
    async with hosted((80, 24), session_model=model) as (pilot, app):
        await ui.open_attention(pilot, model, "Sam: the lamp was lit")
        assert f"inside the Transformer{part} · gpt" in status_text(app, "#status")


async def test_models_and_texts_without_attention_and_failures_are_reported(hosted, session_model, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    async with hosted((20, 5), notifications=True, session_model=session_model) as (pilot, app):
        for model, text, message in [
            (SessionModel("x", "", ONE_LAYER_LSTM), ACTIVATIONS_TEXT, "no Transformer in this model"),
            (session_model, "?! \x1b[ …", "the text has no words"),
        ]:
            await ui.open_attention(pilot, model, text)
            await pilot.resize_terminal(120, 35)
            await pilot.pause()
            assert message in ui.strip_lines(app)[0]
            await pilot.press("escape")
            assert not isinstance(app.screen, AttentionScreen)

        text = "we walked all night with our pony " * 20
        screen = await ui.open_attention(pilot, ui.attention_session_model(VOCABULARY, context_size=41), text)
        assert "Only the last 40 words are analysed." in notices(app)
        assert "word 40 of 40" in ui.strip_lines(app)[0]
        assert screen.text.split() == text.split()[-40:]
        await pilot.press("escape")

        monkeypatch.setattr(session_model.model, "layer_log_probs", fail)
        await ui.open_attention(pilot, session_model)
        assert "failed" in status_text(app, "#lens-heading")
        await pilot.press("escape")
        monkeypatch.setattr(session_model.model, "record_attention", fail)
        await ui.open_attention(pilot, session_model)
        assert "cannot compute the attention" in ui.strip_lines(app)[0]


async def test_strips_show_the_weights_of_each_head(hosted, session_model):
    async with hosted((120, 35), session_model=session_model) as (pilot, app):
        screen = await ui.open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        weights = ui.expected_record(session_model).weights
        for layer in (2, 0, 1):  # the last layer first, and from there to the first
            query = screen.query_one(TextView).cursor
            assert query == 13
            lines = ui.strip_lines(app)
            assert lines[0] == f'layer {layer + 1} of 3 · predicting "night" · word 14 of 14'
            assert lines[1].split() == [*ui.NAMES[:-1], "at", "▲"]
            rows = {"all layers": attention_rollouts(weights)[query]}
            rows |= {"mean": weights[layer, :, query].mean(0)}
            rows |= {f"head {head + 1}": weights[layer, head, query] for head in range(4)}
            for line, (label, values) in zip(lines[2:], rows.items(), strict=False):
                assert line[1:12].strip() == label
                start = 12
                for name, level in zip(ui.NAMES[: query + 1], shade_levels(values[: query + 1]), strict=True):
                    assert line[start : start + len(name)] == SHADES[level] * len(name), (label, name)
                    start += len(name) + 1
                assert line.endswith(f" {format_percent(float(values[ui.heat_strips(app).item]))}")
            await pilot.press("right_square_bracket")
            await pilot.pause()
        await pilot.press("home", "down", "end", "0")
        await pilot.pause()
        row = weights[2, 0, 13, :14]
        assert "without the start" in ui.strip_lines(app)[0]
        assert selected_value(ui.heat_strips(app)) == pytest.approx(float(row[13] / row[1:].sum()), rel=1e-4)
        assert ui.strip_lines(app)[4][12:17] == "     "


async def test_the_cursor_moves_over_heads_and_positions_and_follows_the_text(hosted, session_model):
    async with hosted((120, 35), session_model=session_model) as (pilot, app):
        screen = await ui.open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        strips = ui.heat_strips(app)
        weights = ui.expected_record(session_model).weights
        for keys, row, position in [
            (("home", "up"), 0, 0), (("down", "down", "down", "g"), 3, int(weights[2, 1, 13].argmax())),
            (("down", "down", "down", "end"), 5, 13),
        ]:  # fmt: skip
            await pilot.press(*keys)
            await pilot.pause()
            assert screen.selection == (2, row, position), keys
        assert selected_value(strips) == pytest.approx(float(weights[2, 3, 13, 13]), rel=1e-5)
        await pilot.click(HeatStrips, offset=(1 + 12 + 7, 2 + 2))  # below "Bilbo", first head
        await pilot.pause()
        assert (strips.row, strips.item) == (2, 1)


COLUMN_NAMES = st.lists(st.text("ab·日", min_size=1, max_size=20), min_size=1, max_size=40)


@given(COLUMN_NAMES, st.integers(1, 80), st.data())
def test_named_columns_fit_and_contain_the_cursor(names, num_cells, data):
    first, cursor = (data.draw(st.integers(0, len(names) - 1)) for _ in range(2))
    columns = named_columns(names, num_cells, first, cursor)
    assert columns.column_of(cursor) is not None
    assert len(columns.widths) == 1 or sum(columns.widths) + len(columns.widths) - 1 <= num_cells
    for name, width in zip(columns.names, columns.widths, strict=True):
        assert cell_len(name) == width <= heat_strip.MAX_NAME_WIDTH
    for index in range(len(columns.widths)):
        assert columns.column_at(int(columns.edges[index])) == index
    again = named_columns(names, num_cells, int(columns.first_positions[0]), cursor)
    assert again.first_positions.tolist() == columns.first_positions.tolist()


def test_shades_start_at_their_thresholds_and_positions_that_were_not_read_are_blank():
    assert shade_levels(np.array([0.0, 0.019, *heat_strip.THRESHOLDS, 1.0])).tolist() == [0, 0, 1, 2, 3, 4, 4]
    columns = even_columns(6, 3)
    assert columns.reduce(np.array([0.2, 0.8], np.float32)).tolist() == pytest.approx([0.8, 0, 0])
    assert columns.largest_position(2, np.array([0.2, 0.8], np.float32)) == 4


def test_a_token_is_predicted_by_the_position_before_it():
    model = ui.RandomAttentionModel(VOCABULARY)
    tokens = tokenize_with_offsets(TEXT, VOCABULARY, eos_per_line=True)
    reading = read_attention(model, VOCABULARY, tokens)
    weights = model.record_attention(tokens.ids).weights
    names = ["start", "Bilbo", "Baggins", "is", "a", "friend", "¶", "the", "‹wizard›", "was", "lit"]
    assert reading.position_names == names == ["start", *reading.names]
    for token in range(len(tokens)):
        attended = reading.attended(1, 4, token)
        np.testing.assert_array_equal(attended, weights[1, 2, token, : token + 1])
        assert attended.sum() == pytest.approx(1, abs=1e-5)
        others = reading.attended(1, 4, token, without_start=True)
        assert others[0] == 0
        assert others.sum() == pytest.approx(float(token > 0), abs=1e-5)
        mean = reading.attended(1, MEAN, token)
        np.testing.assert_allclose(mean, weights[1, :, token, : token + 1].mean(0), atol=1e-6)
        rollout = attention_rollouts(weights)[token]
        np.testing.assert_allclose(reading.attended(0, ROLLOUT, token), rollout[: token + 1], atol=1e-5)


def test_names_of_speakers_are_positions_of_their_own():
    tokenizer = bpe_tokenizer()
    tokens = tokenize_with_offsets(SCRIPT, tokenizer, cast=("GANDALF", "FRODO"))
    reading = read_attention(ui.RandomAttentionModel(tokenizer), tokenizer, tokens)
    written = "".join(reading.position_names[1:]).replace("·", " ")
    assert written == "Gandalf: we walked all night¶Frodo: the lamp was lit"
    first_of_frodo = next(start for start, speaker in tokens.speakers.items() if speaker == "FRODO")
    assert reading.position_names[reading.token_positions[first_of_frodo] - 1] == ":"
    assert reading.names[first_of_frodo] == "·the"


def test_the_record_is_bounded_by_memory_and_by_the_context():
    assert max_recorded_tokens(ui.RandomAttentionModel(VOCABULARY, context_size=64)) == 63
    model = ui.RandomAttentionModel(VOCABULARY, num_layers=30, num_heads=9, context_size=2048)
    assert 500 <= max_recorded_tokens(model) < math.isqrt(attention.MAX_RECORD_BYTES // (4 * 30 * 9))


@pytest.mark.parametrize(
    "tokenizer", [VOCABULARY, bpe_tokenizer(), character_tokenizer()], ids=["words", "bpe", "characters"]
)
@pytest.mark.parametrize("max_tokens", [1, 5, 40])
def test_the_end_of_a_long_text_is_kept(tokenizer, max_tokens):
    def tokenize(text):
        return tokenize_with_offsets(text, tokenizer, eos_per_line=True)

    text = "the lamp was lit 😀 and we walked\n" * 20 + "all night"
    kept = keep_last_tokens(tokenize(text), max_tokens, tokenize)
    assert 1 <= len(kept) <= max_tokens
    assert text.endswith(kept.text)
    if max_tokens == 40:
        assert text[: -len(kept.text)][-1].isspace()
        assert len(kept) > 25
    short = tokenize("the lamp")
    assert keep_last_tokens(short, len(short), tokenize) is short
