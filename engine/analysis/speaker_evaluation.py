"""Evaluation of a dialogue by speaker: how well a model predicts the texts of each speaker, and the next speaker."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis.perplexity import perplexity
from engine.data.script_form import SCENE_END, Turn, encode_speaker, encode_turn
from engine.errors import CorpusError
from engine.generation.prompt import DecoderState, prefill
from engine.models.base import predict_tokens
from engine.models.dialogue import DialogueModel
from engine.models.turn_taking import cast_index


@dataclass(frozen=True)
class SpeakerScores:
    """Quality of a model's predictions of the utterances of one speaker, given the speaker."""

    speaker: str
    lines: int
    tokens: int
    """Number of tokens of the utterances, with their line ends and without the names."""
    characters: int
    """Number of characters of the utterances, line ends included, names not."""
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
    """Evaluation of a dialogue model on one text."""

    speakers: tuple[SpeakerScores, ...]
    """Scores of each speaker with a line in the text, most tokens first."""
    next_speaker: NextSpeakerScores


@dataclass
class _Sums:
    """Sums over the utterances of one speaker."""

    lines: int = 0
    tokens: int = 0
    characters: int = 0
    nats: float = 0.0


def evaluate_by_speaker(model: DialogueModel, scenes: Sequence[Sequence[Turn]]) -> DialogueEvaluation:
    """Score scenes, each of which the model reads after the ones before.

    Raises:
        CorpusError: If the scenes have no line.
    """
    if not any(scenes):
        raise CorpusError("the text has no line to score; use a script of lines such as FRODO: Where is Sam?")
    tokenizer, state = model.tokenizer, prefill(model, ())
    scene_end = tokenizer.encode(SCENE_END).tolist()
    sums: dict[str, _Sums] = {}
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
            speaker = sums.setdefault(turn.speaker, _Sums())
            speaker.lines += 1
            speaker.tokens += len(log_probs)
            speaker.characters += len(" ".join(turn.text.split())) + 1
            speaker.nats -= float(log_probs.sum(dtype=np.float64))
    return DialogueEvaluation(
        speakers=tuple(
            SpeakerScores(
                speaker=name,
                lines=each.lines,
                tokens=each.tokens,
                characters=each.characters,
                perplexity=perplexity(each.nats / each.tokens),
                bits_per_character=each.nats / math.log(2) / each.characters,
            )
            for name, each in sorted(sums.items(), key=lambda item: -item[1].tokens)
        ),
        next_speaker=NextSpeakerScores(
            turns=len(turn_nats),
            bits_per_turn=float(np.mean(turn_nats)) / math.log(2),
            accuracy=float(np.mean(hits)),
        ),
    )
