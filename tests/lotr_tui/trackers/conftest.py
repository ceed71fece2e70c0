"""Fixtures for tests of experiment trackers."""

import os

import pytest


@pytest.fixture
def runs_dir(home):
    (home / "runs").mkdir(parents=True)
    return home / "runs"


@pytest.fixture(autouse=True)
def _local_trackers(monkeypatch):
    """Keep every tracker inside the temporary folder, whatever the environment of the developer says."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
