"""Inside, driven as a person would; what is painted is held against `engine.inside`."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import Input

from engine.cache import Cache, CacheSettings
from engine.config import ModelConfig
from engine.decoder import Decoder, weight_shapes
from engine.dynamic import Dynamic
from engine.inside import BATCH, PARTS, Extremes, Gates, Part, extremes, gates, lstm_of
from engine.lens import split
from engine.ngram import KneserNey
from engine.vocabulary import EOS_ID, Ids
from lotr_tui import unit_search
from lotr_tui.app import LotrApp
from lotr_tui.screens.inside import MOST_WORDS, InsideScreen
from lotr_tui.session import Player
from lotr_tui.unit_search import steps_of
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.gate_strips import (
    GATES,
    LABEL,
    LEVELS,
    NEGATIVE,
    POSITIVE,
    ZERO,
    GateStrips,
    bins,
    glyph,
)
from lotr_tui.widgets.page_text import PageText
from lotr_tui.widgets.status_bar import StatusBar
from lotr_tui.widgets.unit_along import UnitAlong
from lotr_tui.widgets.unit_found import UnitFound
from tests.lotr_tui.conftest import VOCABULARY, Host
from tests.lotr_tui.test_play_screen import text_of, until

MakeHost = Callable[..., Host]
TEXT = "Bilbo Baggins is a friend, the wizard was lit <eos> we walked all night"
WORDS = ["Bilbo", "Baggins", "is", "a", "friend", "the", "‹wizard›", "was", "lit", "¶", "we", "walked", "all", "night"]


def make(hidden: int = 70, layers: int = 2, seed: int = 0) -> Decoder:
    config = ModelConfig(embedding_size=12, hidden_size=hidden, layers=layers)
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(config, len(VOCABULARY))
    return Decoder(config, VOCABULARY, {n: chance.normal(0, 0.4, s).astype(np.float32) for n, s in shapes.items()})


DECODER = make()


@pytest.fixture
def player(tmp_path: Path) -> Player:
    return Player("two", "2 layers", DECODER, run=tmp_path)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[Ids, ...]:
    """The training text is there."""
    chance = np.random.default_rng(1)
    train = tuple(chance.integers(2, len(VOCABULARY), chance.integers(2, 9)).astype(np.int32) for _ in range(150))
    monkeypatch.setattr(
        unit_search, "training_data", lambda run: SimpleNamespace(vocabulary=VOCABULARY, train_lines=train)
    )
    return train


def truth(text: str = TEXT, decoder: Decoder = DECODER) -> tuple[Gates, ...]:
    return gates(decoder, split(text.replace(" <eos> ", "\n"), VOCABULARY, line_ends=True).ids)


def painted(app: LotrApp, kind: type[Any]) -> list[str]:
    widget = app.screen.query_one(kind)
    return [widget.render_line(y).text.rstrip() for y in range(widget.size.height)]


def strips(app: LotrApp) -> GateStrips:
    return app.screen.query_one(GateStrips)


def heading(app: LotrApp, name: str) -> str:
    return text_of(app.screen.query_one(name, StatusBar)).strip()


def at_rest(app: LotrApp) -> bool:
    screen = app.screen
    assert isinstance(screen, InsideScreen)
    return screen._reading is None and screen._searching is None and not screen._drain_timer._active.is_set()


async def look(pilot: Pilot[None], app: LotrApp, player: Player, text: str = TEXT) -> InsideScreen:
    screen = InsideScreen(player, text)
    await app.push_screen(screen)
    await until(pilot, lambda: bool(screen._layers or strips(app)._hint) and at_rest(app))
    await pilot.pause()
    return screen


def value_of(symbol: str, part: Part, scale: float) -> tuple[float, float]:
    """What values a character can stand for."""
    if part in GATES:
        return LEVELS.index(symbol) / 8, (LEVELS.index(symbol) + 1) / 8
    if symbol == ZERO:
        return -scale / 8, scale / 8
    level, sign = (POSITIVE.index(symbol), 1) if symbol in POSITIVE else (NEGATIVE.index(symbol), -1)
    low, high = (level + 0.5) / 4 * scale, (level + 1.5) / 4 * scale
    return (low, high) if sign > 0 else (-high, -low)


# Without an app


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sampled_from(PARTS),
)
def test_a_cell_of_several_units_is_their_mean_or_the_furthest_from_nought(
    values: list[float], size: int, part: Part
) -> None:
    shown, units = bins(np.array(values, np.float32), size, part)
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    assert len(shown) == len(units) == len(groups)
    for number, group in enumerate(groups):
        assert units[number] // size == number
        if part in GATES:
            assert shown[number] == pytest.approx(sum(group) / len(group), abs=1e-5)
        else:
            assert abs(shown[number]) == pytest.approx(max(map(abs, group)), abs=1e-6)
            assert shown[number] == pytest.approx(values[units[number]])


@given(st.floats(-2, 2), st.sampled_from(PARTS), st.floats(0.1, 2))
def test_a_character_stands_for_values_around_its_own(value: float, part: Part, scale: float) -> None:
    value = abs(value) / 2 if part in GATES else max(-scale, min(value, scale))
    low, high = value_of(glyph(value, part, scale), part, scale)
    assert low - 1e-9 <= value <= high + 1e-9


def test_no_two_characters_are_the_same() -> None:
    assert len({*POSITIVE, *NEGATIVE, ZERO}) == 9


@given(st.floats(0, 2), st.integers(1, 30))
def test_a_bar_is_as_long_as_its_value(value: float, width: int) -> None:
    drawn = bar(value, width)
    eighths = sum(8 if c == "█" else " ▏▎▍▌▋▊▉".index(c) for c in drawn)
    assert eighths == pytest.approx(min(value, 1) * width * 8, abs=0.51)
    assert len(drawn) <= width


@given(st.lists(st.integers(0, 20), max_size=200))
def test_steps_are_those_that_a_search_asks(lengths: list[int]) -> None:
    lines = [np.full(length, 2, np.int32) for length in lengths]
    asked = 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    if sum(lengths):
        kept = [line for line in lines if len(line)]  # as a dataset has them
        extremes(SMALL, kept, 0, 0, cancelled=count)
        assert asked == steps_of(kept)
        assert -(-len(kept) // BATCH) <= asked


SMALL = make(hidden=12, layers=1)

# The strips


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 50)])
@pytest.mark.parametrize("layer", [0, 1])
async def test_what_is_painted_are_the_gates(
    make_host: MakeHost, player: Player, size: tuple[int, int], layer: int
) -> None:
    app = make_host(player=player)
    async with app.run_test(size=size) as pilot:
        await look(pilot, app, player)
        if layer:
            await pilot.press("f2")
        true = truth()[layer]
        widget = strips(app)
        units = true.cell.shape[1]
        for zoomed in (False, True):
            if zoomed:
                await pilot.press("z", "home")
            seen: dict[Part, int] = dict.fromkeys(PARTS, 0)
            while True:
                rows = painted(app, GateStrips)
                for part, row in zip(PARTS, rows[1:7], strict=True):
                    values = true.part(part)[len(WORDS) - 1]
                    scale = 1.0 if part in GATES else float(np.abs(true.part(part)).max())
                    told, leads = bins(values, widget.bin, part)
                    assert row[1:].startswith(part)
                    assert float(row.split()[-1]) == pytest.approx(values[widget.unit], abs=6e-4)
                    cells = row[LABEL:-8].rstrip(" ")
                    shown_values, shown_units = widget.cells(part)
                    first = int(np.flatnonzero(leads == shown_units[0])[0])
                    assert len(cells) == len(shown_values)
                    for symbol, value in zip(cells, told[first:], strict=False):
                        low, high = value_of(symbol, part, scale)
                        assert low - 1e-5 <= value <= high + 1e-5
                    seen[part] = max(seen[part], first + len(cells))
                if widget.unit == units - 1 or not zoomed:
                    break
                await pilot.press("end")
            assert widget.bin == 1 or not zoomed
            assert all(count == -(-units // widget.bin) for count in seen.values())


async def test_where_a_cell_stands_for_several_units_it_is_said(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(60, 20)) as pilot:
        await look(pilot, app, player)
        assert f"{strips(app).bin} units a cell" in heading(app, "#legend")
        assert strips(app).bin == 3
        await pilot.press("z")
        assert "a cell is a unit" in heading(app, "#legend")
        await pilot.resize_terminal(200, 50)
        await pilot.press("z")
        assert strips(app).bin == 1
        assert "a cell is a unit" in heading(app, "#legend")


async def test_the_cursor_goes_over_units_and_parts(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        widget = strips(app)
        assert widget.has_focus
        assert widget.part == "cell"
        last = truth()[0]
        assert widget.unit == int(np.abs(last.cell[-1]).argmax())
        units = last.cell.shape[1]
        for key, unit, part in [
            ("home", 0, "cell"),
            ("left", 0, "cell"),
            ("right", 1, "cell"),
            ("pagedown", 8, "cell"),
            ("pageup", 1, "cell"),
            ("end", units - 1, "cell"),
            ("right", units - 1, "cell"),
            ("down", units - 1, "hidden"),
            ("down", units - 1, "hidden"),
            ("m", int(np.abs(last.hidden[-1]).argmax()), "hidden"),
            ("home", 0, "hidden"),
            ("up", 0, "cell"),
            ("up", 0, "candidate"),
        ]:
            await pilot.press(key)
            assert (widget.unit, widget.part) == (unit, part), key
            assert widget.value == pytest.approx(float(last.part(widget.part)[-1, unit]))
            assert heading(app, "#along-heading").startswith(f"layer 1 unit {unit} {part}")
            mark = painted(app, GateStrips)[7]
            assert f"unit {unit}" in mark
            cell = mark.index("▲") - LABEL
            assert cell == widget.unit // widget.bin


async def test_a_click_chooses_the_unit_that_a_cell_shows(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        widget = strips(app)
        for row, part in enumerate(PARTS, 1):
            expected = int(widget.cells(part)[1][5])
            await pilot.click(GateStrips, offset=(1 + LABEL + 5, row))
            assert (widget.unit, widget.part) == (expected, part)
        await pilot.click(GateStrips, offset=(3, 2))  # its name
        assert (widget.unit, widget.part) == (expected, "forget")
        await pilot.click(GateStrips, offset=(3, 0))
        assert (widget.unit, widget.part) == (expected, "forget")


# The words


async def test_the_strips_follow_the_word_under_the_cursor(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        text = app.screen.query_one(PageText)
        true = truth()[0]

        def is_on(position: int) -> bool:
            value = true.part(strips(app).part)[position, strips(app).unit]
            return (
                text.cursor == position
                and f'on reading "{WORDS[position]}" · word {position + 1} of {len(WORDS)}'
                in painted(app, GateStrips)[0]
                and strips(app).value == pytest.approx(float(value))
                and any(line.startswith(f"▸{WORDS[position]}") for line in painted(app, UnitAlong))
            )

        assert is_on(13)
        await pilot.press("comma")
        assert is_on(12)
        await pilot.press("full_stop")
        assert is_on(13)
        text.focus()
        for key, position in [
            ("home", 0),
            ("right", 1),
            ("left", 0),
            ("down", 10),
            ("up", 0),
            ("end", 13),
            ("pageup", 3),
            ("pagedown", 13),
        ]:
            await pilot.press(key)
            await pilot.pause()
            if key == "pageup":
                assert text.line_of(text.cursor) == 0
                position = text.cursor
            assert is_on(position), key
        app.screen.query_one(UnitAlong).focus()
        for key, position in [("up", 12), ("home", 0), ("down", 1), ("right", 2), ("left", 1), ("end", 13)]:
            await pilot.press(key)
            await pilot.pause()
            assert is_on(position), key
        await pilot.press("pageup", "pagedown")
        await pilot.pause()
        assert is_on(13)
        await pilot.click(PageText, offset=(8, 0))
        await pilot.pause()
        assert is_on(1)
        await pilot.click(UnitAlong, offset=(4, 0))
        await pilot.pause()
        assert text.cursor <= 1


async def test_tab_goes_between_all_parts(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        seen = []
        for _ in range(5):
            await pilot.press("tab")
            assert app.focused is not None
            seen.append(type(app.focused))
        assert set(seen) == {PageText, GateStrips, UnitAlong, UnitFound, Input}


async def test_the_text_can_be_changed(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        await pilot.press("f6")
        field = app.screen.query_one(Input)
        assert field.has_focus
        assert field.value == TEXT
        field.value = "the lamp"
        await pilot.press("enter")
        await until(pilot, lambda: at_rest(app) and '"lamp" · word 2 of 2' in painted(app, GateStrips)[0])
        assert strips(app).has_focus
        assert strips(app).value == pytest.approx(float(truth("the lamp")[0].cell[-1, strips(app).unit]))
        await pilot.press("f6", "f6")
        assert strips(app).has_focus
        await pilot.press("escape")
        assert not isinstance(app.screen, InsideScreen)


# One unit


@pytest.mark.parametrize("size", [(60, 20), (200, 50)])
async def test_a_pinned_unit_is_seen_along_the_text(make_host: MakeHost, player: Player, size: tuple[int, int]) -> None:
    app = make_host(player=player)
    async with app.run_test(size=size) as pilot:
        await look(pilot, app, player)
        await pilot.press("home", "right", "right", "f3")
        assert heading(app, "#along-heading") == "layer 1 unit 2 cell along the text · pinned"
        await pilot.press("f2", "right", "up", "up")  # elsewhere
        assert heading(app, "#along-heading") == "layer 1 unit 2 cell along the text · pinned"
        values = truth()[0].cell[:, 2]
        seen = {}
        for position in range(len(WORDS)):
            app.screen.query_one(PageText).move_to(position)
            await pilot.pause()
            line = next(line for line in painted(app, UnitAlong) if line.startswith("▸"))
            word, number = line[1:].split()[:2]
            assert word == WORDS[position]
            assert float(number) == pytest.approx(values[position], abs=6e-4)
            seen[position] = line
        longest = int(np.abs(values).argmax())
        assert (seen[longest].count("█") > 3) == (values[longest] > 0)
        assert (seen[longest].count("▒") > 3) == (values[longest] < 0)
        await pilot.press("f3")
        assert heading(app, "#along-heading").startswith("layer 2 unit 3 output along the text")
        assert "pinned" not in heading(app, "#along-heading")


async def test_a_gate_along_the_text_has_no_sign(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        await pilot.press("up", "up", "home")
        rows = painted(app, UnitAlong)[: len(WORDS)]
        values = truth()[0].output[:, 0]
        assert [float(row[1:].split()[1]) for row in rows] == pytest.approx(values.tolist(), abs=6e-4)
        assert not any("│" in row or "+" in row for row in rows)


# Searching


@pytest.mark.parametrize("size", [(60, 20), (200, 50)])
async def test_what_is_found_are_the_extremes(
    make_host: MakeHost, player: Player, lines: tuple[Ids, ...], size: tuple[int, int]
) -> None:
    app = make_host(player=player)
    async with app.run_test(size=size) as pilot:
        await look(pilot, app, player)
        await pilot.press("f2", "home", "right", "f4")
        await until(pilot, lambda: at_rest(app))
        expected = extremes(DECODER, lines, 1, 1, "cell")
        assert f"of all {expected.words:,} words" in heading(app, "#found-heading") or size[0] == 60
        found = app.screen.query_one(UnitFound)
        items = [*expected.highest, *expected.lowest]
        assert [item for _, item in found._items] == items
        first = painted(app, UnitFound)[0]
        assert first.startswith("▲")
        assert f"{items[0].value:+.3f}" in first
        assert f"[{items[0].word}]" in first
        if size[0] == 200:
            rows = painted(app, UnitFound)[: len(items)]
            for row, item in zip(rows, items, strict=True):
                assert f"{' '.join(item.before)} [{item.word}] {' '.join(item.after)}".strip() in row
            assert rows[len(expected.highest)].startswith("▼")
        found.focus()
        await pilot.press("end", "home", "pagedown", "pageup", "down", "up", "down", "enter")
        await until(
            pilot, lambda: at_rest(app) and len(app.screen.query_one(PageText).page.words) == len(lines[items[1].line])
        )
        await pilot.pause()
        assert strips(app).value == pytest.approx(items[1].value, abs=1e-5)
        assert app.screen.query_one(PageText).cursor == items[1].position


async def test_found_lines_answer_the_mouse(make_host: MakeHost, player: Player, lines: tuple[Ids, ...]) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        await pilot.press("f4")
        await until(pilot, lambda: at_rest(app))
        item = app.screen.query_one(UnitFound)._items[3][1]
        await pilot.click(UnitFound, offset=(20, 3))
        assert app.screen.query_one(Input).value == TEXT
        await pilot.click(UnitFound, offset=(20, 3))
        await until(pilot, lambda: at_rest(app) and app.screen.query_one(Input).value != TEXT)
        assert app.screen.query_one(Input).value == VOCABULARY.decode(lines[item.line])


@pytest.mark.parametrize("key", ["f4", "escape"])
async def test_a_search_says_how_far_it_is_and_can_be_stopped(
    make_host: MakeHost, player: Player, lines: tuple[Ids, ...], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    half, stopped = threading.Event(), threading.Event()

    def slow(*args: Any, cancelled: Callable[[], bool], **options: Any) -> Extremes:
        for _ in range(steps_of(lines) // 2):
            cancelled()
        half.set()
        while not cancelled():
            stopped.wait(0.01)
        stopped.set()
        return Extremes((), (), 123)

    monkeypatch.setattr(unit_search, "extremes", slow)
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        await pilot.press("home", "f4")
        await until(pilot, half.is_set)
        await until(pilot, lambda: "%" in heading(app, "#found-heading"))
        assert "searching for layer 1 unit 0 cell … " in heading(app, "#found-heading")
        share = int(heading(app, "#found-heading").split("%")[0].split()[-1])
        assert 45 <= share <= 100
        assert "f4 stops" in heading(app, "#found-heading")
        await pilot.press(key)
        await until(pilot, lambda: at_rest(app))
        assert stopped.is_set()
        assert "highest and lowest stopped after 123 words" in heading(app, "#found-heading")
        assert isinstance(app.screen, InsideScreen)


async def test_leaving_stops_the_search(
    make_host: MakeHost, player: Player, lines: tuple[Ids, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def slow(*args: Any, cancelled: Callable[[], bool], **options: Any) -> Extremes:
        while not cancelled():
            stopped.wait(0.01)
        stopped.set()
        return Extremes((), (), 0)

    monkeypatch.setattr(unit_search, "extremes", slow)
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        await pilot.press("f4")
        app.pop_screen()
        await until(pilot, stopped.is_set)


async def test_f5_goes_between_the_lists(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        assert not app.screen.query_one(UnitFound).region
        await pilot.press("f5")
        await pilot.pause()
        assert app.screen.query_one(UnitFound).has_focus
        assert not app.screen.query_one(UnitAlong).region
        await pilot.press("f5")
        await pilot.pause()
        assert app.screen.query_one(UnitAlong).has_focus
        await pilot.resize_terminal(200, 50)
        for kind in (UnitFound, UnitAlong):
            await pilot.press("f5")
            await pilot.pause()
            assert app.screen.query_one(kind).has_focus
            assert app.screen.query_one(kind).region


# What there is not


async def test_what_cannot_be_shown_is_said_in_a_line(make_host: MakeHost, player: Player) -> None:
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 200).astype(np.int32)
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        for model, text, told in [
            (KneserNey(ids, VOCABULARY, 3), TEXT, "there is no LSTM inside this model"),
            (DECODER, "", "there is no word to read"),
            (DECODER, "?! \x1b[ …", "there is no word to read"),
        ]:
            await look(pilot, app, Player("x", "", model), text)
            assert told in painted(app, GateStrips)[0]
            await pilot.press("right", "down", "m", "z", "end", "pageup", "comma", "f2", "f3", "f4", "f5", "f5", "f6")
            await pilot.press("escape")
            assert not isinstance(app.screen, InsideScreen)


async def test_unknown_words_are_read_as_such(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player, "zyzzyva zyzzyva")
        assert "‹zyzzyva›" in painted(app, GateStrips)[0]
        expected = gates(DECODER, [0, 0])[0].cell[1, strips(app).unit]
        assert strips(app).value == pytest.approx(float(expected))


@pytest.mark.parametrize("run", [None, "gone", "other words"])
async def test_where_there_is_no_training_text_a_search_says_so(
    make_host: MakeHost, player: Player, tmp_path: Path, run: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if run == "other words":
        data = SimpleNamespace(vocabulary=None, train_lines=())
        monkeypatch.setattr(unit_search, "training_data", lambda run: data)
    app = make_host(player=player)
    async with app.run_test(size=(200, 50), notifications=True) as pilot:
        await look(pilot, app, Player("x", "", DECODER, run=None if run is None else tmp_path / run))
        await pilot.press("f4")
        await until(pilot, lambda: at_rest(app))
        if run is None:
            assert any("no finished run" in note.message for note in app._notifications)
        else:
            assert heading(app, "#found-heading") == "nothing was found"
            assert len(painted(app, UnitFound)[0].strip()) > 10


async def test_what_is_seen_of_a_larger_model_is_its_lstm_as_trained(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        assert "as it was trained" not in heading(app, "#status")
        await pilot.press("escape")
        await look(pilot, app, Player("cached", "", Cache(DECODER, CacheSettings())))
        assert "inside the LSTM as it was trained" in heading(app, "#status")
        assert strips(app).value == pytest.approx(float(truth()[0].cell[-1, strips(app).unit]))


async def test_one_layer_has_no_next_one(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, Player("one", "", SMALL))
        await pilot.press("f2")
        assert "layer 1 of 1" in painted(app, GateStrips)[0]
        assert app.screen.check_action("layer", ()) is False
        assert heading(app, "#along-heading").startswith("unit ")


async def test_a_long_text_is_cut(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await look(pilot, app, Player("one", "", SMALL), "the lamp " * (MOST_WORDS // 2 + 7))
        assert f"word {MOST_WORDS:,} of {MOST_WORDS:,}" in painted(app, GateStrips)[0]
        assert len(screen._layers[0].cell) == MOST_WORDS
        assert any("1,000 words" in note.message for note in app._notifications)


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
async def test_any_theme_and_any_size(make_host: MakeHost, player: Player, theme: str) -> None:
    app = make_host(player=player, theme=theme)
    async with app.run_test(size=(20, 5)) as pilot:
        await look(pilot, app, player)
        await pilot.press("right", "down", "z", "m", "comma", "f3", "f5", "f5", "f6", "f6")
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        row = strips(app).render_line(1 + PARTS.index(strips(app).part))
        assert any(segment.style and segment.style.reverse for segment in row)


def test_every_key_has_a_name_and_is_explained() -> None:
    for owner in (InsideScreen, PageText, GateStrips, UnitAlong, UnitFound):
        for binding in owner.BINDINGS:
            assert not isinstance(binding, tuple)
            assert binding.id
            assert binding.tooltip


def test_line_ends_are_read_as_eos() -> None:
    assert split(TEXT.replace(" <eos> ", "\n"), VOCABULARY, line_ends=True).ids[9] == EOS_ID


def test_of_a_model_that_goes_on_learning_it_is_the_lstm_it_started_as() -> None:
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 100).astype(np.int32)
    assert lstm_of(Dynamic(SMALL, ids)) is SMALL
