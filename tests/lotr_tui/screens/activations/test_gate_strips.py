"""The strips of gates: what is painted is held against `engine.analysis.activations`."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.activations import PARTS, Part
from lotr_tui.screens.activations.gate_strips import (
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
from lotr_tui.session.player import Player
from lotr_tui.widgets.bars import bar
from tests.lotr_tui.screens.activations.test_activations_screen import (
    DECODER,
    WORDS,
    MakeHost,
    heading,
    look,
    painted,
    strips,
    truth,
)


@pytest.fixture
def player(tmp_path: Path) -> Player:
    return Player("two", "2 layers", DECODER, run=tmp_path)


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
