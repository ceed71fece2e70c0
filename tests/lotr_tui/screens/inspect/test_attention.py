"""Parts and lists of the attention screen, and models that it can and cannot show."""

import numpy as np
import pytest

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.generation.generate import prefill
from engine.models.combinations import CacheSettings, NeuralCache
from engine.models.dialogue import DialogueModel
from lotr_tui.formatting import format_percent
from lotr_tui.screens.inspect.attention import ROLLOUT, AttentionScreen
from lotr_tui.screens.inspect.heat_strip import shade_levels
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.screens.session.inspectors import create_inside_screen
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import ACTIVATIONS_TEXT, ONE_LAYER_LSTM, status_text
from tests.support.app import VOCABULARY
from tests.support.attention import (
    NAMES,
    TOKENS,
    RandomAttentionModel,
    attention_session_model,
    attention_strips,
    expected_record,
    list_lines,
    open_attention,
    strip_lines,
)
from tests.support.networks import random_transformer
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import notices, until


@pytest.fixture
def session_model():
    return attention_session_model(VOCABULARY)


def cached(model):
    return NeuralCache(model, CacheSettings())


def shown(line):
    words = line.replace("▸", " ").split()
    return [word for word in words if not set(word) <= set("█▉▊▋▌▍▎▏")]


async def test_a_pinned_head_shades_the_text_and_is_listed_along_it(make_host, session_model):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        await pilot.press(
            "down", "down", "space", "right_square_bracket", "down", "down"
        )  # head 2 of layer 3 is pinned
        weights = expected_record(session_model).weights[2, 1]
        text = app.screen.query_one(TextView)
        for _ in range(3):
            await pilot.press("N")
            await pilot.pause()
            query = text.cursor
            for token in range(len(TOKENS)):
                expected = int(shade_levels(weights[query, token + 1 : token + 2])[0]) if token < query else 0
                assert screen.shade_level(token) == expected, (query, token)
            assert status_text(app, "#along-heading") == "layer 3 head 2 along the text · pinned"
        lines = list_lines(app, "#along")
        assert lines[0].split() == ["Bilbo", "100", "%"]
        for token in range(1, len(TOKENS)):
            target = 1 + int(weights[token, 1 : token + 1].argmax())
            words = shown(lines[token])
            expected = [TOKENS[token], *format_percent(float(weights[token, 0])).split(), NAMES[target]]
            assert words[: len(expected)] == expected
            assert words[4:6] == format_percent(float(weights[token, target])).split()


async def test_each_layer_shows_its_prediction_of_a_token(make_host, session_model):
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        record = expected_record(session_model)
        ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
        for key in ("N", "N"):
            token = screen.query_one(TextView).cursor
            log_probs = session_model.model.layer_log_probs(record.layer_outputs[:, token]).astype(np.float64)
            for layer, (line, row) in enumerate(zip(list_lines(app, "#lens"), log_probs, strict=False)):
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


async def test_a_transformer_of_our_own_shows_its_weights_and_its_last_layer_predicts_as_it_plays(make_host):
    model = random_transformer(VOCABULARY)
    session_model = SessionModel("gpt", "", model)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        screen = await open_attention(pilot, session_model, ACTIVATIONS_TEXT)
        ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
        weights = model.record_attention(ids).weights
        await pilot.press("down", "down", "end")
        await pilot.pause()
        assert attention_strips(app).selected_value == pytest.approx(float(weights[-1, 1, 13, 13]), rel=1e-5)
        log_probs = prefill(model, ids[:-1].tolist()).log_probs
        last_layer = " ".join(shown(list_lines(app, "#lens")[len(weights)]))
        assert format_percent(float(np.exp(log_probs[ids[-1]]))) in last_layer
        assert f" {1 + int((log_probs > log_probs[ids[-1]]).sum())} " in last_layer
        assert screen.reading.attended(ROLLOUT, 13).sum() == pytest.approx(1, abs=1e-5)
        await pilot.press("tab")
        await pilot.pause()
        assert all(line.count(" %") == 2 for line in list_lines(app, "#along")[1:] if line.strip())


def test_the_inspector_depends_on_the_model(session_model):
    for model, name in (
        (session_model, "AttentionScreen"),
        (SessionModel("cached", "", cached(RandomAttentionModel(VOCABULARY))), "AttentionScreen"),
        (SessionModel("lstm", "", ONE_LAYER_LSTM), "ActivationsScreen"),
    ):
        screen = create_inside_screen(model, "")
        assert type(screen).__name__ == name


@pytest.mark.parametrize(
    ("wrap", "part"), [(lambda model: DialogueModel(model, ("SAM",)), ""), (cached, " as trained")]
)
async def test_the_title_tells_a_part_that_predicts_otherwise_than_the_model(make_host, wrap, part):
    model = SessionModel("gpt", "", wrap(RandomAttentionModel(bpe_tokenizer())))
    app = make_host(session_model=model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_attention(pilot, model, "Sam: the lamp was lit")
        assert f"inside the Transformer{part} · gpt" in status_text(app, "#status")


async def test_models_and_texts_without_attention_and_failures_are_reported(make_host, session_model, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    app = make_host(session_model=session_model)
    async with app.run_test(size=(20, 5), notifications=True) as pilot:
        for model, text, message in [
            (SessionModel("x", "", ONE_LAYER_LSTM), ACTIVATIONS_TEXT, "no Transformer in this model"),
            (session_model, "?! \x1b[ …", "the text has no words"),
        ]:
            await open_attention(pilot, model, text)
            await pilot.resize_terminal(120, 35)
            await pilot.pause()
            assert message in strip_lines(app)[0]
            await pilot.press("escape")
            assert not isinstance(app.screen, AttentionScreen)

        text = "we walked all night with our pony " * 20
        screen = await open_attention(pilot, attention_session_model(VOCABULARY, context_size=41), text)
        assert "Only the last 40 words are analysed." in notices(app)
        assert "word 40 of 40" in strip_lines(app)[0]
        assert screen.text.split() == text.split()[-40:]
        await pilot.press("escape")

        monkeypatch.setattr(session_model.model, "layer_log_probs", fail)
        await open_attention(pilot, session_model)
        assert "failed" in status_text(app, "#lens-heading")
        await pilot.press("escape")
        monkeypatch.setattr(session_model.model, "record_attention", fail)
        await open_attention(pilot, session_model)
        assert "cannot compute the attention" in strip_lines(app)[0]
