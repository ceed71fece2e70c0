"""Helpers for conversations without a screen."""

import time

from engine.generation.settings import SamplerSettings
from lotr_tui.session.cast import NO_ROLES
from lotr_tui.session.conversation import Conversation, Request
from lotr_tui.session.read_text import PromptContext
from lotr_tui.session.session_model import SessionModel
from tests.support.app import VOCABULARY

SETTINGS = SamplerSettings(max_tokens=12)
ANOTHER = SessionModel("another", "", None)


def request(
    settings=SETTINGS, seed=1, session_model=ANOTHER, mode="continue", previous=None, roles=NO_ROLES, best_of=1
):
    """How a reply is made; without a model, by the one of the reply that is branched or continued."""
    return Request(session_model, settings, seed, PromptContext(mode, previous, roles), best_of)


def finish_scene(conversation):
    """Poll until no reply is active, and return the turns that were active, in order."""
    turns = []
    deadline = time.monotonic() + 30
    while (active := conversation.active_reply) is not None:
        assert time.monotonic() < deadline
        if active not in turns:
            turns.append(active)
        conversation.poll()
        time.sleep(0.0005)
    return turns


def finish_reply(conversation):
    finish_scene(conversation)
    assert conversation.current_reply is not None
    return conversation.current_reply


def written(start, *arguments):
    """Start a reply by a method of a conversation, and return it once it is complete."""
    start(*arguments)
    return finish_reply(start.__self__)


def branch_off(conversation, reply, index, token_id, settings, seed):
    return written(conversation.branch, reply, index, [] if token_id is None else [token_id], request(settings, seed))


def restored(session, session_model):
    conversation = Conversation(0, session)
    conversation.restore(session_model)
    return conversation


def ids_of(text):
    return VOCABULARY.encode(text).tolist()


def only_session(home):
    (path,) = (home / "sessions").glob("*.jsonl")
    return path
