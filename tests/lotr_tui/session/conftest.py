"""Fixtures for conversations without a screen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.generation.settings import SamplerSettings
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode
from tests.support.conversations import SETTINGS, Ask, finish_reply


@pytest.fixture
def conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    """An empty conversation at full speed, saved in `tmp_path`."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    conversation = Conversation(0)
    yield conversation
    conversation.close()


@pytest.fixture
def ask(conversation: Conversation, session_model: SessionModel) -> Ask:
    """Function that sends a prompt to the session model, and returns the complete reply."""

    def ask(
        text: str,
        reply_mode: ReplyMode = "continue",
        *,
        seed: int = 1,
        previous: Reply | None = None,
        settings: SamplerSettings = SETTINGS,
    ) -> Reply:
        conversation.submit_prompt(session_model, text, reply_mode, settings, seed, previous)
        return finish_reply(conversation)

    return ask
