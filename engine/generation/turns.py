"""Dialogue by turns: who speaks next, and lines that a model says under the name of a speaker."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.data.speakers import find_speaker
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.errors import InvalidInputError
from engine.generation.generate import Done, TokenEvent, generate_from
from engine.generation.prompt import DecoderState, prefill
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel

MAX_HISTORY_TOKENS = 128
"""Number of tokens before a turn that the repetition penalty knows, so that a scene of any length has a bounded one."""
SPEAKER_STREAM = 1
"""Second number of the seed of a speaker's noise, which keeps it independent of the noise of the words."""
MIN_TEMPERATURE = 1e-3
"""Temperature below which the likeliest speaker is chosen, as for words."""


@dataclass(frozen=True)
class Turn:
    """A line and the name of its speaker."""

    speaker: str
    text: str


@dataclass(frozen=True)
class SpeakerProb:
    """A speaker, and the probability that the speaker says the next line."""

    name: str
    id: int
    """Token of the speaker."""
    prob: float
    """Probability, if the scene does not end and one of the considered speakers says the next line."""


@dataclass(frozen=True)
class TurnStart:
    """Start of a turn in a generated scene."""

    number: int
    """Position of the turn in the generated scene, from 0."""
    speaker: str
    prob: float
    """Probability of the speaker among the cast of the scene, before the temperature."""
    seed: int
    """Seed of the words of the turn: `generate_turn` says the same line with it."""
    candidates: tuple[SpeakerProb, ...] = field(repr=False, compare=False)
    """Probabilities of the cast of the scene, likeliest first."""
    state: DecoderState = field(repr=False, compare=False)
    """State before the turn, from which another speaker can take it."""


@dataclass(frozen=True)
class TurnEnd:
    """End of a turn in a generated scene."""

    number: int
    turn: Turn
    done: Done
    state: DecoderState = field(repr=False, compare=False)
    """State after the turn, in which the next speaker is predicted."""


SceneEvent = TurnStart | TokenEvent | TurnEnd


def encode_turn(tokenizer: Tokenizer, turn: Turn) -> tuple[int, ...]:
    """Return the token ids of a turn: its speaker, its text and `<eos>`. White space counts as single spaces.

    Raises:
        InvalidInputError: If the speaker is not in the cast of the tokenizer.
    """
    text = tokenizer.encode(" ".join(turn.text.split())).tolist()
    return (speaker_token(tokenizer, turn.speaker), *text, EOS_ID)


def encode_turns(tokenizer: Tokenizer, turns: Sequence[Turn]) -> tuple[int, ...]:
    """Return the token ids of several turns of one scene."""
    return tuple(id for turn in turns for id in encode_turn(tokenizer, turn))


def speaker_token(tokenizer: Tokenizer, speaker: str) -> int:
    """Return the token of a speaker; a name that is not in the cast raises an InvalidInputError."""
    return tokenizer.speaker_id(find_speaker(speaker, tokenizer.cast))


def next_speaker_probs(
    model: LanguageModel, state: DecoderState, cast: Sequence[str] | None = None
) -> list[SpeakerProb]:
    """Return the probabilities of the next speaker in a state after `<eos>`, likeliest first.

    The probabilities sum to one over `cast`, or over the whole cast of the model if `cast` is None.
    """
    tokenizer = model.tokenizer
    ids = list(dict.fromkeys(speaker_token(tokenizer, name) for name in (tokenizer.cast if cast is None else cast)))
    if not ids:
        raise InvalidInputError("the cast is empty; name at least one speaker")
    log_probs = state.log_probs[ids].astype(np.float64)
    probs = np.exp(log_probs - log_probs.max())
    probs /= probs.sum()
    names = [tokenizer.cast[id - tokenizer.num_text_tokens] for id in ids]
    speakers = map(SpeakerProb, names, ids, probs.tolist())
    return sorted(speakers, key=lambda speaker: -speaker.prob)


def without_last_speaker(names: Sequence[str], last: str) -> Sequence[str]:
    """Return the speakers `names` without `last`, who has just spoken; a single speaker stays."""
    return [name for name in names if name != last] or names


def sample_speaker(probs: Sequence[SpeakerProb], temperature: float, seed: int) -> SpeakerProb:
    """Sample a speaker from `probs`; with a temperature of 0, return the likeliest.

    The noise of a speaker depends on the seed and the token of the speaker alone (Gumbel-max), so the choice among a
    part of the cast stays comparable.
    """
    check_seed(seed)
    if temperature < MIN_TEMPERATURE:
        return max(probs, key=lambda speaker: speaker.prob)
    num_tokens = 1 + max(speaker.id for speaker in probs)
    noise = np.random.default_rng((seed, SPEAKER_STREAM)).gumbel(size=num_tokens)
    tiny = np.finfo(np.float64).tiny
    return max(probs, key=lambda speaker: np.log(max(speaker.prob, tiny)) / temperature + noise[speaker.id])


def begin_turn(model: LanguageModel, state: DecoderState, speaker: str) -> DecoderState:
    """Read the token of a speaker in a state after `<eos>`; the state returned predicts the first word of the line."""
    return prefill(model, [speaker_token(model.tokenizer, speaker)], state)


def end_turn(model: LanguageModel, state: DecoderState) -> DecoderState:
    """Read the `<eos>` that ends a line; the state returned predicts the next speaker."""
    return prefill(model, [EOS_ID], state)


def read_turns(model: LanguageModel, turns: Sequence[Turn], state: DecoderState | None = None) -> DecoderState:
    """Read turns from `state`, or from the start of a scene; the state returned predicts the next speaker."""
    return prefill(model, encode_turns(model.tokenizer, turns), state)


def turn_seed(seed: int, number: int) -> int:
    """Return the seed of a turn of a scene, of at most six digits, given the seed of the scene.

    Each turn has other noise: with the noise of one seed, turns would start with the same words.
    """
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) % 1_000_000


def generate_turn(
    model: LanguageModel,
    state: DecoderState,
    speaker: str,
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
    history: Sequence[int] = (),
) -> Iterator[tuple[TokenEvent, DecoderState] | Done]:
    """Generate a line of a speaker from a state after `<eos>`, and yield the events of `generate_from`.

    `history` contains the ids of the tokens before, for the repetition penalty and for the noise. The `<eos>` that ends
    the line is not read: `end_turn` reads it.
    """
    check_seed(seed)
    ids = (*history, speaker_token(model.tokenizer, speaker))
    yield from generate_from(model, begin_turn(model, state, speaker), ids, settings, seed, cancelled)


def generate_scene(
    model: LanguageModel,
    cast: Sequence[str] | None,
    num_turns: int,
    settings: SamplerSettings,
    seed: int,
    state: DecoderState | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    history: Sequence[int] = (),
) -> Iterator[SceneEvent]:
    """Generate `num_turns` turns: for each a `TurnStart`, its tokens, and a `TurnEnd`.

    Args:
        model: Model whose vocabulary has a cast.
        cast: Names of the speakers that take part, none of them twice in a row; None for all.
        num_turns: Number of turns, after which the scene stops.
        settings: Sampler settings of the words; the temperature is also the speakers'.
        seed: Seed of the scene. The noise of a turn depends on this seed and the number of the turn.
        state: State after `<eos>` to continue a scene from; None for a new one.
        cancelled: Called before each turn and each token; True ends the scene. A turn that was started has a `TurnEnd`
            then too, with the reason "cancelled".
        history: Ids of the tokens before, for the repetition penalty; only the last ones are used.

    Raises:
        InvalidInputError: If the seed is out of range, or a name is not in the cast of the model.
    """
    check_seed(seed)
    tokenizer = model.tokenizer
    state = state or prefill(model, [])
    recent = deque(history, maxlen=MAX_HISTORY_TOKENS)
    first = tokenizer.num_text_tokens
    names = tokenizer.cast
    if cast is not None:
        names = tuple(tokenizer.cast[speaker_token(tokenizer, name) - first] for name in cast)
    last = next((tokenizer.cast[id - first] for id in reversed(recent) if id >= first), "")
    for number in range(num_turns):
        if cancelled():
            return
        words_seed = turn_seed(seed, number)
        candidates = next_speaker_probs(model, state, without_last_speaker(names, last))
        chosen = sample_speaker(candidates, settings.temperature, words_seed)
        yield TurnStart(number, chosen.name, chosen.prob, words_seed, tuple(candidates), state)
        last = chosen.name
        recent.append(chosen.id)
        last_state = begin_turn(model, state, chosen.name)
        pieces: list[str] = []
        for event in generate_from(model, last_state, list(recent), settings, words_seed, cancelled):
            if isinstance(event, Done):
                state = end_turn(model, last_state)
                recent.append(EOS_ID)
                yield TurnEnd(number, Turn(chosen.name, "".join(pieces).strip()), event, state)
                if event.reason == "cancelled":
                    return
            else:
                token, last_state = event
                pieces.append(token.piece)
                recent.append(token.id)
                yield token
