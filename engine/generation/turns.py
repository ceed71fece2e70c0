"""Dialogue by turns: who speaks next, and lines that a model says under the name of a speaker."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.script_form import Turn, encode_speaker, encode_turns, parse_line
from engine.data.speakers import find_speaker
from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.generation.generate import Done, TokenEvent, generate_from
from engine.generation.prompt import DecoderState, prefill
from engine.generation.sampling import END_OF_TEXT
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel

MAX_HISTORY_TOKENS = 128
"""Number of tokens before a turn that the repetition penalty knows, so that a scene of any length has a bounded one."""
SPEAKER_STREAM = 1
"""Second number of the seed of a speaker's noise, which keeps it independent of the noise of the words."""
MIN_TEMPERATURE = 1e-3
"""Temperature below which the likeliest speaker is chosen, as for words."""


def end_ids(model: LanguageModel) -> TokenIds:
    """Return the tokens that end a reply: a line end of a model with a cast, and else `<eos>`."""
    return model.tokenizer.line_end_ids if isinstance(model, DialogueModel) else END_OF_TEXT


@dataclass(frozen=True)
class SpeakerProb:
    """A speaker, and the probability that the speaker says the next line."""

    name: str
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


def next_speaker_probs(
    model: DialogueModel, state: DecoderState, cast: Sequence[str] | None = None
) -> list[SpeakerProb]:
    """Return the probabilities of the next speaker in a state after a line end, likeliest first.

    The probabilities sum to one over `cast`, or over the whole cast of the model if `cast` is None. A name that is not
    in the cast of the model, or no name, raises an InvalidInputError.
    """
    names = list(dict.fromkeys(model.cast if cast is None else [find_speaker(name, model.cast) for name in cast]))
    if not names:
        raise InvalidInputError("the cast is empty; name at least one speaker")
    log_probs = model.next_speaker_log_probs(state.model_state, state.log_probs)
    log_probs = log_probs[[model.cast.index(name) for name in names]]
    probs: Float64Array = np.exp(log_probs - log_probs.max())
    probs /= probs.sum()
    return sorted(map(SpeakerProb, names, probs.tolist()), key=lambda speaker: -speaker.prob)


def without_last_speaker(names: Sequence[str], last: str) -> Sequence[str]:
    """Return the speakers `names` without `last`, who has just spoken; a single speaker stays."""
    return [name for name in names if name != last] or names


def sample_speaker(probs: Sequence[SpeakerProb], cast: Sequence[str], temperature: float, seed: int) -> SpeakerProb:
    """Sample a speaker from `probs`; with a temperature of 0, return the likeliest.

    The noise of a speaker depends on the seed and the position of the speaker in `cast`, the whole cast of the model
    (Gumbel-max), so the choice among a part of the cast stays comparable.
    """
    check_seed(seed)
    if temperature < MIN_TEMPERATURE:
        return max(probs, key=lambda speaker: speaker.prob)
    noise = np.random.default_rng((seed, SPEAKER_STREAM)).gumbel(size=len(cast))
    tiny = np.finfo(np.float64).tiny
    return max(
        probs, key=lambda speaker: np.log(max(speaker.prob, tiny)) / temperature + noise[cast.index(speaker.name)]
    )


def begin_turn(model: LanguageModel, state: DecoderState, speaker: str) -> DecoderState:
    """Read the head of a line in a state after a line end; the state returned predicts the first word of the line."""
    return prefill(model, encode_speaker(model.tokenizer, speaker), state)


def end_turn(model: LanguageModel, state: DecoderState) -> DecoderState:
    """Read the end of a line; the state returned predicts the next speaker."""
    return prefill(model, model.tokenizer.encode("\n").tolist(), state)


def read_turns(model: LanguageModel, turns: Sequence[Turn], state: DecoderState | None = None) -> DecoderState:
    """Read turns from `state`, or from the start of a scene; the state returned predicts the next speaker."""
    return prefill(model, encode_turns(model.tokenizer, turns), state)


def turn_seed(seed: int, number: int) -> int:
    """Return the seed of a turn of a scene, of at most six digits, given the seed of the scene.

    Each turn has other noise: with the noise of one seed, turns would start with the same words.
    """
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) % 1_000_000


def last_speaker(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the canonical name of the speaker of the last complete line of `ids`; "" after an empty line."""
    lines = tokenizer.decode(ids).split("\n")
    turn = parse_line(lines[-2]) if len(lines) > 1 else None
    return "" if turn is None else turn.speaker


def generate_turn(
    model: LanguageModel,
    state: DecoderState,
    speaker: str,
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
    history: Sequence[int] = (),
) -> Iterator[tuple[TokenEvent, DecoderState] | Done]:
    """Generate a line of a speaker from a state after a line end, and yield the events of `generate_from`.

    `speaker` is any canonical name. `history` contains the ids of the tokens before, for the repetition penalty and for
    the noise. The end of the line is not read: `end_turn` reads it.
    """
    check_seed(seed)
    head = encode_speaker(model.tokenizer, speaker)
    yield from generate_from(
        model,
        prefill(model, head, state),
        (*history, *head),
        settings,
        seed,
        cancelled,
        end_ids=model.tokenizer.line_end_ids,
        noise_context=history,
    )


def generate_scene(
    model: DialogueModel,
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
        model: Model that chooses the speakers and writes their lines.
        cast: Names of the speakers that take part, none of them twice in a row; None for all.
        num_turns: Number of turns, after which the scene stops.
        settings: Sampler settings of the words; the temperature is also the speakers'.
        seed: Seed of the scene. The noise of a turn depends on this seed and the number of the turn.
        state: State after a line end to continue a scene from; None for a new one.
        cancelled: Called before each turn and each token; True ends the scene. A turn that was started has a `TurnEnd`
            then too, with the reason "cancelled".
        history: Ids of the tokens before, for the repetition penalty and the noise; only the last ones are used.

    Raises:
        InvalidInputError: If the seed is out of range, or a name is not in the cast of the model.
    """
    check_seed(seed)
    tokenizer = model.tokenizer
    state = state or prefill(model, [])
    recent = deque(history, maxlen=MAX_HISTORY_TOKENS)
    names = model.cast if cast is None else tuple(find_speaker(name, model.cast) for name in cast)
    last = last_speaker(tokenizer, recent)
    for number in range(num_turns):
        if cancelled():
            return
        words_seed = turn_seed(seed, number)
        candidates = next_speaker_probs(model, state, without_last_speaker(names, last))
        chosen = sample_speaker(candidates, model.cast, settings.temperature, words_seed)
        yield TurnStart(number, chosen.name, chosen.prob, words_seed, tuple(candidates), state)
        last = chosen.name
        state_in_line: DecoderState | None = None
        pieces: list[str] = []
        before = list(recent)
        recent.extend(encode_speaker(tokenizer, last))
        for event in generate_turn(model, state, last, settings, words_seed, cancelled, before):
            if isinstance(event, Done):
                state = end_turn(model, state_in_line or begin_turn(model, state, last))
                recent.extend(tokenizer.encode("\n").tolist())
                yield TurnEnd(number, Turn(last, "".join(pieces).strip()), event, state)
                if event.reason == "cancelled":
                    return
            else:
                token, state_in_line = event
                pieces.append(token.piece)
                recent.append(token.id)
                yield token
