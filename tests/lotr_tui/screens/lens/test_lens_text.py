"""The lens's text and the word under its cursor."""

from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import Decoder
from lotr_tui.commands import bindings_of
from lotr_tui.screens.lens import screen as lens
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.text import VIEWS, LensText
from lotr_tui.screens.lens.word import LensWord, percent
from lotr_tui.session.player import Player
from lotr_tui.widgets.status_bar import StatusBar
from tests.lotr_tui.conftest import VOCABULARY, make_decoder
from tests.lotr_tui.screens.lens.test_lens_screen import SIZES, TEXT, MakeHost, look, painted, shown
from tests.lotr_tui.screens.session.test_session_screen import text_of


@pytest.fixture
def kneser_ney(monkeypatch: pytest.MonkeyPatch) -> KneserNey:
    """What the run was trained on is there again."""
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 500).astype(np.int32)
    model = KneserNey(ids, VOCABULARY, 3)
    monkeypatch.setattr(lens, "_kneser_ney", lambda run: model)
    return model


@pytest.fixture
def sure(tmp_path: Path) -> Player:
    """A model that is seldom in doubt, so that all shades are found."""
    config = ModelConfig(embedding_size=12, hidden_size=12)
    weights = {name: 3 * value for name, value in make_decoder().weights.items()}
    return Player("sure", "", Decoder(config, VOCABULARY, weights), run=tmp_path)


@pytest.mark.parametrize(
    ("prob", "text"), [(1.0, "100 %"), (0.123, "12 %"), (0.0312, "3.1 %"), (0.0012, "0.12 %"), (1e-6, "<0.01 %")]
)
def test_percents_have_two_digits(prob: float, text: str) -> None:
    assert percent(prob) == text


@pytest.mark.parametrize("size", SIZES)
async def test_the_text_stands_as_it_was_written_and_unknown_words_in_marks(
    make_host: MakeHost, size: tuple[int, int]
) -> None:
    app = make_host()
    async with app.run_test(size=size) as pilot:
        await look(pilot, app)
        expected = TEXT.replace("wizard", "‹wizard›")
        assert " ".join(shown(app).split()) == " ".join(expected.split())


async def test_words_are_shaded_by_their_bits_with_a_cue_that_is_no_colour(make_host: MakeHost, sure: Player) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, " ".join(["wizard", *VOCABULARY.words[2:]]), sure)
        text = app.screen.query_one(LensText)
        reading = text._network
        assert reading is not None
        text.move_to(99)
        cues: dict[object, set[tuple[bool, ...]]] = {}
        for index in range(len(reading.words) - 1):
            line = text.line_of(index)
            column = text._column(int(text.page.starts[index]), line)
            style = next(iter(text.render_line(line).crop(column, column + 1))).style
            assert style is not None
            cue = (style.underline, style.bold, style.italic, style.dim)
            bits = reading.bits[index]
            step = "unknown" if reading.words.unknown[index] else int(np.digitize(bits, [3, 6, 10]))
            cues.setdefault(step, set()).add(tuple(map(bool, cue)))
        assert len(cues) == 5
        assert all(len(found) == 1 for found in cues.values())  # a step, a cue
        assert len(set().union(*cues.values())) == len(cues)  # and no other step has it


async def test_the_word_under_the_cursor_is_told_of(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await look(pilot, app)
        await pilot.press("shift+tab", "shift+tab")
        app.screen.query_one(LensText).focus()
        await pilot.press("home", "right", "right", "right")
        word = painted(app.screen.query_one(LensWord))
        assert screen._network is not None
        assert screen._kneser_ney is not None
        ours, other = screen._network.guess(3), screen._kneser_ney.guess(3)
        assert ours is not None
        assert other is not None
        assert "WORD  a  sentence 1 of 4" in word
        assert f"{ours.bits:.1f}" in word
        assert f"{other.bits:.1f}" in word
        assert f"{percent(ours.likeliest[0][1])}" in word
        assert f"better by {abs(ours.bits - other.bits):.1f}" in word


# From the word "walked" (10) on: the key, and the word it leads to. Lines: 0-8 | 9-15 | (none) | 16.
MOVES = {
    "lens-text.left": ("left", 9),
    "lens-text.right": ("right", 11),
    "lens-text.up": ("up", 0),
    "lens-text.down": ("down", 16),
    "lens-text.first": ("home", 0),
    "lens-text.last": ("end", 16),
    "lens-text.page-up": ("pageup", 0),
    "lens-text.page-down": ("pagedown", 16),
}


def test_every_binding_is_driven_below_and_says_what_it_does() -> None:
    bindings = bindings_of(LensText)
    assert {binding.id for binding in bindings} == {*MOVES, "lens-text.next", "lens-text.previous"}
    assert all(binding.tooltip for binding in bindings)


async def test_keys_move_the_cursor_over_the_words(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        text = app.screen.query_one(LensText)
        text.focus()
        for name, (key, expected) in MOVES.items():
            text.move_to(10)
            await pilot.press(key)
            if name == "lens-text.up":
                assert text.line_of(text.cursor) == 0
            else:
                assert text.cursor == expected, name


async def test_n_and_p_go_from_surprise_to_surprise(make_host: MakeHost, kneser_ney: KneserNey, sure: Player) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await look(pilot, app, " ".join(VOCABULARY.words[2:]), sure)
        assert screen._network is not None
        assert screen._kneser_ney is not None
        surprises = np.flatnonzero(screen._network.bits >= 10).tolist()
        gaps = np.flatnonzero(np.abs(screen._network.bits - screen._kneser_ney.bits) >= 3).tolist()
        text = app.screen.query_one(LensText)
        text.focus()
        await pilot.press("home", "n", "n")
        later = [index for index in surprises if index > 0]
        assert len(later) > 2
        assert text.cursor == later[1]
        await pilot.press("p")
        assert text.cursor == later[0]
        await pilot.press("end", "n")
        assert text.cursor == len(screen._network.words) - 1  # there is no further one
        await pilot.press("f2", "f2", "home", "n")
        assert text.cursor == next(index for index in gaps if index > 0)


async def test_f2_goes_through_the_views(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await look(pilot, app)
        text = app.screen.query_one(LensText)
        for view in (*VIEWS[1:], VIEWS[0]):
            await pilot.press("f2")
            assert text.view == view
            bits = [reading.bits for reading in (screen._network, screen._kneser_ney) if reading is not None]
            found = {
                "network": np.digitize(bits[0], [3, 6, 10]),
                "Kneser-Ney": np.digitize(bits[1], [3, 6, 10]),
                "difference": np.digitize(bits[1] - bits[0], [-3, -1, 1, 3]),
            }[view]
            names = ["expected", "usual", "surprising", "astonishing"]
            if view == "difference":
                names = ["much-worse", "worse", "even", "better", "much-better"]
                assert "Kneser-Ney by 3" in text_of(app.screen.query_one("#legend", StatusBar))
            known = np.flatnonzero(~text.page.words.unknown)
            assert [text._shade(index) for index in known] == [f"lens--{names[found[index]]}" for index in known]


async def test_a_click_chooses_word_and_sentence(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await look(pilot, app)
        text = app.screen.query_one(LensText)
        x = text._column(int(text.page.starts[10]), 1)
        await pilot.click(LensText, offset=(1 + x, 1))
        assert text.cursor == 10
        await pilot.click(LensText, offset=(60, 0))  # behind the line's end: its last word
        assert text.cursor == 8
        await pilot.click(LensText, offset=(5, 2))  # a line without a word
        await pilot.click(LensText, offset=(5, 12))  # below the text
        assert text.cursor == 8
        await pilot.click(LensSentences, offset=(5, 2))
        await pilot.pause()
        assert screen._words is not None
        assert text.cursor == screen._words.sentences[2]


async def test_resized_from_wide_to_hardly_anything(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app)
        text = app.screen.query_one(LensText)
        text.focus()
        for size in ((20, 5), (60, 20), (5, 2), (120, 30)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await pilot.press("end", "up", "pagedown", "home", "f3", "f2", "f3")
        assert shown(app).startswith("Bilbo Baggins is a friend.")


@pytest.mark.parametrize("theme", ["textual-light", "ansi-light", "ansi-dark"])
async def test_other_themes(make_host: MakeHost, kneser_ney: KneserNey, theme: str) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        before = shown(app)
        app.theme = theme
        await pilot.pause()
        assert shown(app) == before
