"""Evaluation of a dialogue by speaker: how well a model predicts the texts of each speaker, and the next speaker."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis.perplexity import perplexity
from engine.data.arrays import Float64Array
from engine.data.scripts import SCENE_END, Turn, encode_speaker, encode_turn
from engine.errors import CorpusError
from engine.generation.prompt import DecoderState, prefill
from engine.models.base import predict_tokens
from engine.models.dialogue import DialogueModel
from engine.models.turn_taking import cast_index


@dataclass(frozen=True)
class SpeakerScores:
    """Quality of a model's predictions of the utterances of one speaker, given the speaker.

    Tokens and characters include the line ends of the texts, but not the names.
    """

    speaker: str
    lines: int
    tokens: int
    characters: int
    perplexity: float
    bits_per_character: float


@dataclass(frozen=True)
class NextSpeakerScores:
    """Quality of a model's predictions of the speaker of each line, given that there is another line."""

    turns: int
    bits_per_turn: float
    accuracy: float
    """Fraction of lines whose speaker the model considers likeliest. Speakers outside the cast count as SOMEONE."""


@dataclass(frozen=True)
class DialogueEvaluation:
    """Evaluation of a dialogue model on one text; the speakers with most tokens first."""

    speakers: tuple[SpeakerScores, ...]
    next_speaker: NextSpeakerScores


def evaluate_by_speaker(model: DialogueModel, scenes: Sequence[Sequence[Turn]]) -> DialogueEvaluation:
    """Score scenes, each of which the model reads after the ones before; none with a line raises a CorpusError."""
    if not any(scenes):
        raise CorpusError("the text has no line to score; use a script of lines such as FRODO: Where is Sam?")
    tokenizer, state = model.tokenizer, prefill(model, ())
    scene_end = tokenizer.encode(SCENE_END).tolist()
    sums: dict[str, Float64Array] = {}  # lines, tokens, characters and nats of each speaker
    turn_nats, hits = [], []
    for number, scene in enumerate(scenes):
        state = prefill(model, scene_end if number else (), state)
        for turn in scene:
            expected = model.next_speaker_log_probs(state.model_state, state.log_probs)
            index = cast_index(turn.speaker, model.cast)
            turn_nats.append(-expected[index])
            hits.append(int(expected.argmax()) == index)
            ids = encode_turn(tokenizer, turn)
            num_head = len(encode_speaker(tokenizer, turn.speaker))
            rows, model_state = predict_tokens(model, state.model_state, ids)
            state = DecoderState(rows[-1], model_state)
            log_probs = rows[np.arange(num_head - 1, len(ids) - 1), list(ids[num_head:])]
            num_characters = len(" ".join(turn.text.split())) + 1
            nats = -float(log_probs.sum(dtype=np.float64))
            sums.setdefault(turn.speaker, np.zeros(4))
            sums[turn.speaker] += [1, len(log_probs), num_characters, nats]
    scores = []
    for name, (lines, tokens, characters, nats) in ((name, each.tolist()) for name, each in sums.items()):
        bits_per_character = nats / math.log(2) / characters
        scores.append(
            SpeakerScores(name, int(lines), int(tokens), int(characters), perplexity(nats / tokens), bits_per_character)
        )
    scores.sort(key=lambda each: -each.tokens)
    bits_per_turn = float(np.mean(turn_nats)) / math.log(2)
    return DialogueEvaluation(tuple(scores), NextSpeakerScores(len(turn_nats), bits_per_turn, float(np.mean(hits))))
