"""Parts of the attention screen, its text, and models that it can and cannot show."""

from typing import Any

import numpy as np
import pytest
from textual.widgets import Input

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.generation.prompt import prefill
from engine.models.cache import CacheSettings, NeuralCache
from lotr_tui.formatting import format_percent
from lotr_tui.screens.attention import reading as reading_module
from lotr_tui.screens.attention.attended_list import AttendedList
from lotr_tui.screens.attention.head_along_text import HeadAlongText
from lotr_tui.screens.attention.layer_predictions import LayerPredictions
from lotr_tui.screens.attention.reading import ROLLOUT, HeadId
from lotr_tui.screens.attention.screen import AttentionScreen
from lotr_tui.screens.attention.strips import AttentionStrips
from lotr_tui.screens.session.inspectors import InspectionContext, create_inspector_screen
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import ACTIVATIONS_TEXT, ONE_LAYER_LSTM, MakeHost, status_text
from tests.support.app import VOCABULARY
from tests.support.attention import (
    RandomAttentionModel,
    attention_session_model,
    attention_strips,
    list_lines,
    open_attention,
    strip_lines,
)
from tests.support.numpy_transformer import random_transformer
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import notices, until


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35), (200, 50)])
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
