"""Fixtures of the attention tests."""

import pytest

from tests.support.app import VOCABULARY
from tests.support.attention import attention_session_model


@pytest.fixture
def session_model():
    return attention_session_model(VOCABULARY)
