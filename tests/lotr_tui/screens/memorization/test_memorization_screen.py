"""Memorised or new, driven as a person would, on the bundled model and its own training text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.analysis.memorization import LEAST, Passage
from engine.analysis.token_scores import split
from engine.data.vocabulary import EOS_ID, UNK_ID, tokenize
from engine.runs.store import LoadedModel, load, resolve
from lotr_tui.app import LotrApp
from lotr_tui.screens.memorization.occurrences import PassagePlaces
from lotr_tui.screens.memorization.screen import MemorisedScreen
from lotr_tui.screens.memorization.text import PassageText, mark
from lotr_tui.screens.text.layout import Page, clean
from lotr_tui.screens.text.text_input import MOST_CHARACTERS, TextLine, one_line, with_line_ends
from lotr_tui.session.player import Player
from lotr_tui.session.training_text import training_data, training_index
from lotr_tui.widgets.status_bar import StatusBar
from tests.lotr_tui.conftest import VOCABULARY, Host
from tests.lotr_tui.screens.session.test_session_screen import text_of, until

MakeHost = Callable[..., Host]


@pytest.fixture(scope="module")
def bundled() -> Player:
    return Player.of(load(resolve(None)))


@pytest.fixture(scope="module")
def known_lines(bundled: Player) -> list[str]:
    """Three lines of the training text, 8 to 12 words each, all of them known."""
    assert bundled.run is not None
    data = training_data(bundled.run)
    lines = [data.vocabulary.decode(ids) for ids in data.train_lines if 8 <= len(ids) <= 12 and UNK_ID not in ids]
    return lines[:3]


@pytest.fixture
def text(known_lines: list[str]) -> str:
    """Three passages, a word of none between them, and an unknown one."""
    first, second, third = known_lines
    return f"{first} zyzzyva {second} zyzzyva pony pony pony {third}"


def known_by_search(text: str, player: Player) -> list[bool]:
    """For each word that is no `<eos>`: whether some four words in a row around it stand in a training line."""
    assert player.run is not None
    data = training_data(player.run)
    fours = {tuple(ids[i : i + LEAST]) for ids in map(list, data.train_lines) for i in range(len(ids) - LEAST + 1)}
    known = []
    for line in text.split("\n"):
        ids = [int(token) for token in data.vocabulary.encode(tokenize(line))]
        marks = [False] * len(ids)
        for i in range(len(ids) - LEAST + 1):
            four = tuple(ids[i : i + LEAST])
            if UNK_ID not in four and four in fours:
                marks[i : i + LEAST] = [True] * LEAST
        known += marks
    return known


def painted(app: LotrApp) -> str:
    widget = app.screen.query_one(PassageText)
    return "\n".join(widget.render_line(y).text.rstrip() for y in range(widget.size.height)).rstrip()


def figures(app: LotrApp) -> str:
    return text_of(app.screen.query_one("#figures", StatusBar))


def places(app: LotrApp) -> str:
    panel = app.screen.query_one(PassagePlaces)
    return "\n".join(text_of(panel.query_one(name, Static)) for name in ("#heading", "#lines"))


def at_rest(app: LotrApp) -> bool:
    screen = app.screen
    assert isinstance(screen, MemorisedScreen)
    return screen._worker is None and bool(figures(app).strip()) and not screen._drain_timer._active.is_set()


async def look(pilot: Pilot[None], app: LotrApp, player: Player, text: str) -> MemorisedScreen:
    screen = MemorisedScreen(player, text)
    await app.push_screen(screen)
    await until(pilot, lambda: at_rest(app), seconds=30)
    return screen


# Without an app


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(4, 12)), max_size=6), st.integers(0, 40))
def test_brackets_stand_around_passages_and_nothing_else_changes(spans: list[tuple[int, int]], count: int) -> None:
    words = split(" ".join(["bilbo", "wizard", "pony"] * 20)[: count * 6], VOCABULARY)
    page = Page.of(words)
    # As they come: none within another.
    chosen: list[Passage] = []
    for start, length in sorted(spans):
        if start + length <= len(words) and (
            not chosen or (start > chosen[-1].start and start + length > chosen[-1].start + chosen[-1].length)
        ):
            chosen.append(Passage(start, length, 1, ()))
    marked = mark(page, chosen)
    for index in range(len(words)):
        there = marked.text[marked.starts[index] : marked.ends[index]]
        assert there == page.text[page.starts[index] : page.ends[index]]
    for number, item in enumerate(chosen, 1):
        assert marked.text[: marked.starts[item.start]].endswith(f"{number}[")
        assert marked.text[marked.ends[item.start + item.length - 1] :].startswith("]")
    bare = marked.text.replace("]", "")
    for number in range(len(chosen), 0, -1):
        bare = bare.replace(f"{number}[", "", 1)
    assert bare == page.text


@given(st.text(st.one_of(st.characters(), st.sampled_from(list("ab \n"))), max_size=60))
def test_a_text_on_one_line_is_the_same_text(text: str) -> None:
    line = one_line(text)
    assert "\n" not in line
    assert line.isprintable()
    lines = [tokenize(part) for part in clean(text).replace("<eos>", "\n").split("\n")]
    again = [tokenize(part) for part in with_line_ends(line).split("\n")]
    assert [words for words in again if words] == [words for words in lines if words]


# The screen


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 50)])
async def test_figures_and_marks_are_those_of_a_search_word_by_word(
    make_host: MakeHost, bundled: Player, text: str, size: tuple[int, int]
) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=size) as pilot:
        screen = await look(pilot, app, bundled, text)
        known = known_by_search(text, bundled)
        new = known.count(False)
        assert 0 < new < len(known)
        assert figures(app).startswith(f"{new} of {len(known)} words new ({new / len(known):.0%})")
        shown = app.screen.query_one(PassageText)
        in_passage = [shown._in_passage(index) for index in range(len(known))]
        assert in_passage == known
        assert screen.found is not None
        longest = max(item.length for item in screen.found.passages)
        assert f"longest {longest} words" in figures(app) or size[0] == 60
        assert figures(app).rstrip().endswith("2 unknown") or size[0] == 60
        assert "1[" in painted(app)


async def test_passages_are_underlined_and_the_chosen_one_reversed(
    make_host: MakeHost, bundled: Player, text: str
) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await look(pilot, app, bundled, text)
        widget = app.screen.query_one(PassageText)
        assert screen.found is not None
        ends = {item.start: item for item in screen.found.passages}
        cues = {}
        for segment in widget.render_line(0):
            if segment.style is not None:
                cues[segment.text] = (bool(segment.style.underline), bool(segment.style.reverse))
        words = tokenize(text)
        second = screen.found.passages[1]
        assert cues[words[0]] == (False, True)
        assert cues[words[second.start]] == (True, False)
        assert cues["‹zyzzyva›"] == (False, False)
        assert len(ends) >= 3


async def test_a_passage_is_shown_in_its_line_with_its_speaker(
    make_host: MakeHost, bundled: Player, known_lines: list[str]
) -> None:
    assert bundled.run is not None
    data = training_data(bundled.run)
    app = make_host(player=bundled)
    part = " ".join(known_lines[0].split()[2:8])
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, bundled, f"zyzzyva {part} zyzzyva")
        holding = [line for line in data.split.train if f" {part} " in f" {' '.join(tokenize(line.text))} "]
        assert holding
        assert f"6 words · in {'one place' if len(holding) == 1 else f'{len(holding)} places'}" in places(app)
        first = holding[0]
        told = next(line for line in places(app).splitlines() if line.startswith(f"{first.speaker}  "))
        assert told.replace("[", "").replace("]", "") == f"{first.speaker}  {' '.join(first.text.split(chr(10)))}"
        assert tokenize(told[told.index("[") : told.index("]")]) == part.split()


async def test_the_cursor_goes_from_passage_to_passage(make_host: MakeHost, bundled: Player, text: str) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await look(pilot, app, bundled, text)
        assert screen.found is not None
        count = len(screen.found.passages)
        widget = app.screen.query_one(PassageText)
        assert widget.has_focus
        for key, expected in [
            ("right", 1),
            ("left", 0),
            ("left", 0),
            ("down", 1),
            ("up", 0),
            ("end", count - 1),
            ("right", count - 1),
            ("home", 0),
            ("tab", 1),
            ("shift+tab", 0),
        ]:
            await pilot.press(key)
            assert widget.chosen == expected, key
            assert f"passage {expected + 1} of {count} ·" in places(app), key
        await pilot.press("end", "tab")
        assert app.screen.query_one(PassagePlaces).has_focus
        await pilot.press("down", "up", "pagedown", "pageup", "end", "home", "tab")
        assert app.screen.query_one(Input).has_focus
        await pilot.press("shift+tab", "shift+tab", "home", "shift+tab")
        assert not widget.has_focus


async def test_a_click_chooses_a_passage(make_host: MakeHost, bundled: Player, text: str) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await look(pilot, app, bundled, text)
        assert screen.found is not None
        widget = app.screen.query_one(PassageText)
        last = screen.found.passages[-1]
        line = widget.line_of(last.start + last.length - 1)
        x = int(widget.page.starts[last.start + last.length - 1] - widget._starts[line])
        await pilot.click(PassageText, offset=(x + 1, line))  # one cell of padding
        assert widget.chosen == len(screen.found.passages) - 1
        await pilot.click(PassageText, offset=(5, 12))  # below the text
        assert widget.chosen == len(screen.found.passages) - 1


async def test_a_long_text_scrolls(make_host: MakeHost, bundled: Player, known_lines: list[str]) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(60, 20)) as pilot:
        await look(pilot, app, bundled, " zyzzyva ".join(known_lines * 12))
        widget = app.screen.query_one(PassageText)
        await pilot.press("pagedown")
        assert widget.scroll_offset.y > 0
        await pilot.press("pageup")
        assert widget.scroll_offset.y == 0
        await pilot.press("end")
        assert 0 <= widget.line_of(widget.cursor) - widget.scroll_offset.y < widget.size.height


async def test_the_text_can_be_changed(make_host: MakeHost, bundled: Player, known_lines: list[str]) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, bundled, "")
        assert "no word to look up" in figures(app)
        await pilot.press("f2")
        field = app.screen.query_one(Input)
        assert field.has_focus
        misses = training_index.cache_info().misses
        field.value = f"{known_lines[0]} <eos> {known_lines[1]}"
        await pilot.press("enter")
        await until(pilot, lambda: at_rest(app))
        assert app.screen.query_one(PassageText).has_focus
        assert figures(app).startswith("0 of ")
        assert painted(app).count("¶") == 1
        assert training_index.cache_info().misses - misses <= 1
        await pilot.press("f2", "f2")
        assert app.screen.query_one(PassageText).has_focus
        await pilot.press("escape")
        assert not isinstance(app.screen, MemorisedScreen)


async def test_the_second_time_the_training_text_is_not_read_again(
    make_host: MakeHost, bundled: Player, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, bundled, text)
        monkeypatch.setattr("engine.runs.store.load", lambda path: pytest.fail("read again"))
        await pilot.press("escape")
        screen = await look(pilot, app, bundled, text)
        assert screen.found is not None
        assert screen.found.passages


async def test_what_cannot_be_looked_up_is_said_in_a_line(
    make_host: MakeHost, bundled: Player, loaded: LoadedModel, tmp_path: Path
) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(200, 50)) as pilot:
        for player, text, told in [
            (Player("x", "", bundled.model), "the lamp", "this model is of no finished run"),
            (Player("x", "", bundled.model, run=tmp_path / "gone"), "the lamp", "there is no training text to look in"),
            (Player("x", "", loaded.decoder, run=bundled.run), "the lamp", "are others than this model's"),
            (bundled, "", "no word to look up"),
            (bundled, "?! \x1b[ ¿…", "no word to look up"),
            (bundled, "zyzzyva zyzzyva zyzzyva zyzzyva zyzzyva", "5 of 5 words new (100%)   0 passages   5 unknown"),
        ]:
            screen = await look(pilot, app, player, text)
            assert told in figures(app)
            assert screen.found is None or not screen.found.passages
            await pilot.press("right", "left", "home", "end", "tab", "pagedown", "escape")


async def test_all_new_is_said(make_host: MakeHost, bundled: Player) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, bundled, "zyzzyva zyzzyva")
        assert "all is new" in places(app)


async def test_a_megabyte_and_odd_characters(make_host: MakeHost, bundled: Player) -> None:
    app = make_host(player=bundled)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await look(pilot, app, bundled, "[red]文字 é́ \x1b[2J שלום " * 60_000)
        assert len(screen._text) <= MOST_CHARACTERS
        assert "\x1b" not in painted(app)
        assert "[red]" in painted(app)
        await pilot.resize_terminal(20, 5)
        await pilot.press("right", "f2", "f2")
        await pilot.resize_terminal(200, 50)
        assert "\x1b" not in app.screen.query_one(TextLine).text


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
async def test_in_every_theme_passages_stand_out_without_colour(
    make_host: MakeHost, bundled: Player, text: str, theme: str
) -> None:
    app = make_host(player=bundled, theme=theme)
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.resize_terminal(80, 24)
        await look(pilot, app, bundled, text)
        assert "1[" in painted(app)
        styles = [segment.style for segment in app.screen.query_one(PassageText).render_line(0) if segment.style]
        assert any(style.reverse for style in styles)


def test_every_key_has_a_name_and_is_explained() -> None:
    for owner in (MemorisedScreen, PassageText, PassagePlaces):
        for binding in owner.BINDINGS:
            assert not isinstance(binding, tuple)
            assert binding.id
            assert binding.tooltip


def test_the_ids_between_brackets_hold_no_end_of_line(bundled: Player, known_lines: list[str]) -> None:
    assert bundled.run is not None
    words = split("\n".join(known_lines), bundled.model.vocabulary, line_ends=True)
    found = training_index(bundled.run).find(words.ids)
    assert found.passages
    for item in found.passages:
        assert not np.isin(words.ids[item.start : item.start + item.length], [EOS_ID, UNK_ID]).any()
