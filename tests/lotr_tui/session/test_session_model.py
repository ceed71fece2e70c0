"""Models of a session: how they are introduced and answer at first, and the names that are offered."""

from copy import copy

from engine.models.pretrained.names import BASE_FILE, SMOLLM2, base_folder
from lotr_tui.session.model_loading import add_recent_model, known_model_names
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import MAX_RECENT_MODELS, PRETRAINED_SAMPLER, ModelSettings, Settings
from tests.support.app import make_decoder
from tests.support.dialogues import dialogue_session_model


def test_a_model_with_speakers_starts_with_a_conversation():
    assert dialogue_session_model().reply_modes == ("conversation", "continue")
    assert SessionModel("plain", "", make_decoder()).reply_modes == ("continue", "reply")


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


def test_models_used_last_and_a_fetched_one_are_offered(home):
    recent: tuple[str, ...] = ()
    for number in (*range(12), 9):
        recent = add_recent_model(f"hf:owner/m{number}", recent)
    assert recent[:3] == ("hf:owner/m9", "hf:owner/m11", "hf:owner/m10")
    assert len(recent) == MAX_RECENT_MODELS
    Settings(recent_models=recent)  # which refuses more than it keeps
    assert known_model_names(recent) == [*recent]
    base_folder(SMOLLM2).mkdir(parents=True)
    (base_folder(SMOLLM2) / BASE_FILE).touch()
    assert known_model_names(recent) == [*recent, "smollm2"]
