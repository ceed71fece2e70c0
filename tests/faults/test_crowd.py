"""The short form of `python -m tests.faults.crowd`."""

from pathlib import Path

import pytest

from tests.faults.crowd import crowd


def test_a_small_crowd_leaves_all_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_DEBUG", "1")
    monkeypatch.chdir(tmp_path)
    assert list(crowd(tmp_path, sessions=2, trainers=1, seconds=4, seed=1))[-1].startswith("whole: ")
