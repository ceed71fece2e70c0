"""Measures of what a dialogue model makes of speakers and context: bits of utterances, ranks of speakers and lines.

All measures are taken on the scenes of a held-out split. The context of an utterance is its scene before it.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.lines import Lines
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.generation.prompt import DecoderState, prefill
from engine.generation.turns import Turn, encode_turn, next_speaker_probs
from engine.models.base import LanguageModel, advance_batch

Scene = Sequence[Turn]


class SpeakerScorer(Protocol):
    """Function that returns the log score `[cast]` of each speaker for a text, after a state that follows `<eos>`."""

    def __call__(self, context: DecoderState, text: str, *, expect_context: bool) -> Float64Array:
        """Score `text` after `context`; `expect_context` says whether to use who is likely to speak there."""


@dataclass(frozen=True)
class Place:
    """An utterance of a scene."""

    scene: int
    position: int


@dataclass(frozen=True)
class CandidateRanks:
    """Fraction of places at which the true next line is ranked first among `num_candidates` lines."""

    num_places: int
    num_candidates: int
    by_likelihood: float
    by_gain: float
    """By log P(line | context) - log P(line), maximum mutual information (Li et al. 2016)."""


def read_scenes(lines: Lines, cast: Sequence[str]) -> list[list[Turn]]:
    """Return the scenes of a split. Speakers outside the cast are SOMEONE, and lines without text are left out."""
    scenes: list[list[Turn]] = []
    scene_before = -1
    for line, scene in zip(lines, lines.scene_ids.tolist(), strict=True):
        if not line.text:
            continue
        if scene != scene_before:
            scenes.append([])
            scene_before = scene
        scenes[-1].append(Turn(line.speaker if line.speaker in cast else SOMEONE, line.text))
    return scenes


def places(scenes: Sequence[Scene], first: int = 0) -> Iterator[Place]:
    """Yield all utterances with at least `first` utterances before them."""
    for index, scene in enumerate(scenes):
        for position in range(first, len(scene)):
            yield Place(index, position)


def encode_utterance(tokenizer: Tokenizer, turn: Turn) -> tuple[int, ...]:
    """Return the tokens of a turn, without its speaker if the vocabulary has no cast."""
    if tokenizer.cast:
        return encode_turn(tokenizer, turn)
    return (*tokenizer.encode(turn.text).tolist(), EOS_ID)


def utterance_bits(model: LanguageModel, context: DecoderState, turn: Turn) -> float:
    """Return the bits of the text of a turn and of its end, given its speaker and the state before it."""
    state, bits = context, 0.0
    for id in encode_utterance(model.tokenizer, turn):
        if id < model.tokenizer.num_text_tokens:
            bits -= float(state.log_probs[id]) / np.log(2)
        state = DecoderState(*model.advance(state.model_state, id))
    return bits


class ContextReader:
    """States after the beginnings of the scenes of a split, each of which is read once."""

    def __init__(self, model: LanguageModel, scenes: Sequence[Scene]) -> None:
        """Prepare to read `scenes` with `model`."""
        self.model, self.scenes = model, scenes
        self.empty = prefill(model, ())
        """State without context."""
        self._states: list[list[DecoderState]] = [[self.empty] for _ in scenes]

    def state(self, scene: int, position: int) -> DecoderState:
        """Return the state before the utterance at a position of a scene."""
        states = self._states[scene]
        while len(states) <= position:
            ids = encode_utterance(self.model.tokenizer, self.scenes[scene][len(states) - 1])
            states.append(prefill(self.model, ids, states[-1]))
        return states[position]

    def random_state(self, place: Place, rng: random.Random) -> DecoderState:
        """Return the state after equally many utterances of another scene, fewer if no other scene is so long."""
        others = [index for index in range(len(self.scenes)) if index != place.scene]
        longest = max(min(len(self.scenes[index]), place.position) for index in others)
        other = rng.choice([index for index in others if len(self.scenes[index]) >= longest])
        return self.state(other, longest)


def bits_by_context(reader: ContextReader, seed: int = 0, num_random: int = 3) -> dict[str, Float64Array]:
    """Return the bits `[utterances]` of all utterances after their true, a random and no context.

    The bits after random contexts are means over `num_random` contexts of the same length; the first utterance of a
    scene has none in all three cases. The result also has the "characters" `[utterances]`, line ends included.
    """
    rng = random.Random(seed)
    columns: dict[str, list[float]] = {"true": [], "random": [], "none": [], "characters": []}
    for place in places(reader.scenes):
        turn = reader.scenes[place.scene][place.position]
        none = utterance_bits(reader.model, reader.empty, turn)
        true = randoms = none
        if place.position:
            true = utterance_bits(reader.model, reader.state(place.scene, place.position), turn)
            states = [reader.random_state(place, rng) for _ in range(num_random)]
            randoms = sum(utterance_bits(reader.model, state, turn) for state in states) / num_random
        for name, value in (("true", true), ("random", randoms), ("none", none), ("characters", len(turn.text) + 1.0)):
            columns[name].append(value)
    return {name: np.array(values) for name, values in columns.items()}


def next_speaker_accuracy(reader: ContextReader, names: Sequence[str]) -> float:
    """Return how often the likeliest of the speakers `names` is the true next one, where that is one of them."""
    hits = []
    for place in places(reader.scenes, first=1):
        speaker = reader.scenes[place.scene][place.position].speaker
        if speaker in names:
            probs = next_speaker_probs(reader.model, reader.state(place.scene, place.position), names)
            hits.append(probs[0].name == speaker)
    return float(np.mean(hits))


def identification_accuracy(
    reader: ContextReader, names: Sequence[str], score: SpeakerScorer, *, with_context: bool, min_words: int = 4
) -> float:
    """Return how often the highest score of the speakers `names` is the true speaker's.

    Utterances of fewer than `min_words` words, and of other speakers, are left out.
    """
    cast = reader.model.tokenizer.cast
    indices = [cast.index(name) for name in names]
    hits = []
    for place in places(reader.scenes):
        turn = reader.scenes[place.scene][place.position]
        if turn.speaker in names and len(turn.text.split()) >= min_words:
            context = reader.state(place.scene, place.position) if with_context else reader.empty
            scores = score(context, turn.text, expect_context=with_context)
            hits.append(names[int(scores[indices].argmax())] == turn.speaker)
    return float(np.mean(hits))


def next_line_accuracy(
    reader: ContextReader, *, speakers_shown: bool, num_candidates: int = 10, seed: int = 0, max_places: int = 250
) -> CandidateRanks:
    """Return how often the true next line is ranked first among lines of other scenes.

    With `speakers_shown`, each line has its speaker, whose probability counts. Without, the probability of a line is
    the sum over all speakers who may say it.
    """
    rng = random.Random(seed)
    chosen = list(places(reader.scenes, first=1))
    rng.shuffle(chosen)
    hits = np.zeros(2)
    for place in chosen[:max_places]:
        others = [other for other in places(reader.scenes) if other.scene != place.scene]
        drawn = [place, *rng.sample(others, num_candidates - 1)]
        lines = [reader.scenes[each.scene][each.position] for each in drawn]
        context = reader.state(place.scene, place.position)
        after, alone = (
            np.array([_line_log_prob(reader.model, state, line, speakers_shown=speakers_shown) for line in lines])
            for state in (context, reader.empty)
        )
        hits += [after.argmax() == 0, (after - alone).argmax() == 0]
    num_places = min(len(chosen), max_places)
    return CandidateRanks(num_places, num_candidates, *(hits / num_places).tolist())


def _line_log_prob(model: LanguageModel, context: DecoderState, line: Turn, *, speakers_shown: bool) -> float:
    tokenizer = model.tokenizer
    ids = encode_turn(tokenizer, line)
    speakers = [ids[0]] if speakers_shown else list(range(tokenizer.num_text_tokens, len(tokenizer)))
    log_probs = context.log_probs[speakers].astype(np.float64)
    outputs = advance_batch(model, [context.model_state] * len(speakers), speakers)
    for id in ids[1:-1]:
        log_probs += [float(distribution[id]) for distribution, _ in outputs]
        outputs = advance_batch(model, [state for _, state in outputs], [id] * len(speakers))
    log_probs += [float(distribution[EOS_ID]) for distribution, _ in outputs]
    return float(np.logaddexp.reduce(log_probs))
