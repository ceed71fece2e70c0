"""Tests of the shaded text of the lens and of the details of the token under its cursor."""

from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.commands import collect_bindings
from lotr_tui.formatting import format_percent
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.text_view import LENS_VIEWS, LensTextView
from lotr_tui.screens.lens.token_inspector import LensTokenInspector
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import LENS_TEXT, MakeHost, lens_text, open_lens, painted, status_text
from tests.support.app import VOCABULARY, make_decoder


@pytest.fixture
def confident_model(tmp_path: Path) -> SessionModel:
    """Model with large weights: its surprisals cover all shades."""
    config = ModelConfig(embedding_size=12, hidden_size=12)
    weights = {name: 3 * value for name, value in make_decoder().weights.items()}
    return SessionModel("confident", "", NumpyLSTM(config, VOCABULARY, weights), run=tmp_path)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 50)])
async def test_the_text_is_shown_as_written_with_marks_around_unknown_words(
    make_host: MakeHost, size: tuple[int, int]
) -> None:
    app = make_host()
    async with app.run_test(size=size) as pilot:
        await open_lens(pilot)
        expected = LENS_TEXT.replace("wizard", "‹wizard›")
        assert " ".join(lens_text(app).split()) == " ".join(expected.split())


async def test_each_shade_differs_in_text_style_and_not_only_in_colour(
    make_host: MakeHost, confident_model: SessionModel
) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_lens(pilot, " ".join(["wizard", *VOCABULARY.tokens[2:]]), confident_model)
        text, scores = app.screen.query_one(LensTextView), screen.scorer.network_scores
        assert scores is not None
        text.move_cursor(99)
        text_styles: dict[object, set[tuple[bool, ...]]] = {}
        for index in range(len(scores.tokens) - 1):
            column = text.column_of(index)
            style = next(iter(text.render_line(text.line_of(index)).crop(column, column + 1))).style
            assert style is not None
            is_unknown = scores.tokens.unknown_mask[index]
            shade = "unknown" if is_unknown else int(np.digitize(scores.bits[index], [3, 6, 10]))
            text_style = (style.underline, style.bold, style.italic, style.dim)
            text_styles.setdefault(shade, set()).add(tuple(map(bool, text_style)))
        assert len(text_styles) == 5
        assert all(len(styles) == 1 for styles in text_styles.values())
        assert len(set().union(*text_styles.values())) == len(text_styles)


async def test_the_inspector_shows_the_scores_of_the_token_under_the_cursor(
    make_host: MakeHost, kneser_ney: KneserNey
) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_lens(pilot)
        app.screen.query_one(LensTextView).focus()
        await pilot.press("home", "right", "right", "right")
        shown = painted(app.screen.query_one(LensTokenInspector))
        assert screen.scorer.network_scores is not None
        assert screen.scorer.baseline_scores is not None
        network, baseline = screen.scorer.network_scores.token_score(3), screen.scorer.baseline_scores.token_score(3)
        assert network is not None
        assert baseline is not None
        assert "WORD  a  sentence 1 of 4" in shown
        assert f"{network.bits:.1f}" in shown
        assert f"{baseline.bits:.1f}" in shown
        assert format_percent(network.top_tokens[0][1]) in shown
        assert f"better by {abs(network.bits - baseline.bits):.1f}" in shown


MOVES = {
    "lens-text-view.left": ("left", 9),
    "lens-text-view.right": ("right", 11),
    "lens-text-view.up": ("up", 0),
    "lens-text-view.down": ("down", 16),
    "lens-text-view.first": ("home", 0),
    "lens-text-view.last": ("end", 16),
    "lens-text-view.page-up": ("pageup", 0),
    "lens-text-view.page-down": ("pagedown", 16),
}
"""Key of each binding, and the token it leads to from token 10. Tokens of the lines: 0 to 8, 9 to 15, none, 16."""


def test_every_binding_is_tested_and_has_a_tooltip() -> None:
    bindings = collect_bindings(LensTextView)
    assert {binding.id for binding in bindings} == {*MOVES, "lens-text-view.next", "lens-text-view.previous"}
    assert all(binding.tooltip for binding in bindings)


async def test_keys_move_the_token_cursor(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot)
        text = app.screen.query_one(LensTextView)
        text.focus()
        for name, (key, expected) in MOVES.items():
            text.move_cursor(10)
            await pilot.press(key)
            if name == "lens-text-view.up":
                assert text.line_of(text.cursor) == 0
            else:
                assert text.cursor == expected, name


async def test_n_and_p_move_to_the_next_and_previous_surprise(
    make_host: MakeHost, kneser_ney: KneserNey, confident_model: SessionModel
) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_lens(pilot, " ".join(VOCABULARY.tokens[2:]), confident_model)
        network, baseline = screen.scorer.network_scores, screen.scorer.baseline_scores
        assert network is not None
        assert baseline is not None
        surprises = [index for index in np.flatnonzero(network.bits >= 10).tolist() if index > 0]
        differences = np.flatnonzero(np.abs(network.bits - baseline.bits) >= 3).tolist()
        text = app.screen.query_one(LensTextView)
        text.focus()
        await pilot.press("home", "n", "n")
        assert len(surprises) > 2
        assert text.cursor == surprises[1]
        await pilot.press("p")
        assert text.cursor == surprises[0]
        await pilot.press("end", "n")
        assert text.cursor == len(network.tokens) - 1
        await pilot.press("f2", "f2", "home", "n")
        assert text.cursor == next(index for index in differences if index > 0)


async def test_f2_cycles_through_the_views(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await open_lens(pilot)
        text = app.screen.query_one(LensTextView)
        assert screen.scorer.network_scores is not None
        assert screen.scorer.baseline_scores is not None
        network_bits, baseline_bits = screen.scorer.network_scores.bits, screen.scorer.baseline_scores.bits
        for view in (*LENS_VIEWS[1:], LENS_VIEWS[0]):
            await pilot.press("f2")
            assert text.view == view
            shades = {
                "network": np.digitize(network_bits, [3, 6, 10]),
                "Kneser-Ney": np.digitize(baseline_bits, [3, 6, 10]),
                "difference": np.digitize(baseline_bits - network_bits, [-3, -1, 1, 3]),
            }[view]
            names = ["expected", "usual", "surprising", "astonishing"]
            if view == "difference":
                names = ["much-worse", "worse", "even", "better", "much-better"]
                assert "Kneser-Ney by 3" in status_text(app, "#legend")
            for index in np.flatnonzero(~text.page.unknown_mask).tolist():
                assert text.token_component_classes(index) == [f"lens--{names[shades[index]]}"]


async def test_a_click_selects_a_token_or_a_sentence(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_lens(pilot)
        text = app.screen.query_one(LensTextView)
        await pilot.click(LensTextView, offset=(1 + text.column_of(10), 1))
        assert text.cursor == 10
        await pilot.click(LensTextView, offset=(60, 0))  # after the end of the line: its last token
        assert text.cursor == 8
        await pilot.click(LensTextView, offset=(5, 2))  # a line without a token
        await pilot.click(LensTextView, offset=(5, 12))  # below the text
        assert text.cursor == 8
        await pilot.click(LensSentences, offset=(5, 2))
        await pilot.pause()
        assert text.cursor == text.page.tokens.sentence_starts[2]


async def test_the_lens_survives_any_terminal_size(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(200, 50)) as pilot:
        await open_lens(pilot)
        app.screen.query_one(LensTextView).focus()
        for size in ((20, 5), (60, 20), (5, 2), (120, 30)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await pilot.press("end", "up", "pagedown", "home", "f3", "f2", "f3")
        assert lens_text(app).startswith("Bilbo Baggins is a friend.")


@pytest.mark.parametrize("theme", ["textual-light", "ansi-light", "ansi-dark"])
async def test_a_theme_change_keeps_the_text(make_host: MakeHost, kneser_ney: KneserNey, theme: str) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot)
        before = lens_text(app)
        app.theme = theme
        await pilot.pause()
        assert lens_text(app) == before
