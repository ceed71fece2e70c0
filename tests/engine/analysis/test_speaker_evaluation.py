"""Evaluation by speaker against a computation line by line."""

import math

import numpy as np
import pytest

from engine.analysis.bits_per_character import EncodedText, convert_text, spelling_bits
from engine.analysis.speaker_evaluation import evaluate_by_speaker
from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.generation.prompt import prefill
from engine.models.dialogue import DialogueModel
from tests.support.models import random_lstm
from tests.support.open_models import bpe_tokenizer

CAST = ("FRODO", "SAM", "GOLLUM", "SOMEONE")
SCENES = (
    (("FRODO", "the road goes on"), ("SAM", "supper is here"), ("FRODO", "the lamp xyzzy"), ("BILBO", "the road")),
    (("GOLLUM", "supper"), ("SAM", "the lamp")),
)
SCRIPT = "\n".join("".join(f"{name}: {text}\n" for name, text in scene) for scene in SCENES)
WORDS = WordTokenizer(("<unk>", "<eos>", "the", "road", "goes", "on", "supper", "is", "here", "lamp"))


def model_of(tokenizer):
    return DialogueModel(random_lstm(ModelConfig(embedding_size=6, hidden_size=6), tokenizer.with_cast(CAST)))


@pytest.mark.parametrize("tokenizer", [WORDS, bpe_tokenizer()], ids=["words", "bpe"])
def test_scores_are_those_of_each_line(tokenizer):
    model = model_of(tokenizer)
    tokenizer = model.tokenizer
    state = prefill(model, [])
    nats, bits, tokens, turn_nats, hits = {}, {}, {}, [], []
    for number, scene in enumerate(SCENES):
        if number:
            state = prefill(model, [EOS_ID], state)
        for name, text in scene:
            member = name if name in CAST else "SOMEONE"
            speaker_probs = np.exp(state.log_probs[tokenizer.num_text_tokens :].astype(np.float64))
            turn_nats.append(-math.log(speaker_probs[CAST.index(member)] / speaker_probs.sum()))
            hits.append(CAST[int(speaker_probs.argmax())] == member)
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
        lines = [text for scene in SCENES for who, text in scene if (who if who in CAST else "SOMEONE") == name]
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
