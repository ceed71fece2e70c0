"""Valid names of runs, and the folder that runs are created in."""

import os
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.runs.directory import resolve_run
from engine.runs.locked_run import create_run
from tests.support.runs import CONFIG, VOCABULARY, make_events, record_run


def test_a_taken_name_is_refused_and_the_run_unchanged(tmp_path: Path) -> None:
    path = record_run(tmp_path, "mine", make_events())
    before = sorted((item.name, item.stat().st_size) for item in path.iterdir())
    with pytest.raises(RunError, match="'mine' exists"):
        create_run(CONFIG, VOCABULARY, "mine", tmp_path)
    assert sorted((item.name, item.stat().st_size) for item in path.iterdir()) == before


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/abs", "-rf", ".hidden", "a b", "é", "a\n", "x" * 101]
)
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="is not allowed; start with a letter or digit"):
        create_run(CONFIG, VOCABULARY, name, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["latest", "bundled", "base"])
def test_reserved_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=name):
        create_run(CONFIG, VOCABULARY, name, tmp_path)


def test_default_names_never_collide(tmp_path: Path) -> None:
    runs = [create_run(CONFIG, VOCABULARY, None, tmp_path) for _ in range(4)]
    assert len({run.name for run in runs}) == 4
    assert all(run.name.startswith("tiny-") for run in runs)
    for run in runs:
        run.lock.release()


def test_a_file_in_place_of_the_runs_folder_is_an_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for folder in (blocked, blocked / "runs"):
        with pytest.raises(RunError, match="cannot be written"):
            create_run(CONFIG, VOCABULARY, "r", folder)
    assert blocked.read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RunError, match="cannot be written"):
            create_run(CONFIG, VOCABULARY, "r", tmp_path / "runs")
    finally:
        tmp_path.chmod(0o755)


def test_the_default_runs_folder_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    run = create_run(CONFIG, VOCABULARY, "r")
    run.lock.release()
    assert run.path == tmp_path / "runs" / "r"
    assert resolve_run("r") == run.path
