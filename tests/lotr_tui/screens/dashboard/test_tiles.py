"""Tiles: their values and histories."""

import math

import numpy as np
import pytest
from textual.app import App, ComposeResult

from engine.events import Step
from engine.runtime.hardware import GpuReading, MachineReading
from lotr_tui.monitor.hardware_history import SECONDS, MachineHistory, Tile, size, training_tiles
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.tiles import Tiles
from lotr_tui.widgets.bars import sparkline

GIB = 2**30
H100 = GpuReading(0.97, 41 * GIB, 80 * GIB, 67.0, 312.0)


def reading(cores_used: float, *gpus: GpuReading) -> MachineReading:
    return MachineReading(612 * 2**20, cores_used, 16, gpus)


@pytest.mark.parametrize(
    ("values", "top", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 5, 10], None, "▁▅█"),
        ([math.nan, 3, math.inf], 3, " █ "),
        ([0, 0], None, "▁▁"),
        ([-5, 50], 10, "▁█"),
        ([], None, ""),
    ],
)
def test_a_sparkline(values: list[float], top: float | None, line: str) -> None:
    assert sparkline(values, top) == line


def test_a_history_is_cut_into_equal_parts_of_the_last_minute() -> None:
    part = SECONDS / 4
    times = np.array([0.1, 0.5, 1.2, 3.1, 3.2, 4.5]) * part
    tile = Tile("", "lr", "", 4, times, np.array([9.0, 9.0, 4.0, 1.0, 3.0, 7.0]))
    assert tile.shape(4) == pytest.approx([4.0, math.nan, 2.0, 7.0], nan_ok=True)  # what is older is left out
    assert tile.shape(1) == [7.0]


def test_a_history_rests_until_a_part_is_full() -> None:
    part = SECONDS / 8
    shapes = []
    for last in (20.1, 20.5, 20.9):
        times = np.arange(15.05, last, 0.1) * part
        shapes.append(Tile("", "", "", 4, times, np.floor(times / part)).shape(8))
    assert shapes[0] == shapes[1] == shapes[2]


def test_no_figures_yet() -> None:
    tiles = [*training_tiles(TrainingView()), *MachineHistory().tiles()]
    assert [(tile.name, tile.value) for tile in tiles] == [
        (name, "-") for name in ("lr", "gradient", "tokens/s", "time left", "memory", "CPU")
    ]
    assert all(set(sparkline(tile.shape(8))) == {" "} for tile in tiles)


def test_what_a_training_tells() -> None:
    view = TrainingView()
    for number in range(1, 400):
        view.apply(Step(number, number / 400, 80.0, 0.003, 0.25, 9_800.4, number * 0.5, 200 - number * 0.5))
    tiles = {tile.name: tile for tile in training_tiles(view)}
    assert [tiles[name].value for name in ("lr", "gradient", "tokens/s", "time left")] == [
        "0.003",
        "0.25",
        "9,800",
        "0:00",
    ]
    assert tiles["lr"].times[0] == pytest.approx(199.5 - SECONDS)


def test_what_a_machine_tells_and_no_more() -> None:
    history = MachineHistory()
    for second in range(200):
        history.add(second, reading(second % 3, H100, GpuReading(0.5, None, None, None, None)))
    tiles = history.tiles()
    assert [(tile.group, tile.name, tile.value) for tile in tiles] == [
        ("", "memory", "612 MiB"),
        ("", "CPU", "1.0 of 16"),
        ("GPU 0", "use", "97%"),
        ("GPU 0", "memory", "41.0 of 80.0 GiB"),
        ("GPU 0", "heat", "67 °C"),
        ("GPU 0", "power", "312 W"),
        ("GPU 1", "use", "50%"),
    ]
    assert all(len(tile.value) <= tile.width for tile in tiles)
    assert len(tiles[0].times) == SECONDS + 1


@pytest.mark.parametrize(("count", "text"), [(612 * 2**20, "612 MiB"), (1.4 * GIB, "1.4 GiB"), (0, "0 MiB")])
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


async def test_each_gpu_has_a_line_of_its_own_and_of_many_the_first_are_seen() -> None:
    class Alone(App[None]):
        def compose(self) -> ComposeResult:
            yield Tiles()

    app = Alone()
    async with app.run_test(size=(160, 40)) as pilot:
        tiles = app.screen.query_one(Tiles)
        tiles._machine = MachineHistory()
        tiles._machine.add(1.0, reading(1.5, *[H100] * 3))
        tiles.show(TrainingView())
        await pilot.pause()
        lines = [tiles.render_line(row).text.rstrip() for row in range(tiles.size.height)]
        assert len(lines) == 4
        assert [line[:11] for line in lines[1:]] == ["GPU 0 use  ", "GPU 1 use  ", "GPU 2 use  "]
        assert len(set(map(len, lines[1:]))) == 1
        tiles._machine.add(2.0, reading(1.5, *[H100] * 30))
        tiles.show(TrainingView())
        await pilot.pause()
        assert tiles.size.height == 8
