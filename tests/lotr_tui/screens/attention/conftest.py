"""Fixtures of the attention tests."""

import pytest

from lotr_tui.session.session_model import SessionModel
from tests.support.app import VOCABULARY
from tests.support.attention import attention_session_model


@pytest.fixture
def session_model() -> SessionModel:
    return attention_session_model(VOCABULARY)
