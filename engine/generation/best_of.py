"""Best of several answers: the one that the context makes most likely, compared with no context."""
# Maximum mutual information, with a reward for length (Li et al. 2016, 1510.03055, 4.2, 4.5), of the first tokens.

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np

from engine.data.scripts import utterance_mask
from engine.data.tokenizers import TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.generation.generate import DecoderState, Done, TextInProgress, TokenEvent, generate_batch, prefill
from engine.generation.settings import MAX_SEED
from engine.models.base import LanguageModel, LogProbs, advance_batch, predict_one_by_one

NUM_ANSWERS = 8
MAX_ANSWERS = 64
NUM_SCORED_TOKENS = 10  # at the start of an answer
LENGTH_REWARD = 0.3  # without it, the answers to film lines are shorter and more alike (dialogue.md)
LOOPS = ((1, 4), (2, 8), (3, 8), (4, 8))  # periods and lengths of repetitions, which a model seldom ends


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
        read = [*tokens, *(tokens[index] for index in unscored)]
        after = [DecoderState(*it) for it in advance_batch(self.model, [state.model_state for state in before], read)]
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
