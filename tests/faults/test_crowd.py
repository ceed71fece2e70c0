"""Short form of `python -m tests.faults.crowd`."""

from pathlib import Path

import pytest

from tests.faults.crowd import run_crowd


def test_two_sessions_and_a_training_leave_valid_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_DEBUG", "1")
    monkeypatch.chdir(tmp_path)
    lines = list(run_crowd(tmp_path, sessions=2, trainings=1, seconds=4, seed=1))
    assert lines[-1].startswith("all files are valid: ")
