"""Description of a session's model."""

from dataclasses import replace
from pathlib import Path

from engine.runs.loading import load_model
from lotr_tui.session.session_model import SessionModel
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
