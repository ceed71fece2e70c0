"""Conversations by a chat template: what the model reads, branches, limits of memory, and saved sessions."""

import json

import pytest

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from engine.models.pretrained.chat import ChatMessage
from lotr_tui.session import read_text
from lotr_tui.session.cast import Roles
from lotr_tui.session.export import to_json, to_text
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.session_file import parse_session
from lotr_tui.session.transcript import speaker_labels
from tests.support.conversations import branch_off, only_session, request, restored, written
from tests.support.sessions import session_bytes
from tests.support.slow_models import FakeSlowModel, slow_session_model

SETTINGS = SamplerSettings(max_tokens=30)


@pytest.fixture
def model():
    return FakeSlowModel()


@pytest.fixture
def session_model(model):
    return slow_session_model(model)


def say(conversation, session_model, text, previous=None, system=""):
    return written(
        conversation.say,
        text,
        request(SETTINGS, 3, session_model, "conversation", previous, Roles(system_prompt=system)),
    )


def test_earlier_turns_are_messages(conversation, session_model, model):
    first = say(conversation, session_model, "Hello there", system="You are Gandalf.")
    second = say(conversation, session_model, "Where is the Ring?", first, "You are Gandalf.")
    assert model.chat is not None
    assert model.chat.encoded[-1] == (
        ChatMessage("system", "You are Gandalf."),
        ChatMessage("user", "Hello there"),
        ChatMessage("assistant", first.reply_text().strip()),
        ChatMessage("user", "Where is the Ring?"),
    )
    assert list(second.context_ids) == list(model.chat.encode(model.chat.encoded[-1]))
    assert second.text() == f"Where is the Ring?\n{second.reply_text()}"
    answer = first.reply_text().strip()
    before = f"system\nYou are Gandalf.\nuser\nHello there\nassistant\n{answer}\nuser\nWhere is the Ring?\nassistant\n"
    assert second.full_text() == before + second.reply_text()  # what the attention view and the lens read
    assert [label.text for label in speaker_labels(second) or ()] == ["You", "Slowpoke-1B"]


def test_ended_answer_is_not_continued_and_a_cut_one_is(conversation, session_model):
    reply = say(conversation, session_model, "Hello there")
    longer = written(conversation.continue_reply, reply, request(SETTINGS, 4))
    assert longer.tokens[: len(reply.tokens)] == reply.tokens
    longer.reason = "eos"
    with pytest.raises(InvalidInputError, match="the answer has ended"):
        conversation.continue_reply(longer, request(SETTINGS, 4))


def test_model_states_stay_where_log_probs_were_evicted(conversation, session_model, model, monkeypatch):
    monkeypatch.setattr(read_text, "MAX_LOG_PROBS", 5)
    reply = say(conversation, session_model, "Hello there")
    texts = [NextTokenContext.of_reply(reply, index) for index in range(31)]
    assert [index for index, text in enumerate(texts) if conversation.reader.find(text)][-5:] == [26, 27, 28, 29, 30]
    model.num_read = 0
    branch = branch_off(conversation, reply, 10, reply.tokens[0].id, SamplerSettings(max_tokens=1), 1)
    assert model.num_read == 3  # the token before the branch, whose log-probabilities are gone, and the new ones
    assert len(branch.tokens) == 12


def test_session_file_keeps_the_system_prompt(conversation, session_model, tmp_path):
    first = say(conversation, session_model, "Hello there", system="You are Gandalf.")
    second = say(conversation, session_model, "Where is the Ring?", first, "You are Frodo.")
    path = only_session(tmp_path)
    session = parse_session(path.stem, path.read_bytes())
    assert [reply.system_prompt for reply in session.replies.values()] == ["You are Gandalf.", "You are Frodo."]
    again = restored(session, session_model)
    replies = list(again.replies.values())
    assert [list(reply.context_ids) for reply in replies] == [list(first.context_ids), list(second.context_ids)]
    assert not any(reply.read_only_reason for reply in replies)
    branch = branch_off(again, replies[1], 3, None, SETTINGS, 8)
    expected = branch_off(conversation, second, 3, None, SETTINGS, 8)
    assert [token.id for token in branch.tokens] == [token.id for token in expected.tokens]
    again.close()
    assert json.loads(to_json(session))["replies"][1]["system_prompt"] == "You are Frodo."


def test_answers_of_a_chat_cannot_be_continued_without_a_template(conversation, session_model):
    reply = say(conversation, session_model, "Hello there")
    session = parse_session("x", session_bytes(reply))
    plain = slow_session_model(FakeSlowModel(has_chat=False))
    (saved,) = restored(session, plain).replies.values()
    assert "cannot continue" in saved.read_only_reason
    assert saved.reply_text() == reply.reply_text()
    assert "Hello there" in to_text(session)
