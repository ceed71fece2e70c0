"""A home folder of its own for each test, and trainings of one epoch."""

import pytest

from lotr_tui.learn import material


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def quick_training(monkeypatch):
    """Train the small models of the class for one epoch only, with few parameters."""
    full = material.class_model_config

    def quick(name, data):
        sizes = {"num_layers": 1, "num_heads": 2} if name == "transformer" else {"hidden_size": 16}
        return full(name, data).with_values(epochs=1, threads=1, embedding_size=16, **sizes)

    monkeypatch.setattr(material, "class_model_config", quick)
