"""List of runs, metric tiles, and clocks that jump."""

import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.config import BUNDLED
from engine.events import Finished, Snapshot, Step
from engine.runs import directory
from engine.runs.directory import RunSummary, resolve_run, summarize_run
from engine.runtime.process import GpuStats, MachineStats
from lotr_tui.monitor.run_list import RUN_COLUMNS, list_selectable_runs, read_compared_run
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.panes import WINDOW_SECONDS, MetricTile, machine_tiles
from tests.support.files import write_run
from tests.support.training import events_of, make_dataset, run_training


def test_bundled_models_follow_the_runs_if_they_are_present(tmp_path, monkeypatch):
    monkeypatch.setattr(directory.files, "assets_dir", lambda: tmp_path / "assets")
    write_run(tmp_path / "runs" / "mine")
    write_run(tmp_path / "assets" / "model")
    assert [run.name for run in list_selectable_runs(tmp_path / "runs")] == ["mine", "bundled"]
    write_run(tmp_path / "assets" / "base")
    assert [run.name for run in list_selectable_runs(tmp_path / "runs")] == ["mine", "bundled", "base"]
    (tmp_path / "assets" / "model" / "config.json").write_text("{")
    assert [run.name for run in list_selectable_runs(tmp_path / "runs")] == ["mine", "base"]


@given(st.lists(st.one_of(st.none(), st.floats(1, 500)), max_size=8))
def test_unknown_perplexities_sort_after_all_others(perplexities):
    plain = RunSummary("r", Path("r"), "finished", "tiny", "bundled", "line", 5.0, 80.0, 82.0, 1000.0, 10, "lstm")
    runs = [replace(plain, name=f"r{number}", valid_perplexity=value) for number, value in enumerate(perplexities)]
    valid = next(column for column in RUN_COLUMNS if column.name == "valid")
    values = [run.valid_perplexity for run in sorted(runs, key=valid.sort_key)]
    known = sorted(value for value in values if value is not None)
    assert values == known + [None] * (len(values) - len(known))


def test_history_is_resampled_to_equal_parts_of_the_last_minute():
    times = np.array([0.1, 0.5, 1.2, 3.1, 3.2, 4.5]) * WINDOW_SECONDS / 4
    history = np.array([9.0, 9.0, 4.0, 1.0, 3.0, 7.0])
    tile = MetricTile(group="", name="lr", value="", value_width=4, times=times, history=history)
    assert tile.resample(4) == [4.0, 4.0, 2.0, 7.0]  # older values are left out, and a part without values is flat
    assert tile.resample(1) == [7.0]


def test_machine_tiles_show_only_what_can_be_read():
    gpus = GpuStats(0.97, 41 * 2**30, 80 * 2**30), GpuStats(0.5, None, None)
    stats = [MachineStats(612 * 2**20, second % 3, 16, gpus) for second in range(50)]
    tiles = machine_tiles(list(enumerate(stats)))
    assert [(tile.group, tile.name, tile.value) for tile in tiles] == [
        ("", "memory", "612 MiB"), ("", "CPU", "1.0 of 16"), ("GPU 0", "use", "97%"),
        ("GPU 0", "memory", "41.0 of 80.0 GiB"), ("GPU 1", "use", "50%"),
    ]  # fmt: skip
    assert all(len(tile.value) <= tile.value_width for tile in tiles)
    assert len(tiles[0].times) == 50


def test_durations_of_a_training_are_correct_while_the_clock_jumps(tmp_path, monkeypatch):
    plain, jumps, hour = time.time, count(), 3600.0
    monkeypatch.setattr(time, "time", lambda: plain() + (-1) ** next(jumps) * 5 * hour)
    started_at = time.perf_counter()
    events = run_training(make_dataset(tmp_path), epochs=2, checkpoint_seconds=hour)
    duration = time.perf_counter() - started_at
    steps = events_of(Step, events)
    assert all(0 < step.seconds <= duration and 0 <= step.eta_seconds < hour for step in steps)
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert all(step.tokens_per_second > 0 for step in steps)
    assert events_of(Finished, events)[0].seconds <= duration
    assert not events_of(Snapshot, events)  # an hour has not passed


def test_a_run_has_one_validation_figure_in_the_list_the_dashboard_and_the_comparison():
    path = resolve_run(BUNDLED)
    view, compared = TrainingView.from_run(path), read_compared_run(path)
    figure = view.unit.format(view.best.valid_perplexity)
    valid = next(column for column in RUN_COLUMNS if column.name == "valid")
    assert valid.format(summarize_run(path)) == f"{figure}*"
    assert compared.unit.format(compared.figures["valid_perplexity"]) == figure
    assert f"{compared.figures['valid_bits_per_character']:.3f}" == figure
