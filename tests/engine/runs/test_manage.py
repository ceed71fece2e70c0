"""Runs of the runs folder are deleted and renamed, and nothing else is."""

from pathlib import Path

import pytest

from engine.errors import RunError
from engine.runs import directory, manage
from engine.runs.directory import MODEL_FILE, is_locked
from engine.runs.manage import delete_run
from tests.support.runs import make_events, record_run, record_three_runs


def test_a_run_is_deleted(tmp_path: Path) -> None:
    first, second, _ = record_three_runs(tmp_path)
    delete_run(first, tmp_path)
    assert not first.exists()
    assert second.exists()


def test_the_lock_is_held_while_a_run_is_deleted_or_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, _ = record_three_runs(tmp_path)
    locked = []
    monkeypatch.setattr(manage.shutil, "rmtree", lambda path: locked.append(is_locked(path)))
    delete_run(first, tmp_path)
    monkeypatch.setattr(Path, "rename", lambda path, new: locked.append(is_locked(path)))
    manage.rename_run(second.name, "other", tmp_path)
    assert locked == [True, True]


def test_a_failed_delete_or_rename_gives_the_reason_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, _ = record_three_runs(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manage.shutil, "rmtree", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunError, match=f"{first.name} cannot be deleted: Permission denied"):
        delete_run(first, tmp_path)
    with pytest.raises(RunError, match=f"{first.name}' cannot be renamed: Permission denied"):
        manage.rename_run(first.name, "other", tmp_path)
    assert not is_locked(first)
    assert (first / MODEL_FILE).is_file()


def test_a_folder_that_is_not_a_run_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    with pytest.raises(RunError):
        delete_run(tmp_path / "precious", tmp_path)
    assert (tmp_path / "precious" / "file").read_text() == "mine"


@pytest.mark.parametrize(("name", "folder"), [("bundled", "model"), ("base", "base")])
def test_a_bundled_model_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str
) -> None:
    path = record_run(tmp_path, "r", make_events()).rename(tmp_path / folder)
    monkeypatch.setattr(directory, "assets_dir", lambda: tmp_path)
    with pytest.raises(RunError, match=f"the bundled model '{name}' is part of lotr-tui"):
        delete_run(path, tmp_path)
    assert (path / MODEL_FILE).is_file()
