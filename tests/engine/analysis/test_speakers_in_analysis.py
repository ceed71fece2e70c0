"""Scores, activations and copied passages of scripts: speakers are read by the model, but are no words."""

from collections.abc import Callable

import numpy as np
import pytest

from engine.analysis.activations import find_lstm, find_top_activations, record_activations
from engine.analysis.memorization import TrainingIndex
from engine.analysis.token_scores import TokenScores, score_chunks
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.lines import Line
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.generation.turns import Turn, encode_turns
from engine.models.dialogue import DialogueModel
from tests.support.dialogues import dialogue_model
from tests.support.open_models import bpe_tokenizer

SCRIPT = "GANDALF: we walked all night\nFRODO: was the tower lit\nthe lamp"
TURNS = [Turn("GANDALF", "we walked all night"), Turn("FRODO", "was the tower lit"), Turn("SOMEONE", "the lamp")]
MODELS = pytest.mark.parametrize(
    "make_model", [dialogue_model, lambda: dialogue_model(tokenizer=bpe_tokenizer())], ids=["words", "bpe"]
)
MakeModel = Callable[[], DialogueModel]


def score(model: DialogueModel, text: str, previous: TokenScores | None = None) -> TokenScores:
    tokens = tokenize_with_offsets(text, model.tokenizer)
    scores = TokenScores(tokens, model.tokenizer, previous)
    for chunk in score_chunks(model, tokens):
        scores.add_chunk(chunk)
    return scores


@MODELS
def test_each_word_is_predicted_given_its_speaker(make_model: MakeModel) -> None:
    model = make_model()
    ids = np.array(encode_turns(model.tokenizer, TURNS)[:-1], np.int32)
    log_probs = model.score_sequence(ids)
    scores = score(model, SCRIPT)
    assert scores.is_complete
    np.testing.assert_allclose(scores.log_probs, log_probs[ids < model.tokenizer.num_text_tokens], rtol=1e-5)
    assert scores.log_probs.min() > -100  # no token is one that the form of a scene excludes
    summary = scores.summarize()
    assert summary is not None
    assert summary.evaluation.tokens == len(scores.tokens)


@MODELS
def test_another_speaker_changes_the_scores_from_there_on(make_model: MakeModel) -> None:
    model = make_model()
    first = score(model, SCRIPT)
    changed = SCRIPT.replace("FRODO", "GOLLUM")
    tokens = tokenize_with_offsets(changed, model.tokenizer)
    shared = TokenScores(tokens, model.tokenizer, first)
    assert shared.num_scored == 1 + tokens.ids.tolist().index(EOS_ID)
    fresh = score(model, changed)
    np.testing.assert_array_equal(fresh.log_probs[: shared.num_scored], first.log_probs[: shared.num_scored])
    assert fresh.log_probs[shared.num_scored] != first.log_probs[shared.num_scored]


@MODELS
def test_activations_are_those_after_the_speaker(make_model: MakeModel) -> None:
    model = make_model()
    lstm, tokens = find_lstm(model), tokenize_with_offsets(SCRIPT, model.tokenizer)
    assert lstm is not None
    ids = np.array(encode_turns(model.tokenizer, TURNS)[:-1], np.int32)
    [whole] = record_activations(lstm, ids)
    [layer] = record_activations(lstm, tokens.ids, tokens.line_speakers.tolist())
    np.testing.assert_array_equal(layer.cell, whole.cell[ids < model.tokenizer.num_text_tokens])
    [without] = record_activations(lstm, tokens.ids)
    assert not np.allclose(layer.cell[0], without.cell[0])


def test_a_search_reads_each_line_after_its_speaker() -> None:
    model = dialogue_model()
    lstm = find_lstm(model)
    assert lstm is not None
    tokenizer = model.tokenizer
    texts = ["we walked all night", "the tower", "we walked all night", "we walked all night"]
    lines: list[TokenIds] = [tokenizer.encode(text) for text in texts]
    names = ["GANDALF", "FRODO", "GOLLUM", "GANDALF"]
    speakers = [tokenizer.speaker_id(name) for name in names]
    found = find_top_activations(lstm, lines, 0, 3, "cell", 20, speakers=speakers)
    expected = {
        (index, position): value
        for index, (ids, speaker) in enumerate(zip(lines, speakers, strict=True))
        if index < 3  # the last line repeats the first one, with the same speaker
        for position, value in enumerate(record_activations(lstm, [speaker, *ids])[0].cell[1:, 3].tolist())
    }
    assert {(each.line_index, each.position) for each in found.highest} == set(expected)
    for example in found.highest:
        assert example.value == pytest.approx(expected[example.line_index, example.position], rel=1e-5)


@MODELS
def test_copied_passages_end_at_the_line_and_have_no_names(make_model: MakeModel) -> None:
    tokenizer = make_model().tokenizer
    lines = [Line("we walked all night", "GANDALF"), Line("was the tower lit", "FRODO")]
    tokens = tokenize_with_offsets("GOLLUM: we walked all night\nGANDALF: was the tower lit\n", tokenizer)
    index = TrainingIndex([tokenizer.encode(line.text) for line in lines], lines)
    if tokenizer.is_open:
        words = {word: id for id, word in enumerate(dict.fromkeys(" ".join(line.text for line in lines).split()), 2)}
        encoded = [np.array([words[word] for word in line.text.split()], np.int32) for line in lines]
        index = TrainingIndex(encoded, lines, words)
    report = index.find_copied(tokens)
    assert [(passage.num_words, passage.occurrences[0].speaker) for passage in report.passages] == [
        (4, "GANDALF"),
        (4, "FRODO"),
    ]
    assert report.num_words == 8
    assert report.num_novel_words == 0
