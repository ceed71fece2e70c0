"""Dialogue by turns: who speaks next, and lines that a model says under the name of a speaker."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.scripts import Turn, encode_speaker, encode_turns, parse_line
from engine.data.speakers import find_speaker
from engine.errors import InvalidInputError
from engine.generation.generate import DecoderState, Done, TextInProgress, TokenEvent, generate, prefill
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel

MAX_HISTORY_TOKENS = 128  # before a turn, for the repetition penalty
SPEAKER_STREAM = 1  # keeps the noise of a speaker independent of the noise of the words


@dataclass(frozen=True)
class SpeakerProb:
    """A speaker, and the probability that, of the considered speakers, this one says the next line."""

    name: str
    prob: float


@dataclass(frozen=True)
class TurnStart:
    speaker: str
    prob: float  # of the speaker, before the temperature
    seed: int  # of the words of the turn: `begin_turn` begins the same line with it
    candidates: tuple[SpeakerProb, ...] = field(repr=False, compare=False)  # cast of the scene, likeliest first


def next_speaker_probs(
    model: DialogueModel, state: DecoderState, cast: Sequence[str] | None = None
) -> list[SpeakerProb]:
    """Return who of `cast` (None: of all) may speak after a line end, likeliest first; other names are refused."""
    names = list(dict.fromkeys(model.cast if cast is None else [find_speaker(name, model.cast) for name in cast]))
    if not names:
        raise InvalidInputError("the cast is empty; name at least one speaker")
    log_probs = model.next_speaker_log_probs(state.model_state, state.log_probs)
    log_probs = log_probs[[model.cast.index(name) for name in names]]
    probs: Float64Array = np.exp(log_probs - log_probs.max())
    probs /= probs.sum()
    return sorted(map(SpeakerProb, names, probs.tolist()), key=lambda speaker: -speaker.prob)


def without_last_speaker(names: Sequence[str], last: str) -> Sequence[str]:
    return [name for name in names if name != last] or names


def scene_candidates(names: Sequence[str], spoken: Sequence[str], num_left: int) -> Sequence[str]:
    """Return who of the named cast of a scene may speak next, so that all of them do.

    No speaker has two turns in a row. Who has not spoken for `2 * (len(names) - 1)` turns is next, and so is who has
    not spoken at all when only as many turns are left. `spoken` are all speakers so far; `num_left` includes this turn.
    """
    max_silence = 2 * (len(names) - 1)
    must = [name for name in names if name not in spoken]
    if len(must) < num_left:
        recent = spoken[-max_silence:]
        must = [name for name in names if name not in recent] if len(recent) == max_silence else []
    return must or without_last_speaker(names, spoken[-1] if spoken else "")


def sample_speaker(probs: Sequence[SpeakerProb], cast: Sequence[str], temperature: float, seed: int) -> SpeakerProb:
    """Sample a speaker from `probs` with the noise of the whole `cast`, so that choices among a part are comparable."""
    if temperature < 1e-3:  # as for words
        return max(probs, key=lambda speaker: speaker.prob)
    noise = np.random.default_rng((seed, SPEAKER_STREAM)).gumbel(size=len(cast))
    tiny = np.finfo(np.float64).tiny
    return max(probs, key=lambda each: np.log(max(each.prob, tiny)) / temperature + noise[cast.index(each.name)])


def read_turns(model: LanguageModel, turns: Sequence[Turn], state: DecoderState | None = None) -> DecoderState:
    """Read turns from `state`, or from the start of a scene; the state returned predicts the next speaker."""
    return prefill(model, encode_turns(model.tokenizer, turns), state)


def begin_turn(
    model: LanguageModel,
    state: DecoderState,
    speaker: str,
    settings: SamplerSettings,
    seed: int,
    history: Sequence[int] = (),
) -> TextInProgress:
    """Read the head of a line after a line end, and return the line, whose words come next; `speaker` is any name."""
    head, end_ids = encode_speaker(model.tokenizer, speaker), frozenset(model.tokenizer.line_end_ids.tolist())
    state = prefill(model, head, state)
    return TextInProgress(model, (*history, *head), settings, seed, state, end_ids=end_ids, noise_context=history)


def turn_seed(seed: int, number: int) -> int:
    """Return the seed of a turn of a scene, of at most six digits: with one seed, turns would start alike."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) % 1_000_000


def generate_scene(
    model: DialogueModel,
    cast: Sequence[str] | None,
    num_turns: int,
    settings: SamplerSettings,
    seed: int,
    state: DecoderState | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    history: Sequence[int] = (),
) -> Iterator[TurnStart | TokenEvent | Done]:
    """Generate `num_turns` turns: for each a `TurnStart`, its tokens, and a `Done`.

    The speakers are of `cast` (None: of all, none of them twice in a row), see `scene_candidates`. It continues from
    `state` after a line end, whose tokens are `history`, or begins. `cancelled` is called before each turn and each
    token; True ends the scene. A name outside the model's cast raises an InvalidInputError.
    """
    state = state or prefill(model, [])
    history = history[-MAX_HISTORY_TOKENS:]
    names = model.cast if cast is None else tuple(find_speaker(name, model.cast) for name in cast)
    lines = model.tokenizer.decode(history).split("\n")
    said = parse_line(lines[-2]) if len(lines) > 1 else None
    spoken = [said.speaker] if said else []
    for number in range(num_turns):
        if cancelled():
            return
        words_seed = turn_seed(seed, number)
        if cast is None:
            may_speak = without_last_speaker(names, spoken[-1] if spoken else "")
        else:
            may_speak = scene_candidates(names, spoken, num_turns - number)
        candidates = next_speaker_probs(model, state, may_speak)
        chosen = sample_speaker(candidates, model.cast, settings.temperature, words_seed)
        yield TurnStart(chosen.name, chosen.prob, words_seed, tuple(candidates))
        spoken.append(chosen.name)
        text = begin_turn(model, state, chosen.name, settings, words_seed, history)
        for event in generate(text, cancelled):
            yield event
            if isinstance(event, Done) and event.reason == "cancelled":
                return
        line_end = model.tokenizer.encode("\n").tolist()
        state, history = prefill(model, line_end, text.state), [*text.ids, *line_end][-MAX_HISTORY_TOKENS:]
