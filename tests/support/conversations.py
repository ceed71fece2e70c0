"""Helpers for conversations without a screen."""

import time

from engine.generation.settings import SamplerSettings
from tests.support.app import VOCABULARY

SETTINGS = SamplerSettings(max_tokens=12)


def finish_reply(conversation):
    """Poll until the active reply has ended, and return the current reply."""
    deadline = time.monotonic() + 10
    while conversation.active_reply is not None:
        assert time.monotonic() < deadline
        conversation.poll()
        time.sleep(0.001)
    assert conversation.current_reply is not None
    return conversation.current_reply


def branch_off(conversation, reply, index, token_id, settings, seed):
    """Branch off from a reply, and return the complete branch."""
    conversation.branch(reply, index, [] if token_id is None else [token_id], settings, seed)
    return finish_reply(conversation)


def ids_of(text):
    return VOCABULARY.encode(text).tolist()


def only_session(home):
    (path,) = (home / "sessions").glob("*.jsonl")
    return path
