"""Fixtures for tests of the command line."""

import pytest


@pytest.fixture
def refused(command, home):
    """Return a function that runs a command that must be refused, and returns its line on stderr.

    A refused command exits with 2, prints nothing on stdout, and leaves the runs folder unchanged.
    """

    def run(*arguments, **options):
        before = sorted((home / "runs").rglob("*"))
        process = command(*arguments, **options)
        assert process.returncode == 2, process.stderr
        assert process.stdout == ""
        lines = process.stderr.splitlines()
        assert len(lines) == 1, process.stderr
        assert lines[0].startswith("lotr-tui: ")
        assert "Traceback" not in lines[0]
        assert len(lines[0]) < 1_000
        assert sorted((home / "runs").rglob("*")) == before
        return lines[0]

    return run


@pytest.fixture
def lotr(folder, command):
    """Return a function that runs a command with the runs of the module's fixture `folder`."""

    def run(*arguments, **options):
        return command(*arguments, LOTR_TUI_HOME=str(folder), **options)

    return run
