"""Lines of a script with the names of their speakers: what models read, and scores and passages of words."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.activations import find_lstm, find_top_activations, record_activations
from engine.analysis.labelled_lines import encode_script, labelled_lines, read_label
from engine.analysis.memorization import TrainingIndex
from engine.analysis.token_scores import TokenScores, score_chunks
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.lines import Line
from engine.data.tokenizers.base import EOS_ID
from engine.generation.turns import Turn, encode_turns
from tests.support.app import VOCABULARY
from tests.support.dialogues import CAST, dialogue_model
from tests.support.open_models import bpe_tokenizer, character_tokenizer

TOKENIZERS = [VOCABULARY.with_cast(CAST), bpe_tokenizer().with_cast(CAST), character_tokenizer().with_cast(CAST)]
ALL_TOKENIZERS = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["words", "bpe", "characters"])
SAID = st.lists(st.sampled_from(["the", "tower", "lit!", "we", "éowyn", "it's", "ring?"]), min_size=1, max_size=6)
TURNS = st.lists(st.builds(Turn, st.sampled_from(CAST), SAID.map(" ".join)), min_size=1, max_size=6)
SCRIPTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(list("GANDLFgandlf: \n\n.'"))), max_size=80
)


def read_ids(tokens):
    """Return the ids that a model reads: the tokens, and before each line the speaker."""
    pairs = zip(tokens.line_speakers.tolist(), tokens.ids.tolist(), strict=True)
    return [id for speaker, token in pairs for id in ((speaker, token) if speaker >= 0 else (token,))]


@pytest.mark.parametrize(
    ("line", "speaker", "length"),
    [
        ("GANDALF: you shall not pass", "GANDALF", 8),
        ("gandalf: hello", "GANDALF", 8),
        ("Gandalf (V.O.): hello", "GANDALF", 15),
        ("FRODO:", "FRODO", 6),
        ("MAN ON WALL: who goes there", "SOMEONE", 12),
        ("he said: hello", "", 0),
        ("Look: a tower", "", 0),
        ("the time is 12:30", "", 0),
        ("", "", 0),
        ("A" * 10_000 + ": hello", "", 0),
        ("[bold]GANDALF[/]: hello", "GANDALF", 17),
    ],
)
def test_a_line_begins_with_a_name_of_the_cast_or_in_capitals(line, speaker, length):
    assert read_label(line, CAST) == (speaker, length)


def test_lines_have_the_places_of_their_names_and_texts():
    text = "  GANDALF:  hello there \n\nno name\r\nFRODO:"
    lines = list(labelled_lines(text, CAST))
    assert [(line.speaker, text[line.text_start : line.text_end]) for line in lines] == [
        ("GANDALF", "hello there"),
        ("", ""),
        ("", "no name"),
        ("FRODO", ""),
    ]
    assert [text[line.start : line.text_start] for line in lines] == ["GANDALF:  ", "", "", "FRODO:"]
    assert [line.is_blank for line in lines] == [False, True, False, False]
    assert [text[line.end : line.next_start] for line in lines] == ["\n", "\n", "\r\n", ""]


@given(st.sampled_from(TOKENIZERS), TURNS)
def test_a_script_is_read_as_its_turns(tokenizer, turns):
    script = "".join(f"{turn.speaker}: {turn.text}\n" for turn in turns)
    assert read_ids(tokenize_with_offsets(script, tokenizer)) == list(encode_turns(tokenizer, turns))


@ALL_TOKENIZERS
def test_a_line_without_a_name_is_said_by_someone_and_empty_lines_end_a_scene(tokenizer):
    expected = encode_turns(tokenizer, [Turn("GANDALF", "the tower"), Turn("SOMEONE", "was lit")])
    assert read_ids(tokenize_with_offsets("GANDALF: the tower\nwas lit\n", tokenizer)) == list(expected)
    first, second = (encode_turns(tokenizer, [turn]) for turn in (Turn("GANDALF", "the"), Turn("FRODO", "tower")))
    tokens = tokenize_with_offsets("\n\nGANDALF: the\n\n \nFRODO: tower\n\n", tokenizer)
    assert read_ids(tokens) == [*first, EOS_ID, *second]


@ALL_TOKENIZERS
def test_speakers_are_no_words(tokenizer):
    text = "GANDALF: the tower\nMAN ON WALL: we walked"
    tokens = tokenize_with_offsets(text, tokenizer)
    assert [tokens.word(index) for index in range(tokens.num_words)] == ["the", "tower", "\n", "we", "walked"]
    assert tokens.has_letters.tolist() == [True, True, False, True, True]
    assert [text[start:end] for start, end in tokens.label_spans] == ["GANDALF: ", "MAN ON WALL: "]
    assert tokens.skipped_texts() == []
    names = [tokenizer.cast[(tokens.speaker_of(int(i)) or 0) - tokenizer.num_text_tokens] for i in tokens.word_starts]
    assert names == ["GANDALF"] * 3 + ["SOMEONE"] * 2


@given(st.sampled_from(TOKENIZERS), SCRIPTS)
def test_any_text_has_its_tokens_in_order_and_outside_the_labels(tokenizer, text):
    script = encode_script(text, tokenizer)
    assert len(script.ids) == len(script.line_speakers) == len(script.start_offsets)
    assert np.all(script.ids < tokenizer.num_text_tokens)
    assert np.all(np.diff(script.start_offsets) >= 0)
    assert np.all((script.line_speakers == -1) | (script.line_speakers >= tokenizer.num_text_tokens))
    for start, end in script.label_spans.tolist():
        assert not np.any((script.start_offsets < end) & (script.end_offsets > start))
    if len(script.ids):
        assert script.line_speakers[0] >= 0


def test_a_tokenizer_without_a_cast_reads_names_as_words():
    tokens = tokenize_with_offsets("TOWER: we walked\n", VOCABULARY, eos_per_line=True)
    assert [tokens.word(index) for index in range(tokens.num_words)] == ["TOWER", "we", "walked", "\n"]
    assert not tokens.has_speakers
    assert tokens.speaker_of(1) is None


# --- scores, activations and copied passages of a script ---

SCRIPT = "GANDALF: we walked all night\nFRODO: was the tower lit\nthe lamp"
SCRIPT_TURNS = [Turn("GANDALF", "we walked all night"), Turn("FRODO", "was the tower lit"), Turn("SOMEONE", "the lamp")]
WORD_MODEL = dialogue_model()
MODELS = pytest.mark.parametrize("model", [WORD_MODEL, dialogue_model(tokenizer=bpe_tokenizer())], ids=["words", "bpe"])


def score(model, text, previous=None):
    tokens = tokenize_with_offsets(text, model.tokenizer)
    scores = TokenScores(tokens, model.tokenizer, previous)
    for chunk in score_chunks(model, tokens):
        scores.add_chunk(chunk)
    return scores


@MODELS
def test_each_word_is_predicted_given_its_speaker(model):
    ids = np.array(encode_turns(model.tokenizer, SCRIPT_TURNS)[:-1], np.int32)
    log_probs = model.score_sequence(ids)
    scores = score(model, SCRIPT)
    assert scores.is_complete
    np.testing.assert_allclose(scores.log_probs, log_probs[ids < model.tokenizer.num_text_tokens], rtol=1e-5)
    assert scores.log_probs.min() > -100  # no token is one that the form of a scene excludes
    assert scores.summarize().evaluation.tokens == len(scores.tokens)


@MODELS
def test_another_speaker_changes_the_scores_from_there_on(model):
    first = score(model, SCRIPT)
    changed = SCRIPT.replace("FRODO", "GOLLUM")
    tokens = tokenize_with_offsets(changed, model.tokenizer)
    shared = TokenScores(tokens, model.tokenizer, first)
    assert shared.num_scored == 1 + tokens.ids.tolist().index(EOS_ID)
    fresh = score(model, changed)
    np.testing.assert_array_equal(fresh.log_probs[: shared.num_scored], first.log_probs[: shared.num_scored])
    assert fresh.log_probs[shared.num_scored] != first.log_probs[shared.num_scored]


@MODELS
def test_activations_are_those_after_the_speaker(model):
    lstm, tokens = find_lstm(model), tokenize_with_offsets(SCRIPT, model.tokenizer)
    ids = np.array(encode_turns(model.tokenizer, SCRIPT_TURNS)[:-1], np.int32)
    [whole] = record_activations(lstm, ids)
    [layer] = record_activations(lstm, tokens.ids, tokens.line_speakers.tolist())
    np.testing.assert_array_equal(layer.cell, whole.cell[ids < model.tokenizer.num_text_tokens])
    [without] = record_activations(lstm, tokens.ids)
    assert not np.allclose(layer.cell[0], without.cell[0])


def test_a_search_reads_each_line_after_its_speaker():
    lstm, tokenizer = find_lstm(WORD_MODEL), WORD_MODEL.tokenizer
    lines = [tokenizer.encode(text) for text in ("we walked all night", "the tower", *["we walked all night"] * 2)]
    speakers = [tokenizer.speaker_id(name) for name in ("GANDALF", "FRODO", "GOLLUM", "GANDALF")]
    found = find_top_activations(lstm, lines, 0, 3, "cell", 20, speakers=speakers)
    expected = {
        (index, position): value
        for index in range(3)  # the last line repeats the first one, with the same speaker
        for position, value in enumerate(record_activations(lstm, [speakers[index], *lines[index]])[0].cell[1:, 3])
    }
    assert {(each.line_index, each.position): each.value for each in found.highest} == pytest.approx(expected, rel=1e-5)


@MODELS
def test_copied_passages_end_at_the_line_and_have_no_names(model):
    tokenizer = model.tokenizer
    lines = [Line("we walked all night", "GANDALF"), Line("was the tower lit", "FRODO")]
    tokens = tokenize_with_offsets("GOLLUM: we walked all night\nGANDALF: was the tower lit\n", tokenizer)
    index = TrainingIndex.from_dataset(
        SimpleNamespace(
            tokenizer=tokenizer, train_source_lines=lines, train_lines=[tokenizer.encode(line.text) for line in lines]
        )
    )
    report = index.find_copied(tokens)
    assert [(passage.num_words, passage.occurrences[0].speaker) for passage in report.passages] == [
        (4, "GANDALF"),
        (4, "FRODO"),
    ]
    assert (report.num_words, report.num_novel_words) == (8, 0)
