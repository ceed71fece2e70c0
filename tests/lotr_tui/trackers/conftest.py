"""Fixtures for tests of experiment trackers."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory):
    """Return the path of an empty database of MLflow, whose creation takes seconds; None without MLflow."""
    if find_spec("mlflow") is None:
        return None
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    code = "import sys; from mlflow.tracking import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{path}"], check=True, capture_output=True)
    return path


@pytest.fixture
def runs_dir(home, mlflow_database):
    """Return a runs folder, which has a database of MLflow if that is installed."""
    (home / "runs").mkdir(parents=True)
    if mlflow_database is not None:
        shutil.copy(mlflow_database, home / "runs")
    return home / "runs"


@pytest.fixture(autouse=True)
def _local_trackers(home, tmp_path, monkeypatch):
    """Keep every tracker inside the temporary folder, whatever the environment of the developer says."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
