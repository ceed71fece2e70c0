"""Best of several answers: the one that the context makes most likely, compared with no context.

This is maximum mutual information with a penalty on the first tokens only and a reward for length (Li et al. 2016,
1510.03055, sections 4.2 and 4.5), so that an answer can be chosen, and shown, while it is being generated.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.data.script_form import encode_speaker, utterance_mask
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.generation.generate import Done, FinishReason, TextInProgress, TokenEvent, noise_key, sample_step
from engine.generation.prompt import DecoderState, prefill
from engine.generation.settings import MAX_SEED, SamplerSettings, check_seed
from engine.generation.turns import begin_turn
from engine.models.base import LanguageModel, LogProbs, ModelState, advance_batch

NUM_ANSWERS = 8
"""Number of answers to choose from."""
MAX_ANSWERS = 64
"""Maximum number of answers, which are sampled as one batch."""
NUM_SCORED_TOKENS = 10
"""Number of tokens at the start of an answer by which it is scored."""
LENGTH_REWARD = 0.3
"""Reward for each scored token. Without it, the answers to film lines are shorter and more alike (dialogue.md)."""
LOOP_LENGTH = 4
"""Equal tokens in a row that make an answer a repetition, as do twice as many of a sequence of up to that length that
repeats. A model that began a row of dots, or said "It's gone!" twice, seldom ends it."""


@dataclass(frozen=True)
class Answer:
    """One of several answers to the same context, and how the context changes its probability."""

    text: str
    events: tuple[TokenEvent, ...] = field(repr=False)
    done: Done
    """End of the answer, with the seed that `generate_turn` says the same answer with."""
    log_prob: float
    """Natural-log probability of the scored tokens after the context, and of the line end."""
    log_prob_alone: float
    """Natural-log probability of the same tokens at the start of a text, by the same speaker."""
    is_repetition: bool
    """True if the scored tokens begin an earlier line of the scene, or contain a loop; see `LOOP_LENGTH`."""
    state: DecoderState = field(repr=False, compare=False)
    """State after the last token of the answer; `end_turn` reads the line end."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens that were scored, with the line end."""
        return min(NUM_SCORED_TOKENS, len(self.events) + (self.done.reason == "eos"))

    @property
    def gain(self) -> float:
        """Natural logarithm of how many times more likely the scored tokens are with their context than without."""
        return self.log_prob - self.log_prob_alone

    @property
    def score(self) -> float:
        """Gain and reward for length, by which answers are ordered."""
        return answer_score(self.gain, self.num_tokens)


def answer_score(gain: float, num_tokens: int) -> float:
    """Return the score of an answer whose scored tokens gain `gain` nats by their context."""
    return gain + LENGTH_REWARD * num_tokens


@dataclass(frozen=True)
class AnswerChosen:
    """Choice of the answer to show; the tokens that follow belong to it."""

    seed: int
    """Seed of the answer."""


AnswerEvent = AnswerChosen | tuple[TokenEvent, DecoderState] | list[Answer]
"""Event of `stream_answers`: the choice, then each token of the chosen answer with the state after it, then all answers
with the chosen one first."""


@dataclass(frozen=True)
class _PairState:
    """State of the same text in two contexts, and the log-probability of its scored tokens in each."""

    with_context: DecoderState
    alone: DecoderState
    """State without the context, after the scored tokens."""
    num_scored: int = 0
    log_prob: float = 0.0
    log_prob_alone: float = 0.0

    @property
    def is_scored(self) -> bool:
        """True if further tokens do not count."""
        return self.num_scored == NUM_SCORED_TOKENS


class _PairModel:
    """A model that reads a text in two contexts at once, and predicts it in the first."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.model.tokenizer

    def start(self) -> ModelState:
        start = DecoderState(*self.model.advance(self.model.start(), EOS_ID))
        return _PairState(start, start)

    def advance(self, state: _PairState, token: int) -> tuple[LogProbs, _PairState]:
        return self.advance_batch([state], [token])[0]

    def advance_batch(self, states: Sequence[_PairState], tokens: Sequence[int]) -> list[tuple[LogProbs, _PairState]]:
        unscored = [index for index, state in enumerate(states) if not state.is_scored]
        inner_states = [
            *(state.with_context.model_state for state in states),
            *(states[index].alone.model_state for index in unscored),
        ]
        inner_tokens = [*tokens, *(tokens[index] for index in unscored)]
        outputs = [DecoderState(*output) for output in advance_batch(self.model, inner_states, inner_tokens)]
        alone = [state.alone for state in states]
        for index, output in zip(unscored, outputs[len(states) :], strict=True):
            alone[index] = output
        steps = zip(states, tokens, outputs[: len(states)], alone, strict=True)
        return [(after.log_probs, _score(state, token, after, alone)) for state, token, after, alone in steps]


def _score(state: _PairState, token: int, after: DecoderState, alone: DecoderState) -> _PairState:
    """Return the pair of states after `token`, whose log-probabilities count if `state` is not fully scored."""
    if state.is_scored:
        return replace(state, with_context=after)
    return _PairState(
        after,
        alone,
        state.num_scored + 1,
        state.log_prob + float(state.with_context.log_probs[token]),
        state.log_prob_alone + float(state.alone.log_probs[token]),
    )


def _score_end(state: _PairState, end_ids: TokenIds) -> _PairState:
    """Return the pair of states with the log-probability of the end of the line, if it counts."""
    if state.is_scored:
        return state
    end, end_alone = (
        float(np.logaddexp.reduce(decoder.log_probs[end_ids], dtype=np.float64))
        for decoder in (state.with_context, state.alone)
    )
    return replace(
        state,
        num_scored=state.num_scored + 1,
        log_prob=state.log_prob + end,
        log_prob_alone=state.log_prob_alone + end_alone,
    )


@dataclass(eq=False)
class _Draft:
    """An answer that is being sampled."""

    text: TextInProgress
    seed: int
    steps: list[tuple[TokenEvent, DecoderState]] = field(default_factory=list)
    """Tokens so far, with the state after each."""
    reason: FinishReason = "length"

    def add(self, event: TokenEvent | None, end_ids: TokenIds) -> None:
        """Add a token; None ends the answer by one of `end_ids`."""
        pair: _PairState = self.text.state.model_state
        if event is None:
            self.reason = "eos"
            self.text.state = self.text.state._replace(model_state=_score_end(pair, end_ids))
        else:
            self.steps.append((event, pair.with_context))

    def finish(self, earlier_lines: Collection[tuple[int, ...]]) -> Answer:
        """Return the answer as far as it was sampled."""
        pair: _PairState = self.text.state.model_state
        ids = tuple(event.id for event, _ in self.steps[:NUM_SCORED_TOKENS])
        return Answer(
            text="".join(event.piece for event, _ in self.steps).strip(),
            events=tuple(event for event, _ in self.steps),
            done=self.text.finish(self.reason),
            log_prob=pair.log_prob,
            log_prob_alone=pair.log_prob_alone,
            is_repetition=ids in earlier_lines or _has_loop(ids),
            state=pair.with_context,
        )


def _rank(answer: Answer) -> tuple[bool, float]:
    """Return the sort key of an answer: most relevant first, and repetitions last."""
    return answer.is_repetition, -answer.score


def stream_answers(
    model: LanguageModel,
    state: DecoderState,
    speaker: str,
    settings: SamplerSettings,
    seed: int,
    num_answers: int = NUM_ANSWERS,
    cancelled: Callable[[], bool] = lambda: False,
    history: Sequence[int] = (),
) -> Iterator[AnswerEvent]:
    """Generate several answers of a speaker to the same context, and yield the most relevant one as soon as possible.

    The answers have the seeds `seed`, `seed + 1` and so on, so that `generate_turn` says each of them again, and are
    sampled as one batch. Their order is by `score`: general answers, which fit every context, come late, and
    repetitions last. A cancelled search yields the answers as far as they were sampled.

    Args:
        model: Model that reads a script.
        state: State of the context, after a line end.
        speaker: Canonical name of the speaker who answers.
        settings: Sampler settings.
        seed: Seed of the first answer.
        num_answers: Number of answers.
        cancelled: Called before each token; True ends all answers.
        history: Ids of the tokens before, for the repetition penalty, the noise, and to recognize repetitions.

    Raises:
        InvalidInputError: If the seed or the number of answers is out of range.
    """
    check_seed(seed)
    if not 1 <= num_answers <= MAX_ANSWERS:
        raise InvalidInputError(f"best of {num_answers} is out of range; use a number from 1 to {MAX_ANSWERS}")
    first, alone = begin_turn(model, state, speaker), begin_turn(model, prefill(model, []), speaker)
    start = DecoderState(first.log_probs, _PairState(first, alone))
    pair_model, ids = _PairModel(model), (*history, *encode_speaker(model.tokenizer, speaker))
    end_ids = model.tokenizer.line_end_ids
    earlier_lines = _line_starts(history, model.tokenizer)
    seeds = [(seed + index) % (MAX_SEED + 1) for index in range(num_answers)]
    rngs = [np.random.default_rng(noise_key(each, history)) for each in seeds]
    drafts = [
        _Draft(TextInProgress.start(pair_model, start, ids, settings, each, rng), each)
        for each, rng in zip(seeds, rngs, strict=True)
    ]
    chosen: _Draft | None = None
    for index in range(settings.max_tokens):
        running = [draft for draft in drafts if draft.reason == "length"]
        if not running:
            break
        if cancelled():
            for draft in running:
                draft.reason = "cancelled"
            break
        texts = [draft.text for draft in running]
        sampled = sample_step(pair_model, texts, suppress_eos=index == 0, end_ids=end_ids)
        for draft, event in zip(running, sampled, strict=True):
            draft.add(event, end_ids)
            if draft is chosen and event is not None:
                yield draft.steps[-1]
        if index + 1 == NUM_SCORED_TOKENS:
            chosen = min(drafts, key=lambda draft: _rank(draft.finish(earlier_lines)))
            yield AnswerChosen(chosen.seed)
            yield from chosen.steps
    answers = sorted((draft.finish(earlier_lines) for draft in drafts), key=_rank)
    if chosen is None:
        chosen = next(draft for draft in drafts if draft.seed == answers[0].done.seed)
        yield AnswerChosen(chosen.seed)
        yield from chosen.steps
    yield answers


def _has_loop(ids: Sequence[int]) -> bool:
    """Return True if a token, or a short sequence of tokens, repeats; see `LOOP_LENGTH`."""
    for period in range(1, LOOP_LENGTH + 1):
        num_repeated = (LOOP_LENGTH if period == 1 else 2 * LOOP_LENGTH) - period
        is_repeated = [id == later for id, later in zip(ids, ids[period:], strict=False)]
        if any(all(is_repeated[end - num_repeated : end]) for end in range(num_repeated, len(is_repeated) + 1)):
            return True
    return False


def _line_starts(history: Sequence[int], tokenizer: Tokenizer) -> set[tuple[int, ...]]:
    """Return the scored tokens of each line of a scene, without its head."""
    starts, line = set(), list[int]()
    ends = set(tokenizer.line_end_ids.tolist())
    is_said = utterance_mask(tokenizer, np.array(history, np.int32)).tolist()
    for id, said in zip(history, is_said, strict=True):
        if id in ends:
            starts.add(tuple(line[:NUM_SCORED_TOKENS]))
            line = []
        elif said:
            line.append(id)
    return starts - {()}
