"""Runs removed and renamed, and what is neither."""

from pathlib import Path

import pytest

from engine.errors import RunError
from engine.runs import manage, store
from engine.runs.manage import remove
from tests.support.runs import three_runs, training, write


def test_remove(tmp_path: Path) -> None:
    first, second, _ = three_runs(tmp_path)
    remove(first, tmp_path)
    assert not first.exists()
    assert second.exists()


def test_nobody_begins_to_train_what_is_being_removed_or_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = three_runs(tmp_path)
    held = []
    monkeypatch.setattr(manage.shutil, "rmtree", lambda path: held.append(store.is_written(path)))
    remove(first, tmp_path)
    monkeypatch.setattr(Path, "rename", lambda path, new: held.append(store.is_written(path)))
    manage.rename(second.name, "other", tmp_path)
    assert held == [True, True]


def test_what_cannot_be_removed_or_renamed_says_why_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, _ = three_runs(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manage.shutil, "rmtree", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunError, match=f"{first.name} cannot be deleted: Permission denied"):
        remove(first, tmp_path)
    with pytest.raises(RunError, match=f"{first.name}' cannot be renamed: Permission denied"):
        manage.rename(first.name, "other", tmp_path)
    assert not store.is_written(first)
    assert (first / store.MODEL).is_file()


def test_what_is_no_run_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    with pytest.raises(RunError):
        remove(tmp_path / "precious", tmp_path)
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_the_bundled_model_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "model", training())
    monkeypatch.setattr(manage, "assets_folder", lambda: tmp_path)
    with pytest.raises(RunError, match="bundled"):
        remove(path, tmp_path)
    assert (path / store.MODEL).is_file()
