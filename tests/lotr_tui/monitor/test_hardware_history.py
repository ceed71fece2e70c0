"""Metric tiles: values and histories of the training and of the machine."""

import math

import numpy as np
import pytest

from engine.events import Step
from engine.runtime.hardware import GpuStats, MachineStats
from lotr_tui.monitor.hardware_history import WINDOW_SECONDS, MachineHistory, MetricTile, training_tiles
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.bars import sparkline
from tests.support.metrics import view_of

GIB = 2**30
H100 = GpuStats(
    utilization=0.97, memory_used=41 * GIB, memory_total=80 * GIB, temperature_celsius=67.0, power_watts=312.0
)
PARTLY_READABLE_GPU = GpuStats(
    utilization=0.5, memory_used=None, memory_total=None, temperature_celsius=None, power_watts=None
)


def make_tile(times: np.ndarray, history: np.ndarray) -> MetricTile:
    return MetricTile(group="", name="lr", value="", value_width=4, times=times, history=history)


def test_history_is_resampled_to_equal_parts_of_the_last_minute() -> None:
    part = WINDOW_SECONDS / 4
    times = np.array([0.1, 0.5, 1.2, 3.1, 3.2, 4.5]) * part
    tile = make_tile(times, np.array([9.0, 9.0, 4.0, 1.0, 3.0, 7.0]))
    assert tile.resample(4) == [4.0, 4.0, 2.0, 7.0]  # older values are left out, and a part without values is flat
    assert tile.resample(1) == [7.0]


@pytest.mark.parametrize("seconds", [5, 9, 16, 40, 90])
def test_young_history_fills_at_least_half_of_the_sparkline(seconds: int) -> None:
    times = np.arange(0.0, seconds, 1.0)
    means = make_tile(times, times).resample(40)
    assert sum(map(math.isnan, means)) <= 20
    assert means[-1] == seconds - 1


def test_history_does_not_move_before_a_part_is_complete() -> None:
    part = WINDOW_SECONDS / 8
    means = []
    for last in (20.1, 20.5, 20.9):
        times = np.arange(15.05, last, 0.1) * part
        means.append(make_tile(times, np.floor(times / part)).resample(8))
    assert means[0] == means[1] == means[2]


def test_tiles_without_values_show_a_dash() -> None:
    tiles = [*training_tiles(TrainingView()), *MachineHistory().tiles()]
    assert [(tile.name, tile.value) for tile in tiles] == [
        (name, "-") for name in ("lr", "gradient", "tokens/s", "time left", "memory", "CPU")
    ]
    assert all(set(sparkline(tile.resample(8))) == {" "} for tile in tiles)


def test_training_tiles_show_the_last_step_and_one_minute() -> None:
    steps = [Step(n, n / 400, 80.0, 0.003, 0.25, 9_800.4, n * 0.5, 200 - n * 0.5) for n in range(1, 400)]
    tiles = {tile.name: tile for tile in training_tiles(view_of(steps))}
    values = [tiles[name].value for name in ("lr", "gradient", "tokens/s", "time left")]
    assert values == ["0.003", "0.25", "9,800", "0:00"]
    assert tiles["lr"].times[0] == pytest.approx(199.5 - WINDOW_SECONDS)


def test_machine_tiles_show_only_what_can_be_read() -> None:
    history = MachineHistory()
    for second in range(200):
        stats = MachineStats(612 * 2**20, second % 3, 16, (H100, PARTLY_READABLE_GPU))
        history.add(second, stats)
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
    assert all(len(tile.value) <= tile.value_width for tile in tiles)
    assert len(tiles[0].times) == WINDOW_SECONDS + 1
