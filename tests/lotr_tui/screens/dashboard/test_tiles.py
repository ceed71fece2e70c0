"""Metric tiles on the screen."""

from textual.app import ComposeResult
from textual.pilot import Pilot

from engine.runtime.hardware import GpuStats, MachineStats
from lotr_tui.monitor.hardware_history import MachineHistory
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.tiles import MAX_LINES, MetricTiles
from tests.support.app import ThemedApp

GPU = GpuStats(0.97, 41 * 2**30, 80 * 2**30, 67.0, 312.0)


class TilesApp(ThemedApp):
    def compose(self) -> ComposeResult:
        yield MetricTiles()


def stats(num_gpus: int) -> MachineStats:
    return MachineStats(612 * 2**20, 1.5, 16, (GPU,) * num_gpus)


async def test_each_gpu_has_its_own_line_up_to_the_maximum() -> None:
    app = TilesApp()
    async with app.run_test(size=(160, 40)) as pilot:
        tiles = app.screen.query_one(MetricTiles)
        tiles.machine_history = MachineHistory()
        tiles.machine_history.add(1.0, stats(num_gpus=3))
        tiles.show(TrainingView())
        await pilot.pause()
        lines = [tiles.render_line(row).text.rstrip() for row in range(tiles.size.height)]
        assert len(lines) == 4
        assert [line[:11] for line in lines[1:]] == ["GPU 0 use  ", "GPU 1 use  ", "GPU 2 use  "]
        assert len(set(map(len, lines[1:]))) == 1
        tiles.machine_history.add(2.0, stats(num_gpus=30))
        tiles.show(TrainingView())
        await pilot.pause()
        assert tiles.size.height == MAX_LINES == 8


def shown_lines(tiles: MetricTiles) -> list[str]:
    return [tiles.render_line(row).text.rstrip() for row in range(tiles.size.height)]


async def show_constant_minute(pilot: Pilot[None], tiles: MetricTiles) -> None:
    """Show a minute of equal readings of this machine."""
    tiles.machine_history = MachineHistory()
    for second in range(60):
        tiles.machine_history.add(float(second), stats(num_gpus=0))
    tiles.show(TrainingView())
    await pilot.pause()


async def test_sparklines_end_at_the_right_edge_and_lines_have_the_same_number_of_tiles() -> None:
    app = TilesApp()
    async with app.run_test(size=(200, 50)) as pilot:
        tiles = app.screen.query_one(MetricTiles)
        await show_constant_minute(pilot, tiles)
        [line] = shown_lines(tiles)
        assert 190 <= len(line) <= 198  # 6 tiles share what is left
        await pilot.resize_terminal(120, 35)
        await pilot.pause()
        first, second_line = shown_lines(tiles)
        assert "tokens/s" in first
        assert "CPU" in second_line
        assert 110 <= len(second_line) <= 118


async def test_history_that_does_not_change_is_a_line() -> None:
    app = TilesApp()
    async with app.run_test(size=(200, 50)) as pilot:
        tiles = app.screen.query_one(MetricTiles)
        await show_constant_minute(pilot, tiles)
        memory = shown_lines(tiles)[0].split("MiB")[1].split("CPU")[0].strip()
        assert set(memory) == {"─"}
