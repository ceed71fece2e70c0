"""Dialogue by turns: who speaks next, lines that a model says as a speaker, and the best of several answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.scripts import Turn, encode_speaker, encode_turns, parse_line, utterance_mask
from engine.data.speakers import find_speaker, introduced_speakers
from engine.data.tokenizers import TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.generation.generate import DecoderState, Done, TextInProgress, TokenEvent, generate, generate_batch, prefill
from engine.generation.settings import MAX_SEED, SamplerSettings
from engine.models.base import LanguageModel, LogProbs, advance_batch, predict_one_by_one
from engine.models.dialogue import DialogueModel, DialogueState

MAX_HISTORY_TOKENS = 128  # before a turn, for the repetition penalty
SPEAKER_STREAM = 1  # keeps the noise of a speaker independent of the noise of the words
ANSWERING_TEMPERATURE = 0.3  # of the choice of who answers: someone who is called by name nearly always does
# Factors of the probability that someone answers a user: speakers of this talk, and the best known of the cast.
TALK_WEIGHT, INTRODUCED_WEIGHT = 8.0, 4.0
NUM_ANSWERS = 8
MAX_ANSWERS = 64
NUM_SCORED_TOKENS = 10  # at the start of an answer
LENGTH_REWARD = 0.3  # without it, the answers to film lines are shorter and more alike (dialogue.md)
LOOPS = ((1, 4), (2, 8), (3, 8), (4, 8))  # periods and lengths of repetitions, which a model seldom ends


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


def answerer_probs(
    model: DialogueModel, state: DecoderState, names: Sequence[str], temperature: float | None = ANSWERING_TEMPERATURE
) -> list[SpeakerProb]:
    """Return who of `names` speaks next in a talk with a user, likeliest first; it is drawn from these probabilities.

    Who was in the talk comes before the best known of the cast, and these before others. With a temperature of None
    there is no user, and only the turn model counts.
    """
    speakers = next_speaker_probs(model, state, names)
    if temperature is None:
        return speakers
    said: DialogueState = state.model_state
    weights = dict.fromkeys(introduced_speakers(model.cast), INTRODUCED_WEIGHT)
    weights |= {model.cast[index]: TALK_WEIGHT for index, _ in said.turns.last_lines}
    weighted = np.array([speaker.prob * weights.get(speaker.name, 1.0) for speaker in speakers])
    probs = (weighted / weighted.max()) ** (1 / temperature)
    probs /= probs.sum()
    answerers = [replace(speaker, prob=prob) for speaker, prob in zip(speakers, probs.tolist(), strict=True)]
    return sorted(answerers, key=lambda speaker: -speaker.prob)


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


# Best of several answers: the one that the context makes most likely, compared with no context. Maximum mutual
# information, with a reward for length (Li et al. 2016, 1510.03055, 4.2, 4.5), of the first tokens.


@dataclass(frozen=True)
class Answer:
    """One of several answers to the same context, and how the context changes its probability."""

    text: str
    events: tuple[TokenEvent, ...] = field(repr=False)
    done: Done
    log_prob: float  # of the scored tokens after the context, in nats
    log_prob_alone: float  # of the same tokens at the start of a text, by the same speaker
    num_tokens: int  # that were scored, with the line end
    is_repetition: bool  # True if the scored tokens begin an earlier line of the scene, or contain one of LOOPS

    @property
    def score(self) -> float:
        return answer_score(self.log_prob - self.log_prob_alone, self.num_tokens)


def answer_score(gain: float, num_tokens: int) -> float:
    return gain + LENGTH_REWARD * num_tokens


@dataclass(frozen=True)
class AnswerChosen:
    seed: int  # of the answer to show, whose tokens follow


class _Pair(NamedTuple):
    in_context: DecoderState
    alone: DecoderState  # after the scored tokens
    num_scored: int = 0
    log_prob: float = 0.0
    log_prob_alone: float = 0.0

    def score(self, ids: TokenIds | list[int]) -> Self:
        if self.num_scored == NUM_SCORED_TOKENS:
            return self
        log_prob, alone = (float(np.logaddexp.reduce(each.log_probs[ids], dtype=np.float64)) for each in self[:2])
        return type(self)(*self[:2], self.num_scored + 1, self.log_prob + log_prob, self.log_prob_alone + alone)


class _PairModel:
    def __init__(self, model: LanguageModel, pair: _Pair) -> None:
        self.model, self.tokenizer, self.pair = model, model.tokenizer, pair

    def start(self) -> _Pair:
        return self.pair

    def advance(self, pair: _Pair, token: int) -> tuple[LogProbs, _Pair]:
        return self.advance_batch([pair], [token])[0]

    predict_tokens = predict_one_by_one

    def advance_batch(self, pairs: Sequence[_Pair], tokens: Sequence[int]) -> list[tuple[LogProbs, _Pair]]:
        unscored = [index for index, pair in enumerate(pairs) if pair.num_scored < NUM_SCORED_TOKENS]
        before = [*(pair.in_context for pair in pairs), *(pairs[index].alone for index in unscored)]
        inputs = [*tokens, *(tokens[index] for index in unscored)]
        read = advance_batch(self.model, [state.model_state for state in before], inputs)
        after = [DecoderState(*each) for each in read]
        alone = dict(zip(unscored, after[len(pairs) :], strict=True))
        return [
            (after[i].log_probs, pair.score([tokens[i]])._replace(in_context=after[i], alone=alone.get(i, pair.alone)))
            for i, pair in enumerate(pairs)
        ]


def stream_answers(
    line: TextInProgress, num_answers: int = NUM_ANSWERS, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[AnswerChosen | TokenEvent | list[Answer]]:
    """Say a line that was begun by `begin_turn` with several seeds: its own, the next one and so on.

    The choice of the most relevant answer comes as soon as possible, then its tokens, then all answers, general ones
    late and repetitions last. `cancelled` is called before each token. Too many answers raise an InvalidInputError.
    """
    if not 1 <= num_answers <= MAX_ANSWERS:
        raise InvalidInputError(f"best of {num_answers} is out of range; use a number from 1 to {MAX_ANSWERS}")
    model, history = line.model, line.noise_context
    pair = _Pair(line.state, prefill(model, line.ids[len(history) :], prefill(model, ())))
    pair_model, start = _PairModel(model, pair), DecoderState(pair.in_context.log_probs, pair)
    seeds = [each % (MAX_SEED + 1) for each in range(line.seed, line.seed + num_answers)]
    texts = [
        TextInProgress(pair_model, line.ids, line.settings, seed, start, end_ids=line.end_ids, noise_context=history)
        for seed in seeds
    ]
    events: list[list[TokenEvent]] = [[] for _ in texts]
    ends: dict[int, Done] = {}
    earlier_lines = _line_starts(history, model.tokenizer)

    def finish(index: int) -> Answer:
        pair: _Pair = texts[index].state.model_state
        done = ends.get(index, Done("length", seeds[index], 0, 0.0))
        if done.reason == "eos":
            pair = pair.score(model.tokenizer.line_end_ids)
        ids = tuple(event.id for event in events[index][:NUM_SCORED_TOKENS])
        has_loop = any(
            ids[start + period : start + length] == ids[start : start + length - period]
            for period, length in LOOPS
            for start in range(len(ids) - length + 1)
        )
        return Answer(
            text="".join(event.piece for event in events[index]).strip(),
            events=tuple(events[index]),
            done=done,
            log_prob=pair.log_prob,
            log_prob_alone=pair.log_prob_alone,
            num_tokens=pair.num_scored,
            is_repetition=ids in earlier_lines or has_loop,
        )

    def rank(answer: Answer) -> tuple[bool, float]:
        return answer.is_repetition, -answer.score

    chosen: int | None = None
    for number, step in enumerate(generate_batch(texts, cancelled), 1):
        for index, event in step:
            if isinstance(event, Done):
                ends[index] = event
                continue
            events[index].append(replace(event, state=texts[index].state.model_state.in_context))
            if index == chosen:
                yield events[index][-1]
        if number == NUM_SCORED_TOKENS:
            chosen = min(range(num_answers), key=lambda index: rank(finish(index)))
            yield AnswerChosen(seeds[chosen])
            yield from events[chosen]
    answers = sorted(map(finish, range(num_answers)), key=rank)
    if chosen is None:
        yield AnswerChosen(answers[0].done.seed)
        yield from answers[0].events
    yield answers


def _line_starts(history: Sequence[int], tokenizer: Tokenizer) -> set[tuple[int, ...]]:
    starts, line = set(), list[int]()
    for id, said in zip(history, utterance_mask(tokenizer, np.array(history, np.int32)), strict=True):
        if id in tokenizer.line_end_ids:
            starts.add(tuple(line[:NUM_SCORED_TOKENS]))
            line = []
        elif said:
            line.append(id)
    return starts - {()}
