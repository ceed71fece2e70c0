"""Fixtures of the lens tests."""

import pytest

from engine.models.ngram import KneserNey
from lotr_tui.screens.lens import scoring
from tests.support.analysis import make_kneser_ney


@pytest.fixture
def kneser_ney(monkeypatch: pytest.MonkeyPatch) -> KneserNey:
    """Baseline that every run seems to have."""
    model = make_kneser_ney()
    monkeypatch.setattr(scoring, "load_kneser_ney", lambda run: model)
    return model
