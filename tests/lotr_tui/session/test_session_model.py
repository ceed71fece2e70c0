"""Description of a session's model."""

from copy import copy

from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import PRETRAINED_SAMPLER, ModelSettings
from tests.support.app import make_decoder
from tests.support.dialogues import dialogue_session_model


def test_a_model_with_speakers_starts_with_a_conversation():
    session_model = dialogue_session_model()
    assert session_model.cast
    assert session_model.reply_modes == ("conversation", "continue")
    assert session_model.reply_mode_at_start("reply") == session_model.reply_mode_at_start("conversation")
    assert session_model.reply_mode_at_start("conversation") == "conversation"
    assert session_model.reply_mode_at_start("continue") == "continue"
    plain = SessionModel("plain", "", make_decoder())
    assert not plain.cast
    assert plain.reply_modes == ("continue", "reply")
    assert plain.reply_mode_at_start("conversation") == "continue"
    assert plain.reply_mode_at_start("reply") == "reply"


def test_a_model_with_an_adapter_has_sampler_settings_of_its_own():
    session_model = dialogue_session_model()
    assert session_model.default_settings == ModelSettings()
    tokenizer = session_model.model.tokenizer = copy(session_model.model.tokenizer)
    tokenizer.name = "pretrained"
    assert session_model.default_settings == ModelSettings(PRETRAINED_SAMPLER)


def test_first_line_says_whom_to_talk_to_and_who_else_is_there():
    assert dialogue_session_model().welcome_text() == "Say hello to Gandalf. Frodo, Gollum can answer too."
    assert dialogue_session_model(("TREEBEARD", "SOMEONE")).welcome_text() == "Say hello to Treebeard."
    assert SessionModel("plain", "", make_decoder()).welcome_text().startswith('Type "')
