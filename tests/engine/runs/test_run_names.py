"""What a run may be called, and the folders that runs are made in."""

import os
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.runs import store, writer
from tests.support.runs import CONFIG, VOCABULARY, training, write


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", training())
    before = sorted((item.name, item.stat().st_size) for item in path.iterdir())
    with pytest.raises(RunError, match="'mine' exists"):
        writer.create(CONFIG, VOCABULARY, "mine", tmp_path)
    assert sorted((item.name, item.stat().st_size) for item in path.iterdir()) == before


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/abs", "-rf", ".hidden", "a b", "é", "a\n", "x" * 101]
)
def test_names_that_are_no_folder_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="no folder name"):
        writer.create(CONFIG, VOCABULARY, name, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["latest", "bundled"])
def test_names_that_mean_something_else_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=name):
        writer.create(CONFIG, VOCABULARY, name, tmp_path)


def test_runs_without_a_name_never_collide(tmp_path: Path) -> None:
    made = [writer.create(CONFIG, VOCABULARY, None, tmp_path) for _ in range(4)]
    assert len({run.name for run in made}) == 4
    assert all(run.name.startswith("tiny-") for run in made)
    for run in made:
        run.lock.close()


def test_a_runs_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for folder in (blocked, blocked / "runs"):
        with pytest.raises(RunError, match="cannot be written"):
            writer.create(CONFIG, VOCABULARY, "r", folder)
    assert blocked.read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RunError, match="cannot be written"):
            writer.create(CONFIG, VOCABULARY, "r", tmp_path / "runs")
    finally:
        tmp_path.chmod(0o755)


def test_the_home_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    run = writer.create(CONFIG, VOCABULARY, "r")
    run.lock.close()
    assert run.path == tmp_path / "runs" / "r"
    assert store.resolve("r") == run.path
