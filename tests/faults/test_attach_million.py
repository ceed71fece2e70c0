"""A short form of the measure of a million reports: the dashboard of a long run, in a terminal of its own."""

from pathlib import Path

import pytest

from tests.faults.attach_million import LIMITS, measure, write_run


def test_a_run_of_many_reports_is_shown_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    write_run(tmp_path / "runs" / "big", 20_000)
    figures = measure(tmp_path / "runs" / "big", 20_000)
    assert set(figures) == set(LIMITS)
    assert figures["peak memory, MB"] < LIMITS["peak memory, MB"]
