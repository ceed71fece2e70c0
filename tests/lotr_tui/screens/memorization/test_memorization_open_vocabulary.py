"""Tests of the memorization screen with models whose tokens are parts of words."""

from pathlib import Path
from typing import Any

import pytest
from textual.app import App

from engine.analysis.memorization import occurrence_span
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import Tokenizer
from engine.data.tokenizers.bpe import BPETokenizer
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.runs.loading import load_model
from lotr_tui.screens.memorization.passage_text import PassageTextView
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import find_memorized_passages, load_matching_training_data, load_training_data
from tests.support.analysis import MakeHost, open_memorization, painted, static_text, status_text
from tests.support.open_inspectors import open_session_model, use_training_text
from tests.support.open_models import bpe_tokenizer, character_tokenizer, write_open_run

TEXT = "But the wizard is older. É 😀, night with our pony,” said Frodo?\nWhere is Frodo? The lamps"
TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])


def occurrences(app: App[Any]) -> str:
    return "\n".join(static_text(app, f"#occurrences {selector}") for selector in ("#heading", "#lines"))


@TOKENIZERS
@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35), (200, 50)])
async def test_passages_are_whole_words_as_written(
    make_host: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tokenizer: Tokenizer,
    size: tuple[int, int],
) -> None:
    use_training_text(monkeypatch, tokenizer)
    app = make_host(session_model=open_session_model(tokenizer, tmp_path))
    async with app.run_test(size=size) as pilot:
        await open_memorization(pilot, open_session_model(tokenizer, tmp_path), TEXT)
        shown = " ".join(painted(app.screen.query_one(PassageTextView)).split())
        assert shown == (
            "But 1[the wizard is older.] É 😀, 2[night with our pony,” said] Frodo?¶ 3[Where is Frodo? The] lamps"
        )
        metrics = status_text(app, "#metrics")
        assert metrics.startswith("24 % not in a copied passage (4 words or more)")
        if size[0] == 200:
            assert metrics.endswith("17 words   3 passages   longest 5 words")
        assert occurrences(app) == (
            "passage 1 of 3 · 4 words · in 1 place:\n"
            "ROSA  The wizard’s staff is old; [the wizard is older.] Éowyn smiled, and Théoden wept."
        )
        await pilot.press("right")
        assert "“We walked all [night with our pony,” said] Rosa." in occurrences(app)
        await pilot.press("end")
        assert "ROSA  [Where is Frodo? The] lamp was lit" in occurrences(app)


async def test_a_text_without_copied_passages_is_reported(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_training_text(monkeypatch, bpe_tokenizer())
    session_model = open_session_model(bpe_tokenizer(), tmp_path)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        for text, message in (("Where is Tolly?", "nothing is copied: no 4 words in a row"), ("", "")):
            await open_memorization(pilot, session_model, text)
            assert message in occurrences(app)
            await pilot.press("right", "left", "home", "end", "pagedown")
        assert "the text has no words" in status_text(app, "#metrics")


@TOKENIZERS
def test_the_training_text_is_encoded_with_the_tokenizer_of_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    run = write_open_run(tmp_path / "open", tokenizer)
    session_model = SessionModel.from_loaded(load_model(run))
    monkeypatch.setattr(BPETokenizer, "train", lambda *_: pytest.fail("the tokenizer is trained again"))
    monkeypatch.setattr(CharacterTokenizer, "from_lines", lambda *_: pytest.fail("the tokenizer is built again"))
    load_training_data.cache_clear()
    data = load_matching_training_data(run, session_model.model.tokenizer)
    assert data.tokenizer == tokenizer
    line = data.splits.train[3]
    assert tokenizer.decode(data.train_lines[3]) == data.train_source_lines[3].text == line.text


def test_lines_of_the_bundled_dialogues_are_found(tmp_path: Path) -> None:
    run, tokenizer = write_open_run(tmp_path / "open", bpe_tokenizer()), bpe_tokenizer()
    data = load_matching_training_data(run, tokenizer)
    lines = [line.text for line in data.splits.train if len(line.text) > 60][:200:10]
    for line in lines:
        report = find_memorized_passages(run, tokenizer, tokenize_with_offsets(line, tokenizer, eos_per_line=True))
        assert report.novel_fraction == 0
        (passage,) = report.passages
        for occurrence in passage.occurrences:
            start, end = occurrence_span(occurrence, passage, tokenizer)
            assert occurrence.text[start:end] in line
            assert any(character.isalnum() for character in occurrence.text[start:end])
