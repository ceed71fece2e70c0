"""Fixtures for tests of the command line."""

import pytest


@pytest.fixture
def lotr(folder, command):
    """Return a function that runs a command with the runs of the module's fixture `folder`."""

    def run(*arguments, **options):
        return command(*arguments, LOTR_TUI_HOME=str(folder), **options)

    return run
