"""Tests of the activations screen with models whose tokens are parts of words."""

from pathlib import Path

import numpy as np
import pytest

from engine.analysis.activations import find_top_activations, record_activations
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import Tokenizer
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.screens.activations.screen import MAX_TOKENS
from lotr_tui.screens.activations.top_activations import UnitTopActivations
from lotr_tui.screens.activations.unit_activations import UnitActivations
from lotr_tui.screens.text.token_names import part_names
from lotr_tui.screens.text.view import TokenTextView
from lotr_tui.widgets.key_footer import KeyFooter
from tests.support import analysis
from tests.support.analysis import MakeHost, open_activations, painted, painted_lines, status_text
from tests.support.open_inspectors import open_session_model, use_training_text
from tests.support.open_models import LINES, bpe_tokenizer, character_tokenizer
from tests.support.pilot import notices, until

TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])


def test_the_names_of_tokens_show_where_words_begin() -> None:
    tokens = tokenize_with_offsets("The É o?!\n", character_tokenizer(), eos_per_line=True)
    names = ["T", "h", "e", "·", "É", "<0x89>", "·", "o", "?", "!", "¶"]
    assert part_names(tokens, character_tokenizer()) == names
    names = part_names(tokenize_with_offsets("the wizardry", bpe_tokenizer()), bpe_tokenizer())
    assert "".join(names) == "the·wizardry"
    assert len(names) > 2


@TOKENIZERS
async def test_rows_are_tokens_with_their_values(make_host: MakeHost, tokenizer: Tokenizer) -> None:
    session_model = open_session_model(tokenizer)
    assert isinstance(session_model.model, NumpyLSTM)
    app = make_host(session_model=session_model)
    text = "The wizard’s tower — é 😀?!\nfrost"
    async with app.run_test(size=(120, 60)) as pilot:
        screen = await open_activations(pilot, session_model, text)
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
        expected = record_activations(session_model.model, tokens.ids)
        np.testing.assert_allclose(screen.layer_activations[0].cell, expected[0].cell, atol=1e-6)
        rows = [row.replace("▸", " ").split() for row in painted_lines(app.screen.query_one(UnitActivations))]
        names = part_names(tokens, tokenizer)
        shown = [row[0] for row in rows if row]
        assert shown == names[-len(shown) :]
        assert painted(app.screen.query_one(TokenTextView)).splitlines() == ["The wizard’s tower — é 😀?!¶", "frost"]
        heading = painted(analysis.gate_strips(app)).splitlines()[0]
        assert f'on reading "{names[-1]}" of "frost" · token {len(tokens)} of {len(tokens)}' in heading


async def test_the_cursor_marks_the_whole_character_on_each_of_its_bytes(make_host: MakeHost) -> None:
    session_model = open_session_model(character_tokenizer())
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_activations(pilot, session_model, "a 😀b")
        text = app.screen.query_one(TokenTextView)
        marked = []
        for index in range(7):
            text.move_cursor(index)
            await pilot.pause()
            line = text.render_line(0)
            assert line.text.rstrip() == "a 😀b"
            marked += [segment.text for segment in line if segment.text and segment.style and segment.style.reverse]
        assert marked == ["a", " ", "😀", "😀", "😀", "😀", "b"]


@TOKENIZERS
async def test_top_activations_show_their_context_as_text(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    use_training_text(monkeypatch, tokenizer)
    session_model = open_session_model(tokenizer, tmp_path)
    assert isinstance(session_model.model, NumpyLSTM)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await open_activations(pilot, session_model, "The wizard")
        await pilot.press("home", "f4")
        await until(pilot, lambda: screen.is_idle)
        expected = find_top_activations(session_model.model, tokenizer.encode_lines(LINES), 0, 0)
        results = app.screen.query_one(UnitTopActivations)
        assert results.examples == (*expected.highest, *expected.lowest)
        assert f"of all {expected.num_tokens:,} tokens" in status_text(app, "#search-heading")
        rows = painted_lines(results)
        for row, example in zip(rows, results.examples, strict=False):
            before, token, after = "".join(example.context_before), example.token, "".join(example.context_after)
            line = LINES[example.line_index]
            if not token.startswith("<0x"):
                assert f"{before}{token}{after}" in line
            space = " " if token.startswith(" ") and token != " " else ""
            assert f"{(before + space)[-20:].lstrip()}[{token.strip(' ') or '·'}]{after[:20]}".rstrip() in row
        results.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: screen.is_idle and screen.text == LINES[results.examples[1].line_index])
        assert app.screen.query_one(TokenTextView).cursor == results.examples[1].position
        assert analysis.gate_strips(app).selected_value == pytest.approx(results.examples[1].value, abs=1e-5)


@TOKENIZERS
async def test_a_long_text_ends_before_a_word(make_host: MakeHost, tokenizer: Tokenizer) -> None:
    session_model = open_session_model(tokenizer)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await open_activations(pilot, session_model, "wizardry " * 600)
        assert screen.page is not None
        assert MAX_TOKENS - 10 < len(screen.page.tokens) <= MAX_TOKENS
        assert screen.text.endswith("wizardry")
        assert f"Only the first {MAX_TOKENS:,} tokens are analysed." in notices(app)


@TOKENIZERS
@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35), (200, 50)])
async def test_every_size_shows_words_and_rows(
    make_host: MakeHost, tokenizer: Tokenizer, size: tuple[int, int]
) -> None:
    session_model = open_session_model(tokenizer)
    app = make_host(session_model=session_model)
    async with app.run_test(size=size) as pilot:
        await open_activations(pilot, session_model, "The wizard 😀 smiled")
        await pilot.press("comma", "full_stop", "f3", "f5", "f6", "f6")
        assert "The wizard 😀 smiled" in painted(app.screen.query_one(TokenTextView))


async def test_help_and_footer_are_about_tokens(make_host: MakeHost) -> None:
    session_model = open_session_model(bpe_tokenizer())
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        await open_activations(pilot, session_model, LINES[0])
        assert analysis.gate_strips(app).get_help_line().startswith("cell: the memory of each unit after this token;")
        assert "each token" in app.screen.query_one(UnitActivations).get_help_line()
        assert app.screen.query_one(UnitTopActivations).get_help_line().startswith("Training tokens")
        keys = {hint.key_display: hint.description for hint in app.screen.query_one(KeyFooter).visible_keys()}
        assert keys[", ."] == "token"


@pytest.mark.parametrize("width", [60, 120])
async def test_heading_is_cut_only_between_its_parts(make_host: MakeHost, width: int) -> None:
    session_model = open_session_model(bpe_tokenizer())
    app = make_host(session_model=session_model)
    async with app.run_test(size=(width, 30)) as pilot:
        screen = await open_activations(pilot, session_model, "\n".join(LINES[:3]) + " wizardry")
        heading = painted(analysis.gate_strips(app)).splitlines()[0].split(" · ")
        num_tokens = len(tokenize_with_offsets(screen.text, bpe_tokenizer(), eos_per_line=True))
        expected = ["layer 1 of 1", 'on reading "y" of "wizardry"', f"token {num_tokens} of {num_tokens}"]
        assert [part.strip() for part in heading] == (expected if width > 60 else expected[:2])
