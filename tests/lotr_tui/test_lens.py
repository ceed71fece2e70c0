"""The lens, driven as a person would."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.combine import Combiner
from engine.config import ModelConfig
from engine.decoder import Decoder
from engine.evaluation import evaluate
from engine.lens import split
from engine.lm import LogProbs, State
from engine.ngram import KneserNey
from engine.runs import load, resolve
from engine.vocabulary import EOS_ID, Vocabulary, tokenize
from lotr_tui.app import LotrApp
from lotr_tui.screens import lens
from lotr_tui.screens.ask_path import AskPath
from lotr_tui.screens.lens import LensScreen
from lotr_tui.session import Player
from lotr_tui.widgets.lens_box import MOST_CHARACTERS, LensBox
from lotr_tui.widgets.lens_page import Page, break_lines, clean
from lotr_tui.widgets.lens_sentences import LensSentences
from lotr_tui.widgets.lens_text import VIEWS, LensText
from lotr_tui.widgets.lens_word import LensWord, percent
from lotr_tui.widgets.status_bar import StatusBar
from tests.lotr_tui.conftest import VOCABULARY, make_decoder
from tests.lotr_tui.test_play_screen import text_of, until

MakeApp = Callable[..., LotrApp]

TEXT = "Bilbo Baggins is a friend. The wizard was lit!\nWe walked all night with our pony.\n\nBread"
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(list("aBz9' .!?\n\r\t\x1b\u2028İ文́\u200d"))), max_size=80)
SIZES = [(60, 20), (80, 24), (200, 50)]


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


def painted(widget: LensText | LensSentences | LensWord) -> str:
    return "\n".join(widget.render_line(y).text.rstrip() for y in range(widget.size.height)).rstrip()


def shown(app: LotrApp) -> str:
    return painted(app.screen.query_one(LensText))


def figures(app: LotrApp) -> str:
    return text_of(app.screen.query_one("#figures", StatusBar))


def at_rest(app: LotrApp) -> bool:
    screen = app.screen
    assert isinstance(screen, LensScreen)
    idle = not screen._workers and screen._building is None and screen._typing is None
    return idle and screen._network is not None and not screen._drain_timer._active.is_set()


async def look(pilot: Pilot[None], app: LotrApp, text: str = TEXT, player: Player | None = None) -> LensScreen:
    """Open the lens and wait until all is read."""
    screen = LensScreen(player or app._player, text)  # type: ignore[arg-type]
    await app.push_screen(screen)
    await until(pilot, lambda: at_rest(app))
    return screen


# What is shown, without an app


@given(TEXTS, st.sampled_from(["words", "spaces"]))
def test_a_clean_text_is_printable_and_has_the_same_words(text: str, tokenizer: str) -> None:
    cleaned = clean(text)
    assert cleaned.replace("\n", "").isprintable()
    assert [tokenize(line, tokenizer) for line in cleaned.splitlines()] == [  # type: ignore[arg-type]
        tokenize(line, tokenizer)
        for line in text.splitlines()  # type: ignore[arg-type]
    ]


@given(TEXTS, st.sampled_from(["words", "spaces"]), st.booleans())
def test_on_a_page_words_stand_with_their_marks_and_all_else_as_it_was(
    text: str, tokenizer: str, line_ends: bool
) -> None:
    text = clean(text)
    words = split(text, Vocabulary(VOCABULARY.words, tokenizer), line_ends=line_ends)  # type: ignore[arg-type]
    page = Page.of(words)
    for index in range(len(words)):
        there = page.text[page.starts[index] : page.ends[index]]
        if words.ids[index] == EOS_ID:
            assert there == "¶"
        else:
            assert there == (f"‹{words[index]}›" if words.unknown[index] else words[index])
    if "‹" not in text and "›" not in text and "¶" not in text:
        assert page.text.translate({ord(mark): "" for mark in "‹›¶"}) == text


@given(TEXTS, st.integers(1, 30))
def test_lines_fit_and_nothing_but_white_space_is_lost(text: str, width: int) -> None:
    page = Page.of(split(clean(text), VOCABULARY, line_ends=True))
    starts, ends = break_lines(page, width)
    lines = [page.text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert "".join("".join(lines).split()) == "".join(page.text.split())
    assert (starts[1:] >= ends[:-1]).all()
    for line in lines:
        assert "\n" not in line
        assert sum(cell_len(character) for character in line) <= width or len(line) == 1


def test_lines_break_at_spaces_and_keep_their_indentation() -> None:
    page = Page.without_words("the lamp was lit\n\n   in winter   \nabcdefghijkl")
    lines = [page.text[start:end] for start, end in zip(*break_lines(page, 9), strict=True)]
    assert lines == ["the lamp", "was lit", "", "   in", "winter   ", "abcdefghi", "jkl"]


def test_wide_and_combining_characters_are_counted_in_cells() -> None:
    page = Page.without_words("文文文文 é́é́")
    lines = [page.text[start:end] for start, end in zip(*break_lines(page, 4), strict=True)]
    assert lines == ["文文", "文文", "é́é́"]


@pytest.mark.parametrize(
    ("prob", "text"), [(1.0, "100 %"), (0.123, "12 %"), (0.0312, "3.1 %"), (0.0012, "0.12 %"), (1e-6, "<0.01 %")]
)
def test_percents_have_two_digits(prob: float, text: str) -> None:
    assert percent(prob) == text


# The screen


@pytest.mark.parametrize("size", SIZES)
async def test_the_text_stands_as_it_was_written_and_unknown_words_in_marks(
    make_app: MakeApp, size: tuple[int, int]
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await look(pilot, app)
        expected = TEXT.replace("wizard", "‹wizard›")
        assert " ".join(shown(app).split()) == " ".join(expected.split())


async def test_figures_are_those_of_evaluation(make_app: MakeApp, kneser_ney: KneserNey) -> None:
    app = make_app()
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app)
        ids = VOCABULARY.encode(tokenize(TEXT))
        network, other = evaluate(make_decoder(), ids), evaluate(kneser_ney, ids)
        assert f"perplexity {network.perplexity:,.1f}   Kneser-Ney {other.perplexity:,.1f}" in figures(app)
        assert f"{network.bits_per_token:.2f} bits a word" in figures(app)
        unknown = int((ids == 0).sum())
        assert f"{len(ids)} words, {unknown} unknown ({network.unk_rate:.1%})" in figures(app)


async def test_the_bundled_model_against_kneser_ney_of_its_own_data(make_app: MakeApp) -> None:
    loaded = load(resolve(None))
    app = make_app(player=Player.of(loaded))
    text = "Bilbo Baggins is a very old friend of mine.\nWhere is the wizard?\n"
    async with app.run_test(size=(160, 45)) as pilot:
        await look(pilot, app, text)
        ids = []
        for line in text.splitlines():
            ids += [*loaded.decoder.vocabulary.encode(tokenize(line)).tolist(), EOS_ID]
        other = evaluate(Combiner([loaded]).kneser_ney, np.array(ids, np.int32))
        assert f"Kneser-Ney {other.perplexity:,.1f}" in figures(app)
        assert shown(app).count("¶") == 2  # a model of line mode reads line ends


async def test_words_are_shaded_by_their_bits_with_a_cue_that_is_no_colour(make_app: MakeApp, sure: Player) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, " ".join(["wizard", *VOCABULARY.words[2:]]), sure)
        text = app.screen.query_one(LensText)
        reading = text._network
        assert reading is not None
        text.move_to(99)
        cues: dict[object, set[tuple[bool, ...]]] = {}
        for index in range(len(reading.words) - 1):
            line = text._line_of(index)
            column = text._column(int(text._page.starts[index]), line)
            style = next(iter(text.render_line(line).crop(column, column + 1))).style
            assert style is not None
            cue = (style.underline, style.bold, style.italic, style.dim)
            bits = reading.bits[index]
            step = "unknown" if reading.words.unknown[index] else int(np.digitize(bits, [3, 6, 10]))
            cues.setdefault(step, set()).add(tuple(map(bool, cue)))
        assert len(cues) == 5
        assert all(len(found) == 1 for found in cues.values())  # a step, a cue
        assert len(set().union(*cues.values())) == len(cues)  # and no other step has it


async def test_the_word_under_the_cursor_is_told_of(make_app: MakeApp, kneser_ney: KneserNey) -> None:
    app = make_app()
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


# Every action of the binding table


def ids_of(*classes: type) -> set[str]:
    return {binding.id for owner in classes for binding in owner.BINDINGS}  # type: ignore[attr-defined]


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
SENTENCE_MOVES = {
    "lens-sentences.up": ("up", 0),
    "lens-sentences.down": ("down", 2),
    "lens-sentences.first": ("home", 0),
    "lens-sentences.last": ("end", 3),
    "lens-sentences.page-up": ("pageup", 0),
    "lens-sentences.page-down": ("pagedown", 3),
}
OTHERS = {"lens-text.next", "lens-text.previous", "lens-sentences.order"}
SCREEN = {"lens.close", "lens.open", "lens.view", "lens.sentences", "lens.line-ends", "lens-open.cancel"}


def test_every_binding_is_driven_below_and_says_what_it_does() -> None:
    assert ids_of(LensText, LensSentences) == {*MOVES, *SENTENCE_MOVES, *OTHERS}
    assert ids_of(LensScreen, AskPath) == SCREEN
    for owner in (LensText, LensSentences, LensScreen, AskPath):
        assert all(binding.tooltip for binding in owner.BINDINGS)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", MOVES)
async def test_keys_move_the_cursor_over_the_words(make_app: MakeApp, name: str) -> None:
    key, expected = MOVES[name]
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        text = app.screen.query_one(LensText)
        text.focus()
        text.move_to(10)
        await pilot.press(key)
        if name == "lens-text.up":
            assert text._line_of(text.cursor) == 0
        else:
            assert text.cursor == expected


async def test_n_and_p_go_from_surprise_to_surprise(make_app: MakeApp, kneser_ney: KneserNey, sure: Player) -> None:
    app = make_app()
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


@pytest.mark.parametrize("name", SENTENCE_MOVES)
async def test_keys_move_over_the_sentences_and_take_the_word_cursor_along(make_app: MakeApp, name: str) -> None:
    key, expected = SENTENCE_MOVES[name]
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await look(pilot, app)
        text = app.screen.query_one(LensText)
        text.move_to(6)  # in the second
        await pilot.press("f3")
        await pilot.pause()
        await pilot.press(key)
        await pilot.pause()
        assert screen._words is not None
        assert text.cursor == screen._words.sentences[expected]


async def test_sentences_by_perplexity(make_app: MakeApp, kneser_ney: KneserNey) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await look(pilot, app)
        await pilot.press("f3")
        await pilot.pause()
        assert screen._network is not None
        assert screen._kneser_ney is not None
        both = zip(screen._network.by_sentence(), screen._kneser_ney.by_sentence(), strict=True)
        lines = painted(app.screen.query_one(LensSentences)).splitlines()
        for line, (ours, other) in zip(lines, both, strict=True):
            assert line.replace("▸", "").split()[:2] == [f"{ours:,.1f}", f"{other:,.1f}"]
        assert lines[1].rstrip().endswith("The wizard was lit!")
        await pilot.press("o")
        await pilot.pause()
        hardest = painted(app.screen.query_one(LensSentences)).splitlines()
        values = [float(line.replace("▸", "").replace(",", "").split()[0]) for line in hardest]
        assert values == sorted(values, reverse=True)
        assert "hardest first" in str(app.screen.query_one("#heading", Static).content)
        await pilot.press("o")
        assert painted(app.screen.query_one(LensSentences)).splitlines() == lines


async def test_on_a_narrow_terminal_sentences_take_the_place_of_the_text(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        await look(pilot, app)
        text, sentences = app.screen.query_one(LensText), app.screen.query_one(LensSentences)
        assert (text.display, sentences.display) == (True, False)
        await pilot.press("f3")
        await pilot.pause()
        assert (text.display, sentences.display, sentences.has_focus) == (False, True, True)
        await pilot.press("f3")
        await pilot.pause()
        assert (text.display, sentences.display, text.has_focus) == (True, False, True)


async def test_f2_goes_through_the_views(make_app: MakeApp, kneser_ney: KneserNey) -> None:
    app = make_app()
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
            known = np.flatnonzero(~text._page.words.unknown)
            assert [text._shade(index) for index in known] == [f"lens--{names[found[index]]}" for index in known]


async def test_f4_reads_line_ends_or_not(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await look(pilot, app)
        before = screen._words
        await pilot.press("f4")
        await until(pilot, lambda: screen._words is not before and at_rest(app))
        assert screen._words is not None
        assert [screen._words[index] for index in np.flatnonzero(screen._words.ids == EOS_ID)] == ["\n", "\n"]
        assert shown(app).splitlines()[0].endswith("lit!¶")
        assert "17 words" in figures(app)
        await pilot.press("f4")
        await until(pilot, lambda: "¶" not in shown(app))


async def test_esc_leaves(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, LensScreen)


async def test_a_click_chooses_word_and_sentence(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await look(pilot, app)
        text = app.screen.query_one(LensText)
        x = text._column(int(text._page.starts[10]), 1)
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


# Typing, pasting, opening


async def test_what_is_typed_is_read_once_typing_stops(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, "")
        assert "Here the text will stand" in shown(app)
        await pilot.press(*"the lamp was")
        await until(pilot, lambda: shown(app) == "the lamp was" and at_rest(app))
        assert app.screen.query_one(LensText).cursor == 2  # the word before the cursor of the box
        assert "perplexity" in figures(app)
        await pilot.press("ctrl+u")
        await until(pilot, lambda: "Here the text will stand" in shown(app))
        assert figures(app).strip() == ""


async def test_control_characters_are_pasted_as_white_space(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, "")
        box = app.screen.query_one(LensBox)
        box.post_message(events.Paste("the\x1b[31m lamp\r\nwas [red]lit[/red]\u202e"))
        await until(pilot, lambda: "lamp" in shown(app))
        assert box.text == "the [31m lamp\nwas [red]lit[/red] "
        assert shown(app).splitlines() == ["the [‹31m› lamp", "was [‹red›]lit[/‹red›]"]


async def test_a_megabyte_is_shown_but_not_edited(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await look(pilot, app, "the lamp")
        box = app.screen.query_one(LensBox)
        box.post_message(events.Paste("the lamp was lit. " * 60_000))
        await until(pilot, lambda: "read" in figures(app), 30)
        text = app.screen.query_one(LensText)
        assert box.text == ""
        assert len(text._page.words) == 240_000
        await pilot.press("end")
        assert text.cursor == 239_999
        assert "not read yet" in painted(app.screen.query_one(LensWord))
        assert shown(app).splitlines()[-1].endswith("lit.")
        box.focus()
        await pilot.press("x")  # what is typed now takes its place, and the reading ends
        await until(pilot, lambda: shown(app) == "‹x›" and at_rest(app))
        assert not screen._workers


async def test_a_file_is_opened(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("The lamp was lit.\n")
    (tmp_path / "long.txt").write_text("bread " * MOST_CHARACTERS)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        for name in ("short.txt", "long.txt"):
            await pilot.press("ctrl+o")
            await pilot.pause()
            app.screen.query_one(Input).value = str(tmp_path / name)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, LensScreen))
            first = (tmp_path / name).read_text().split()[0]
            await until(pilot, lambda first=first: shown(app).startswith(first))  # type: ignore[misc]
        assert app.screen.query_one(LensBox).text == ""
        await until(pilot, lambda: at_rest(app), 60)
        assert "long.txt" in figures(app)


async def test_what_cannot_be_opened_is_said_in_one_line(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "latin").write_bytes("Königin".encode("latin-1"))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        await pilot.press("ctrl+o")
        await pilot.pause()
        for name, problem in {
            "": "type the path",
            str(tmp_path): "is a folder",
            str(tmp_path / "none"): "does not exist",
            str(tmp_path / "binary"): "NUL bytes",
            str(tmp_path / "latin"): "not UTF-8",
            "[red]": "[red] does not exist",
        }.items():
            app.screen.query_one(Input).value = name
            await pilot.press("enter")
            assert problem in str(app.screen.query_one("#problem", Static).content)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, LensScreen)
        assert shown(app).startswith("Bilbo")


# Without Kneser-Ney, and other bad weather


@pytest.mark.parametrize("run", [True, False])
async def test_without_training_data_there_is_no_kneser_ney_and_it_is_said(make_app: MakeApp, run: bool) -> None:
    app = make_app()  # the run's folder is empty
    player = app._player if run else Player("mixed", "of several", make_decoder())
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player=player)
        reason = "config.json is missing" if run else "counts a run's training data"
        assert "no Kneser-Ney" in figures(app)
        await until(pilot, lambda: sum(reason in str(notice.message) for notice in app._notifications) == 1)
        await pilot.press("f2")
        await pilot.pause()
        assert app.screen.query_one(LensText).view == "network"
        assert sum(reason in str(notice.message) for notice in app._notifications) == 2


async def test_a_model_that_fails_is_said(make_app: MakeApp) -> None:
    class Broken:
        vocabulary = VOCABULARY

        def start(self) -> State:
            return None

        def advance(self, state: State, token: int) -> tuple[LogProbs, State]:
            raise ValueError("weights [red] are gone")

    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player=Player("broken", "", Broken()))
        assert any("weights [red] are gone" in str(notice.message) for notice in app._notifications)
        assert shown(app).startswith("Bilbo")


async def test_leaving_while_it_reads_leaves_no_thread(make_app: MakeApp, kneser_ney: KneserNey) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(LensScreen(app._player, "the lamp was lit. " * 40_000))  # type: ignore[arg-type]
        await until(pilot, lambda: "read" in figures(app), 30)
        await pilot.press("escape")
        await until(pilot, lambda: not any(thread.name.startswith("lens") for thread in threading.enumerate()))


async def test_resized_from_wide_to_hardly_anything(make_app: MakeApp, kneser_ney: KneserNey) -> None:
    app = make_app()
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
async def test_other_themes(make_app: MakeApp, kneser_ney: KneserNey, theme: str) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        before = shown(app)
        app.theme = theme
        await pilot.pause()
        assert shown(app) == before
