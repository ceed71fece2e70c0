"""Measures of dialogue models against probabilities of whole texts, line by line, and models with known answers."""

import math

import numpy as np
import pytest

from engine.analysis.bits_per_character import EncodedText, convert_text, spelling_bits
from engine.analysis.dialogue_measures import (
    ContextReader,
    bits_by_context,
    identification_accuracy,
    next_line_accuracy,
    next_speaker_accuracy,
    read_scenes,
)
from engine.analysis.speaker_evaluation import evaluate_by_speaker
from engine.config import ModelConfig
from engine.data.lines import LineStore
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.generation.prompt import prefill
from engine.generation.turns import Turn, encode_turns
from engine.models.base import score_sequence
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from tests.support.models import random_lstm
from tests.support.open_models import bpe_tokenizer
from tests.support.random_dialogues import CAST, KNESER_NEY, LSTM, TOKENIZER, TURN_MODEL, encode_scenes, random_scenes

MODEL = DialogueModel(KNESER_NEY, TURN_MODEL)
SCENES = [[Turn(CAST[line.speaker], line.text) for line in scene] for scene in random_scenes(8, seed=5)]


def text_bits(model, context, turn):
    """Return the bits of a turn after a context, from the scores of the whole text."""
    before = encode_turns(TOKENIZER, context)
    ids = np.array([*before, *encode_turns(TOKENIZER, [turn])], np.int32)
    return float(-score_sequence(model, ids)[len(before) + 1 :].sum() / np.log(2))


@pytest.mark.parametrize("model", [MODEL, DialogueModel(LSTM)], ids=["kneser-ney", "lstm"])
def test_bits_after_the_true_context_and_none_are_those_of_the_text(model):
    columns = bits_by_context(ContextReader(model, SCENES))
    turns = [(scene[:position], turn) for scene in SCENES for position, turn in enumerate(scene)]
    assert columns["true"] == pytest.approx([text_bits(model, *each) for each in turns], abs=1e-3)
    assert columns["none"] == pytest.approx([text_bits(model, (), turn) for _, turn in turns], abs=1e-3)
    assert columns["characters"].tolist() == [len(turn.text) + 1 for _, turn in turns]
    is_first = np.array([not context for context, _ in turns])
    assert np.array_equal(columns["random"][is_first], columns["none"][is_first])
    assert not np.allclose(columns["random"][~is_first], columns["true"][~is_first])


def test_speakers_who_always_alternate_are_always_predicted():
    lines = [[Turn(CAST[position % 2], "w2") for position in range(6)] for _ in range(5)]
    ids = np.array([id for scene in lines for id in (*encode_turns(TOKENIZER, scene), EOS_ID)], np.int32)
    reader = ContextReader(DialogueModel(KneserNey(ids, TOKENIZER)), lines)
    assert next_speaker_accuracy(reader, CAST[:2]) == 1.0
    assert next_speaker_accuracy(reader, CAST[1:2]) == 1.0


def test_identification_counts_only_the_chosen_speakers_and_long_lines():
    """A scorer that always prefers SAM is right for SAM's lines of two words or more."""

    def prefer_sam(context, text, *, expect_context):
        return np.eye(len(CAST))[CAST.index("SAM")]

    chosen = [
        turn for scene in SCENES for turn in scene if turn.speaker in ("SAM", "FRODO") and len(turn.text.split()) >= 2
    ]
    expected = np.mean([turn.speaker == "SAM" for turn in chosen])
    reader = ContextReader(MODEL, SCENES)
    names = ["FRODO", "SAM"]
    found = identification_accuracy(reader, names, prefer_sam, with_context=False, min_words=2)
    assert found == pytest.approx(expected)
    assert 0 < expected < 1


@pytest.mark.parametrize("speakers_shown", [True, False])
def test_a_model_of_the_held_out_scenes_finds_their_next_lines(speakers_shown):
    """After four words that occur only here, the next line is nearly certain; shuffled contexts are of no use."""
    words = TOKENIZER.tokens[2:8]
    scenes = [
        [Turn(CAST[i % 3], f"{words[i]} {words[j]}"), Turn(CAST[j % 3], f"{words[j]} {words[i]}")]
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    ids = np.array([id for scene in scenes * 4 for id in (*encode_turns(TOKENIZER, scene), EOS_ID)], np.int32)
    model = DialogueModel(KneserNey(ids, TOKENIZER, order=6))
    ranks = next_line_accuracy(ContextReader(model, scenes), speakers_shown=speakers_shown, num_candidates=5)
    assert ranks.num_places == 30
    assert ranks.by_gain > 0.8
    unrelated = DialogueModel(KneserNey(encode_scenes(random_scenes(60)), TOKENIZER, order=1))
    guesses = next_line_accuracy(ContextReader(unrelated, scenes), speakers_shown=speakers_shown, num_candidates=5)
    assert guesses.by_likelihood < 0.5


def test_scenes_are_read_from_lines():
    store = LineStore()
    starts = np.array([True, False, False, True])
    store.add(["one", "two", "three", "four"], ["SAM", "GOLLUM", "HAMA", "SAM"], starts)
    assert read_scenes(store.lines(), ("SAM", "GOLLUM", "SOMEONE")) == [
        [Turn("SAM", "one"), Turn("GOLLUM", "two"), Turn("SOMEONE", "three")],
        [Turn("SAM", "four")],
    ]


SCRIPT_CAST = ("FRODO", "SAM", "GOLLUM", "SOMEONE")
SCRIPT_SCENES = (
    (("FRODO", "the road goes on"), ("SAM", "supper is here"), ("FRODO", "the lamp xyzzy"), ("BILBO", "the road")),
    (("GOLLUM", "supper"), ("SAM", "the lamp")),
)
SCRIPT = "\n".join("".join(f"{name}: {text}\n" for name, text in scene) for scene in SCRIPT_SCENES)
WORDS = WordTokenizer(("<unk>", "<eos>", "the", "road", "goes", "on", "supper", "is", "here", "lamp"))


def model_of(tokenizer):
    return DialogueModel(random_lstm(ModelConfig(embedding_size=6, hidden_size=6), tokenizer.with_cast(SCRIPT_CAST)))


@pytest.mark.parametrize("tokenizer", [WORDS, bpe_tokenizer()], ids=["words", "bpe"])
def test_scores_are_those_of_each_line(tokenizer):
    model = model_of(tokenizer)
    tokenizer = model.tokenizer
    state = prefill(model, [])
    nats, bits, tokens, turn_nats, hits = {}, {}, {}, [], []
    for number, scene in enumerate(SCRIPT_SCENES):
        if number:
            state = prefill(model, [EOS_ID], state)
        for name, text in scene:
            member = name if name in SCRIPT_CAST else "SOMEONE"
            speaker_probs = np.exp(state.log_probs[tokenizer.num_text_tokens :].astype(np.float64))
            turn_nats.append(-math.log(speaker_probs[SCRIPT_CAST.index(member)] / speaker_probs.sum()))
            hits.append(SCRIPT_CAST[int(speaker_probs.argmax())] == member)
            state = prefill(model, [tokenizer.speaker_id(member)], state)
            unknown = [span.text for span in tokenizer.unknown_spans(text)]
            bits[member] = bits.get(member, 0.0) + float(spelling_bits(tokenizer, unknown).sum())
            for id in (*tokenizer.encode(text).tolist(), EOS_ID):
                nats[member] = nats.get(member, 0.0) - float(state.log_probs[id])
                tokens[member] = tokens.get(member, 0) + 1
                state = prefill(model, [id], state)
    evaluation = evaluate_by_speaker(model, EncodedText(convert_text(SCRIPT, "original"), tokenizer, "dialogue"))
    assert {scores.speaker: scores.tokens for scores in evaluation.speakers} == tokens
    assert [scores.tokens for scores in evaluation.speakers] == sorted(tokens.values(), reverse=True)
    for scores in evaluation.speakers:
        name = scores.speaker
        lines = [
            text for scene in SCRIPT_SCENES for who, text in scene if (who if who in SCRIPT_CAST else "SOMEONE") == name
        ]
        assert scores.lines == len(lines)
        assert scores.characters == sum(len(line) + 1 for line in lines)
        assert scores.perplexity == pytest.approx(math.exp(nats[name] / tokens[name]), rel=1e-5)
        total_bits = nats[name] / math.log(2) + bits[name]
        assert scores.bits_per_character == pytest.approx(total_bits / scores.characters, rel=1e-5)
    assert evaluation.next_speaker.turns == len(turn_nats) == 6
    assert evaluation.next_speaker.bits_per_turn == pytest.approx(np.mean(turn_nats) / math.log(2), rel=1e-5)
    assert evaluation.next_speaker.accuracy == np.mean(hits)


def test_a_text_without_lines_is_refused():
    model = model_of(WORDS)
    with pytest.raises(CorpusError, match="no line to score"):
        evaluate_by_speaker(model, EncodedText("\n", model.tokenizer, "dialogue"))
