"""Fixtures for conversations without a screen."""

import pytest

from lotr_tui.session.conversation import Conversation
from tests.support.conversations import SETTINGS, request, written


@pytest.fixture
def conversation(tmp_path, monkeypatch):
    """An empty conversation at full speed, saved in `tmp_path`."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    conversation = Conversation(0)
    yield conversation
    conversation.close()


@pytest.fixture
def ask(conversation, session_model):
    """Function that sends a prompt to the session model, and returns the complete reply."""

    def ask(text, reply_mode="continue", *, seed=1, previous=None, settings=SETTINGS):
        return written(conversation.say, text, request(settings, seed, session_model, reply_mode, previous))

    return ask
