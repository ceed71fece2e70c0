"""Fixtures of the activations tests."""

import pytest

from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import TWO_LAYER_LSTM


@pytest.fixture
def session_model(tmp_path):
    return SessionModel("two", "2 layers", TWO_LAYER_LSTM, run=tmp_path)
