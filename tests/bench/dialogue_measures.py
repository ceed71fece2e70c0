"""Measures of what a dialogue model makes of speakers and context: bits of utterances, ranks of speakers and lines.

All measures are taken on the scenes of a held-out split. The context of an utterance is its scene before it.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.script_form import Turn, encode_speaker, encode_turn
from engine.generation.prompt import DecoderState, prefill
from engine.generation.turns import begin_turn, next_speaker_probs
from engine.models.base import LanguageModel, predict_tokens
from engine.models.dialogue import DialogueModel

Scene = Sequence[Turn]
MIN_SPEAKER_PROB = 0.01
"""Probability below which a speaker who may say a line is left out of the sum over all speakers."""


class SpeakerScorer(Protocol):
    """Function that returns the log score `[cast]` of each speaker for a text, after a state that follows a line."""

    def __call__(self, context: DecoderState, text: str, *, expect_context: bool) -> Float64Array:
        """Score `text` after `context`; `expect_context` says whether to use who is likely to speak there."""


class Place(NamedTuple):
    """An utterance of a scene."""

    scene: int
    position: int


class CandidateRanks(NamedTuple):
    """Fraction of places at which the true next line is ranked first among `num_candidates` lines."""

    num_places: int
    num_candidates: int
    by_likelihood: float
    by_gain: float
    """By log P(line | context) - log P(line), maximum mutual information (Li et al. 2016)."""


def places(scenes: Sequence[Scene], first: int = 0) -> Iterator[Place]:
    """Yield all utterances with at least `first` utterances before them."""
    for index, scene in enumerate(scenes):
        for position in range(first, len(scene)):
            yield Place(index, position)


def line_log_prob(model: LanguageModel, context: DecoderState, turn: Turn) -> float:
    """Return the natural-log probability of the text of a turn and its line end, given its speaker and the state."""
    num_head = len(encode_speaker(model.tokenizer, turn.speaker))
    said = encode_turn(model.tokenizer, turn)[num_head:]
    state = begin_turn(model, context, turn.speaker)
    rows = state.log_probs[None]
    if len(said) > 1:
        rows = np.concatenate([rows, predict_tokens(model, state.model_state, said[:-1])[0]])
    return float(rows[np.arange(len(said)), list(said)].sum(dtype=np.float64))


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
            ids = encode_turn(self.model.tokenizer, self.scenes[scene][len(states) - 1])
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
    rng, rows = random.Random(seed), []
    for place in places(reader.scenes):
        turn = reader.scenes[place.scene][place.position]
        none = line_log_prob(reader.model, reader.empty, turn)
        true = others = none
        if place.position:
            true = line_log_prob(reader.model, reader.state(*place), turn)
            states = [reader.random_state(place, rng) for _ in range(num_random)]
            others = sum(line_log_prob(reader.model, state, turn) for state in states) / num_random
        rows.append((true, others, none, len(turn.text) + 1.0))
    columns = np.array(rows).T
    return dict(zip(("true", "random", "none", "characters"), [*(columns[:3] / -np.log(2)), columns[3]], strict=True))


def next_speaker_accuracy(reader: ContextReader, names: Sequence[str]) -> float:
    """Return how often the likeliest of the speakers `names` is the true next one, where that is one of them."""
    model, hits = reader.model, []
    assert isinstance(model, DialogueModel), "a model with a cast"
    for place in places(reader.scenes, first=1):
        speaker = reader.scenes[place.scene][place.position].speaker
        if speaker in names:
            hits.append(next_speaker_probs(model, reader.state(*place), names)[0].name == speaker)
    return float(np.mean(hits))


def identification_accuracy(
    reader: ContextReader, names: Sequence[str], score: SpeakerScorer, *, with_context: bool, min_words: int = 4
) -> float:
    """Return how often the highest score of the speakers `names` is the true speaker's.

    Utterances of fewer than `min_words` words, and of other speakers, are left out.
    """
    model, hits = reader.model, []
    assert isinstance(model, DialogueModel), "a model with a cast"
    indices = [model.cast.index(name) for name in names]
    for place in places(reader.scenes):
        turn = reader.scenes[place.scene][place.position]
        if turn.speaker in names and len(turn.text.split()) >= min_words:
            context = reader.state(*place) if with_context else reader.empty
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
        context = reader.state(*place)
        after, alone = (
            np.array([_turn_log_prob(reader.model, state, line, speakers_shown=speakers_shown) for line in lines])
            for state in (context, reader.empty)
        )
        hits += [after.argmax() == 0, (after - alone).argmax() == 0]
    num_places = min(len(chosen), max_places)
    return CandidateRanks(num_places, num_candidates, *(hits / num_places).tolist())


def _turn_log_prob(model: LanguageModel, context: DecoderState, line: Turn, *, speakers_shown: bool) -> float:
    assert isinstance(model, DialogueModel), "a model with a cast"
    probs = {speaker.name: speaker.prob for speaker in next_speaker_probs(model, context)}
    if speakers_shown:
        prob = probs.get(line.speaker, probs[model.cast[-1]])
        return float(np.log(prob)) + line_log_prob(model, context, line)
    names = [name for name, prob in probs.items() if prob >= MIN_SPEAKER_PROB]
    return float(
        np.logaddexp.reduce(
            [np.log(probs[name]) + line_log_prob(model, context, Turn(name, line.text)) for name in names]
        )
    )
