"""Evaluation of a dialogue by speaker: how well a model predicts the texts of each speaker, and the next speaker."""

from dataclasses import dataclass

import numpy as np

from engine.analysis.bits_per_character import EncodedText
from engine.analysis.perplexity import perplexity
from engine.data.arrays import Float64Array, chunked_bincount
from engine.data.tokenizers.base import EOS_ID, current_speakers
from engine.errors import CorpusError
from engine.models.base import LanguageModel, iter_log_probs


@dataclass(frozen=True)
class SpeakerScores:
    """Quality of a model's predictions of the utterances of one speaker, given the speaker."""

    speaker: str
    lines: int
    tokens: int
    """Number of tokens of the utterances, with the `<eos>` that ends each of them and without the speaker."""
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
    """Fraction of lines whose speaker the model considers likeliest."""


@dataclass(frozen=True)
class DialogueEvaluation:
    """Evaluation of a dialogue model on one text."""

    speakers: tuple[SpeakerScores, ...]
    """Scores of each speaker with a line in the text, most tokens first."""
    next_speaker: NextSpeakerScores


def evaluate_by_speaker(model: LanguageModel, text: EncodedText) -> DialogueEvaluation:
    """Score a script, which was encoded in dialogue mode, with a model whose vocabulary has a cast.

    Raises:
        CorpusError: If the text has no line with a speaker.
    """
    tokenizer, ids = text.tokenizer, text.ids
    first_speaker = tokenizer.num_text_tokens
    is_speaker = ids >= first_speaker
    if not is_speaker.any():
        raise CorpusError("the text has no line to score; use a script of lines such as FRODO: Where is Sam?")
    log_probs, turn_log_probs, hits = np.empty(len(ids)), [], 0
    for position, distribution in enumerate(iter_log_probs(model, ids)):
        token = int(ids[position])
        log_probs[position] = distribution[token]
        if is_speaker[position]:
            speakers = distribution[first_speaker:].astype(np.float64)
            turn_log_probs.append(speakers[token - first_speaker] - np.logaddexp.reduce(speakers))
            hits += int(speakers.argmax()) == token - first_speaker
    return DialogueEvaluation(
        speakers=_score_speakers(text, log_probs),
        next_speaker=NextSpeakerScores(
            turns=len(turn_log_probs),
            bits_per_turn=float(-np.mean(turn_log_probs) / np.log(2)),
            accuracy=hits / len(turn_log_probs),
        ),
    )


def _score_speakers(text: EncodedText, log_probs: Float64Array) -> tuple[SpeakerScores, ...]:
    """Return the scores of the utterances of each speaker, given the log-probability `[tokens]` of each token."""
    ids, tokenizer = text.ids, text.tokenizer
    # The speaker before a token says it, also the <eos> that ends the line; the end of a scene has no speaker.
    speakers = np.append(np.int32(-1), current_speakers(ids, tokenizer.num_text_tokens)[:-1])
    is_said = (speakers >= 0) & (ids < tokenizer.num_text_tokens)
    owners = speakers[is_said] - tokenizer.num_text_tokens
    lengths = np.diff(text.end_offsets, prepend=0)
    size = len(tokenizer.cast)
    lines = chunked_bincount(owners[ids[is_said] == EOS_ID], size)
    tokens = chunked_bincount(owners, size)
    nats, bits, characters = (
        np.bincount(owners, values[is_said], size) for values in (-log_probs, text.token_bits(log_probs), lengths)
    )
    return tuple(
        SpeakerScores(
            speaker=tokenizer.cast[index],
            lines=int(lines[index]),
            tokens=int(tokens[index]),
            characters=int(characters[index]),
            perplexity=perplexity(nats[index] / tokens[index]),
            bits_per_character=float(bits[index] / characters[index]),
        )
        for index in np.argsort(-tokens, kind="stable").tolist()
        if tokens[index]
    )
