"""The list of runs, and what it tells of each."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Finished, Step
from engine.runs import metrics, store, writer
from tests.support.runs import CONFIG, VOCABULARY, decoder, three_runs, training, write


def test_the_list_is_latest_first_and_passes_over_what_is_no_run(tmp_path: Path) -> None:
    three_runs(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / store.CONFIG).write_text("{")
    assert [run.name for run in store.list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert store.list_runs(tmp_path / "none") == []


def test_a_folder_that_is_closed_to_us_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_runs(tmp_path)
    (tmp_path / "theirs").mkdir()
    usual = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.parent.name == "theirs":
            raise PermissionError(13, "Permission denied")
        return usual(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert [run.name for run in store.list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert store.resolve("latest", tmp_path).name == "gamma"


def test_the_latest_is_the_one_begun_last_that_can_be_read(tmp_path: Path) -> None:
    _, alpha, gamma = three_runs(tmp_path)
    os.utime(alpha / store.CONFIG, (2_000_000_000, 2_000_000_000))
    assert store.resolve("latest", tmp_path) == alpha
    assert [run.name for run in store.list_runs(tmp_path)] == ["alpha", "gamma", "beta"]
    (alpha / store.CONFIG).write_text("{")
    os.utime(alpha / store.CONFIG, (2_000_000_000, 2_000_000_000))
    assert store.resolve("latest", tmp_path) == gamma


def test_a_folder_without_a_file_of_settings_is_no_run_to_name(tmp_path: Path) -> None:
    (tmp_path / "alpha" / store.CONFIG).mkdir(parents=True)
    with pytest.raises(RunError) as caught:
        store.resolve("alhpa", tmp_path)
    assert str(caught.value) == f"run 'alhpa' is neither in {tmp_path} nor a path. See `lotr-tui runs`"


def test_a_file_that_goes_while_they_are_counted_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "r", training())
    before, config, usual = store.summarize(path).bytes, (path / store.CONFIG).stat().st_size, Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == store.CONFIG:
            raise FileNotFoundError(2, "No such file or directory")
        return usual(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert store.summarize(path).bytes == before - config


@pytest.mark.parametrize(
    "read", [store.summarize, store.load, store.is_finished, lambda path: store.load(path, 1), store.kept_epochs]
)
def test_of_a_long_record_little_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    """Of reports one after another the last alone, so that a list of long runs is there at once."""
    reports = [Step(n, n / 500, 120.0, 0.003, 1.0, 1000.0, 1.0, 1.0) for n in range(500)]
    run = writer.create(CONFIG.with_values(keep_epochs=True), VOCABULARY, "r", tmp_path)
    list(writer.record(run, iter([*training()[:3], *reports, Evaluated(500, 1.0, 90.0, True, 2.1, decoder(1))])))
    parsed = []
    usual = metrics._row
    monkeypatch.setattr(metrics, "_row", lambda line: parsed.append(line) or usual(line))
    read(run.path)
    assert 5 <= len(parsed) < 30


def test_a_summary(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    found = store.summarize(path)
    assert (found.name, found.preset, found.corpus, found.mode) == ("r", "tiny", "bundled", "line")
    assert (found.epochs, found.valid_perplexity, found.test_perplexity) == (2.0, 90.0, 88.0)
    assert (found.path, found.started) == (path, (path / store.CONFIG).stat().st_mtime)
    assert found.bytes == sum(item.stat().st_size for item in path.iterdir())


def test_the_epochs_of_a_run_are_those_done_not_those_planned(tmp_path: Path) -> None:
    events = training(None)
    expected = [0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 2.0]
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    found = [
        store.summarize(run.path).epochs
        for event in writer.record(run, iter(events))
        if not isinstance(event, Checkpointed)
    ]
    assert found == expected
    left = store.summarize(write(tmp_path, "s", [*events, Finished("stopped", "s", 2.25, 89.0, 88.0, 5.0)]))
    assert (left.epochs, left.valid_perplexity) == (2.25, 89.0)


def test_a_summary_of_damaged_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training(None))
    with (path / store.METRICS).open("a") as file:
        file.write('{"event": "step", "epoch": "many"}\n{"event": "evaluated", "valid_perplexity": "low"}\n')
        file.write('{"event": "step", "epoch": null}\n')
    found = store.summarize(path)
    assert (found.epochs, found.valid_perplexity) == (2.0, 90.0)
