"""A home folder of its own for each test."""

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
