"""Description of a session's model."""

from dataclasses import replace
from pathlib import Path

from engine.data.speakers import display_name
from engine.generation.turns import Turn, next_speaker_probs, read_turns
from engine.runs.loading import load_model
from lotr_tui.session.session_model import SessionModel
from tests.support.app import make_decoder
from tests.support.dialogues import dialogue_session_model
from tests.support.files import write_run
from tests.support.open_models import bpe_tokenizer, write_open_run


def test_a_model_of_subwords_is_described_by_bits_per_character(tmp_path: Path) -> None:
    loaded = load_model(write_open_run(tmp_path / "run", bpe_tokenizer()))
    described = SessionModel.from_loaded(replace(loaded, bits_per_character=1.684, valid_perplexity=20.5))
    assert described.description == "LSTM, 1 layer of 12 · 1.68 bits/character"


def test_a_model_of_words_is_described_by_its_perplexity(tmp_path: Path) -> None:
    loaded = load_model(write_run(tmp_path / "run"))
    described = SessionModel.from_loaded(replace(loaded, bits_per_character=1.684, valid_perplexity=20.5))
    assert "valid 20.5" in described.description
    assert "bits/character" not in described.description


def test_a_model_with_speakers_starts_with_a_conversation() -> None:
    session_model = dialogue_session_model()
    assert session_model.knows_speakers
    assert session_model.reply_modes == ("conversation", "continue")
    assert session_model.reply_mode_at_start("reply") == session_model.reply_mode_at_start("conversation")
    assert session_model.reply_mode_at_start("conversation") == "conversation"
    assert session_model.reply_mode_at_start("continue") == "continue"
    assert session_model.introduction() == "You are talking to 3 speakers of scenes"
    plain = SessionModel("plain", "", make_decoder())
    assert not plain.knows_speakers
    assert plain.reply_modes == ("continue", "reply")
    assert plain.reply_mode_at_start("conversation") == "continue"
    assert plain.reply_mode_at_start("reply") == "reply"


def test_first_line_says_whom_to_talk_to_and_who_else_is_there() -> None:
    session_model = dialogue_session_model()
    greeted = read_turns(session_model.model, [Turn("STRANGER", "Hello.")])
    likely = [speaker.name.title() for speaker in next_speaker_probs(session_model.model, greeted, ["FRODO", "GOLLUM"])]
    assert session_model.welcome_text() == f"Say hello to Gandalf. {', '.join(likely)} can answer too."
    alone = dialogue_session_model(("TREEBEARD", "SOMEONE"))
    assert alone.welcome_text() == "Say hello to Treebeard."
    names = ("FRODO", "SAM", "GANDALF", "MERRY", "PIPPIN", "KING OF THE DEAD", "GIMLI", "LEGOLAS", "SOMEONE")
    first, introduced = dialogue_session_model(names).welcome_text().split(". ")
    assert first == "Say hello to Gandalf"
    shown = introduced.removesuffix(" and others can answer too.").split(", ")
    assert len(set(shown)) == 6
    assert set(shown) < {display_name(name) for name in names if name not in ("GANDALF", "SOMEONE")}
    assert SessionModel("plain", "", make_decoder()).welcome_text().startswith('Type "')
