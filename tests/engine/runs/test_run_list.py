"""The list of runs and their summaries."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Finished, Step
from engine.runs import metrics
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, resolve_run
from engine.runs.loading import list_epoch_checkpoints, load_model
from engine.runs.locked_run import create_run
from engine.runs.summary import is_finished, list_runs, summarize_run
from engine.runs.writer import record_events
from tests.support.runs import CONFIG, VOCABULARY, make_decoder, make_events, record_run, record_three_runs


def test_the_list_is_latest_first_and_skips_folders_that_are_not_runs(tmp_path: Path) -> None:
    record_three_runs(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / CONFIG_FILE).write_text("{")
    assert [run.name for run in list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert list_runs(tmp_path / "none") == []


def test_an_unreadable_folder_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_three_runs(tmp_path)
    (tmp_path / "theirs").mkdir()
    plain_stat = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.parent.name == "theirs":
            raise PermissionError(13, "Permission denied")
        return plain_stat(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert [run.name for run in list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert resolve_run("latest", tmp_path).name == "gamma"


def test_latest_is_the_last_started_run_that_is_readable(tmp_path: Path) -> None:
    _, alpha, gamma = record_three_runs(tmp_path)
    os.utime(alpha / CONFIG_FILE, (2_000_000_000, 2_000_000_000))
    assert resolve_run("latest", tmp_path) == alpha
    assert [run.name for run in list_runs(tmp_path)] == ["alpha", "gamma", "beta"]
    (alpha / CONFIG_FILE).write_text("{")
    os.utime(alpha / CONFIG_FILE, (2_000_000_000, 2_000_000_000))
    assert resolve_run("latest", tmp_path) == gamma


def test_a_folder_in_place_of_the_configuration_is_not_suggested(tmp_path: Path) -> None:
    (tmp_path / "alpha" / CONFIG_FILE).mkdir(parents=True)
    with pytest.raises(RunError) as error:
        resolve_run("alhpa", tmp_path)
    assert str(error.value) == f"run 'alhpa' is neither in {tmp_path} nor a path. See `lotr-tui runs`"


def test_a_file_deleted_while_sizes_are_added_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record_run(tmp_path, "r", make_events())
    plain_lstat = Path.lstat
    size_before, config_size = summarize_run(path).size_bytes, (path / CONFIG_FILE).stat().st_size

    def lstat(path: Path) -> os.stat_result:
        if path.name == CONFIG_FILE:
            raise FileNotFoundError(2, "No such file or directory")
        return plain_lstat(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert summarize_run(path).size_bytes == size_before - config_size


@pytest.mark.parametrize(
    "read",
    [
        summarize_run,
        load_model,
        is_finished,
        lambda path: load_model(path, 1),
        list_epoch_checkpoints,
    ],
)
def test_few_rows_of_long_metrics_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    """Only the last of consecutive steps is parsed, so that a list of long runs appears at once."""
    steps = [Step(n, n / 500, 120.0, 0.003, 1.0, 1000.0, 1.0, 1.0) for n in range(500)]
    run = create_run(CONFIG.with_values(keep_epoch_checkpoints=True), VOCABULARY, "r", tmp_path)
    list(record_events(run, iter([*make_events()[:3], *steps, Evaluated(500, 1.0, 90.0, True, 2.1, make_decoder(1))])))
    parsed = []
    decode_line = metrics.decode_line
    monkeypatch.setattr(metrics, "decode_line", lambda line: parsed.append(line) or decode_line(line))
    read(run.path)
    assert 5 <= len(parsed) < 30


def test_a_summary_contains_settings_and_results(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events())
    summary = summarize_run(path)
    assert (summary.name, summary.preset, summary.corpus, summary.mode) == ("r", "tiny", "bundled", "line")
    assert (summary.epochs, summary.valid_perplexity, summary.test_perplexity) == (2.0, 90.0, 88.0)
    assert (summary.path, summary.started_at) == (path, (path / CONFIG_FILE).stat().st_mtime)
    assert summary.size_bytes == sum(item.stat().st_size for item in path.iterdir())


def test_the_epochs_of_a_summary_are_the_completed_ones(tmp_path: Path) -> None:
    events = make_events(None)
    expected = [0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 2.0]
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    epochs = [
        summarize_run(run.path).epochs
        for event in record_events(run, iter(events))
        if not isinstance(event, Checkpointed)
    ]
    assert epochs == expected
    stopped = summarize_run(record_run(tmp_path, "s", [*events, Finished("stopped", "s", 2.25, 89.0, 88.0, 5.0)]))
    assert (stopped.epochs, stopped.valid_perplexity) == (2.25, 89.0)


def test_a_summary_skips_damaged_rows(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events(None))
    with (path / METRICS_FILE).open("a") as file:
        file.write('{"event": "step", "epoch": "many"}\n{"event": "evaluated", "valid_perplexity": "low"}\n')
        file.write('{"event": "step", "epoch": null}\n')
    summary = summarize_run(path)
    assert (summary.epochs, summary.valid_perplexity) == (2.0, 90.0)
