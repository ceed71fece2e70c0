"""Loading of models for columns that a test can hold up."""

import threading

import pytest

from lotr_tui.screens.inspect import comparison
from lotr_tui.session.session_model import SessionModel
from tests.support.app import make_decoder


class Loader:
    """Substitute for `load_model_choice` that waits for `released` and returns small models."""

    def __init__(self):
        self.released = threading.Event()
        self.choices = []
        self.models = {}

    def __call__(self, choice, runs_dir):
        self.choices.append(choice)
        self.released.wait(10)
        number = len(self.choices)
        return SessionModel(choice.name, f"valid {60 + number}.0", self.models.get(choice.kind) or make_decoder(number))


@pytest.fixture
def loader(monkeypatch):
    loader = Loader()
    monkeypatch.setattr(comparison, "load_model_choice", loader)
    yield loader
    loader.released.set()
