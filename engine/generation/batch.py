"""Several texts of one model written in step, so that one product reads the words of all."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import EOS_ID
from engine.generation.generate import Done, Reading, TokenEvent, chances, describe, draw, rate
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel, advance_all

Event = tuple[int, TokenEvent | Done]
"""The number of a text, from 0, and what came in it."""


@dataclass(frozen=True)
class Beginning:
    """A text to go on with."""

    reading: Reading
    """What the model made of it."""
    ids: tuple[int, ...]
    """Its words."""
    settings: SamplerSettings
    seed: int


def write(
    model: LanguageModel, beginnings: Sequence[Beginning], cancelled: Callable[[], bool] = lambda: False
) -> Iterator[list[Event]]:
    """Go on with each text as `engine.generation.generate.go_on` would: a row of an event each of those not ended.

    The figures of a text are those it has alone to within rounding (see `advance_all`), and so are its
    words: where two words were as good as equal in a draw, in about one of a million, the other may come.
    A word's seconds are its share of those of its row.

    Args:
        model: that all of them are of.
        beginnings: the texts; their words are the first of a reply.
        cancelled: asked before each row.

    Raises:
        UnusableInput: a seed is out of range.
    """
    seeds = [beginning.seed for beginning in beginnings]
    for seed in seeds:
        check_seed(seed)
    random = {seed: np.random.default_rng(seed) for seed in seeds}
    texts = [list(beginning.ids) for beginning in beginnings]
    readings = [beginning.reading for beginning in beginnings]
    spent = [0.0] * len(beginnings)
    going = list(range(len(beginnings)))
    index = 0
    while going:
        started = time.perf_counter()

        def done(number: int, reason: Literal["eos", "length", "cancelled"], tokens: int = index) -> Done:
            return Done(reason, beginnings[number].seed, tokens, rate(tokens, spent[number]))

        if cancelled():
            yield [(number, done(number, "cancelled")) for number in going]
            return
        events: dict[int, TokenEvent | Done] = {
            n: done(n, "length") for n in going if beginnings[n].settings.max_tokens == index
        }
        going = [number for number in going if number not in events]
        if going:
            log_probs = _rows([readings[number].log_probs for number in going])
            probs = chances(
                log_probs, [beginnings[n].settings for n in going], [texts[n] for n in going], first=index == 0
            )
            # Texts of one seed have one noise.
            noises = {seed: random[seed].standard_exponential((probs.shape[1],)) for seed in {seeds[n] for n in going}}
            tokens = draw(probs, _rows([noises[seeds[n]] for n in going]))
            described = dict(zip(going, describe(index, tokens, log_probs, probs, model.vocabulary.words), strict=True))
            events |= {n: done(n, "eos") for n, token in zip(going, tokens, strict=True) if token == EOS_ID}
            going = [number for number in going if number not in events]
            drawn = [described[number][1] for number in going]
            read = advance_all(model, [readings[number].state for number in going], drawn)
            seconds = (time.perf_counter() - started) / len(described)
            for number, token, reading in zip(going, drawn, read, strict=True):
                texts[number].append(token)
                readings[number] = Reading(*reading)
                spent[number] += seconds
                events[number] = TokenEvent(*described[number], seconds=seconds)
        yield sorted(events.items(), key=itemgetter(0))
        index += 1


def _rows(vectors: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Vectors as the rows of a matrix; `np.stack` takes its time with each of them."""
    return np.concatenate(vectors).reshape(len(vectors), -1)


def separately(rows: Iterator[list[Event]], texts: int) -> list[Iterator[TokenEvent | Done]]:
    """The events of each of so many texts, to be read one text after the other, or in any order."""
    waiting: list[deque[TokenEvent | Done]] = [deque() for _ in range(texts)]

    def of(number: int) -> Iterator[TokenEvent | Done]:
        while True:
            while not waiting[number]:
                for other, event in next(rows):
                    waiting[other].append(event)
            event = waiting[number].popleft()
            yield event
            if isinstance(event, Done):
                return

    return [of(number) for number in range(texts)]
