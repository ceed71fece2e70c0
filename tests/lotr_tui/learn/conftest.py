"""A home folder of its own for each test, and trainings of one epoch."""

from pathlib import Path

import pytest

from engine.config import Config, DataConfig
from lotr_tui.learn import class_models
from lotr_tui.learn.class_models import ClassModelName


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which the class stores its models."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def quick_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the small models of the class for one epoch only."""
    full = class_models.class_model_config

    def quick(name: ClassModelName, data: DataConfig) -> Config:
        return full(name, data).with_values(epochs=1)

    monkeypatch.setattr(class_models, "class_model_config", quick)
