"""Batched generation: several texts of one model, one token of each per step."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from engine.data.tokenizers.base import TokenIds
from engine.generation.generate import Done, TextInProgress, TokenEvent, noise_key, sample_step
from engine.generation.prompt import DecoderState
from engine.generation.sampling import END_OF_TEXT
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel

IndexedEvent = tuple[int, TokenEvent | Done]
"""Index of a text, from 0, and an event of this text."""


@dataclass(frozen=True)
class GenerationRequest:
    """A text to continue: the state after it, its token ids so far, and how to sample the next tokens."""

    state: DecoderState
    ids: tuple[int, ...]
    settings: SamplerSettings
    seed: int
    noise_context: tuple[int, ...] = ()
    """Ids of the lines before a line of a conversation, which its noise depends on (see `noise_key`)."""


def generate_batch(
    model: LanguageModel,
    requests: Sequence[GenerationRequest],
    cancelled: Callable[[], bool] = lambda: False,
    end_ids: TokenIds = END_OF_TEXT,
) -> Iterator[list[IndexedEvent]]:
    """Continue several texts together. Each step yields one event of every unfinished text, in the order of `requests`.

    Each text is the one that `generate_from` would generate as a reply, except for rounding: batched products sum in
    another order (see `advance_batch`), which changes about one token in a million. A token's `seconds` are an equal
    part of the time of its step. `cancelled` is called before each step; True ends all texts. One of `end_ids` ends a
    text.

    Raises:
        InvalidInputError: If a seed is out of range.
    """
    for request in requests:
        check_seed(request.seed)
    keys = [noise_key(request.seed, request.noise_context) for request in requests]
    rngs = {key: np.random.default_rng(key) for key in keys}
    running = {
        index: TextInProgress.start(model, request.state, request.ids, request.settings, request.seed, rngs[key])
        for index, (request, key) in enumerate(zip(requests, keys, strict=True))
    }
    num_tokens = 0
    while running:
        if cancelled():
            yield [(index, text.finish("cancelled")) for index, text in running.items()]
            return
        events: dict[int, TokenEvent | Done] = {
            index: text.finish("length") for index, text in running.items() if text.settings.max_tokens == num_tokens
        }
        running = {index: text for index, text in running.items() if index not in events}
        if running:
            sampled = sample_step(model, list(running.values()), suppress_eos=num_tokens == 0, end_ids=end_ids)
            for (index, text), event in zip(running.items(), sampled, strict=True):
                events[index] = event or text.finish("eos")
            running = {index: text for index, text in running.items() if isinstance(events[index], TokenEvent)}
        yield sorted(events.items(), key=itemgetter(0))
        num_tokens += 1


def demultiplex(steps: Iterator[list[IndexedEvent]], num_texts: int) -> list[Iterator[TokenEvent | Done]]:
    """Split the events of `generate_batch` into one iterator per text. The iterators can be consumed in any order."""
    pending: list[deque[TokenEvent | Done]] = [deque() for _ in range(num_texts)]

    def events_of(index: int) -> Iterator[TokenEvent | Done]:
        while True:
            while not pending[index]:
                for other, event in next(steps):
                    pending[other].append(event)
            event = pending[index].popleft()
            yield event
            if isinstance(event, Done):
                return

    return [events_of(index) for index in range(num_texts)]
