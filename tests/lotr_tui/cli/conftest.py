"""Fixtures for tests of the command line, most of which runs in the process of the tests."""

import pytest

from tests.support.commands import refusal, run_here


@pytest.fixture
def lotr(home, tmp_path, monkeypatch):
    """Return a function that runs `lotr-tui` in this process, in a folder outside the checkout."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **options):
        return run_here(arguments, **{"LOTR_TUI_HOME": str(home), **options})

    return run


@pytest.fixture
def refused(lotr, home):
    """Return a function that runs a command that must be refused and change no run, and returns its line on stderr."""

    def run(*arguments, **options):
        before = sorted((home / "runs").rglob("*"))
        line = refusal(lotr(*arguments, **options))
        assert len(line) < 1_000
        assert sorted((home / "runs").rglob("*")) == before
        return line

    return run
