"""Comparison columns: texts from one seed that are generated side by side, and how they differ."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

from engine.data.vocabulary import EOS
from engine.generation.batch import GenerationRequest, IndexedEvent, generate_batch
from engine.generation.generate import Done, TokenEvent, prefill
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation, throttle


@dataclass(frozen=True)
class GenerationColumn:
    """A model, a text for it to continue, and how to sample the next tokens."""

    model: LanguageModel
    ids: tuple[int, ...]
    """Token ids of the text, in the vocabulary of the model."""
    settings: SamplerSettings


def generate_columns(
    columns: Sequence[GenerationColumn], seed: int, cancellation: Cancellation, pace: float = 0
) -> Iterator[IndexedEvent]:
    """Continue the text of every column, one token of each in turn, until every column has its `Done`.

    All columns use the noise of one seed (see `generate_from`), so columns of one model differ by their settings alone.
    Models with different vocabularies share the seed, but not the noise of a token. The columns of one model and text
    are generated as one batch. `pace` is the maximum number of tokens per second in each column; 0 for no limit.

    Raises:
        InvalidInputError: If the seed is out of range.
    """
    check_seed(seed)
    groups: dict[tuple[int, tuple[int, ...]], dict[int, GenerationColumn]] = {}
    for index, column in enumerate(columns):
        groups.setdefault((id(column.model), column.ids), {})[index] = column
    streams = [_generate_group(group, seed, cancellation) for group in groups.values()]
    for step in throttle(_merge_steps(streams), pace, cancellation):
        yield from step


def generated_tokens(events: Sequence[TokenEvent | Done]) -> list[str]:
    """Return the tokens of a text, with a final `<eos>` if the model ended the text itself."""
    tokens = [event.text for event in events if isinstance(event, TokenEvent)]
    ended = any(isinstance(event, Done) and event.reason == "eos" for event in events)
    return [*tokens, EOS] if ended else tokens


def first_difference(tokens: Sequence[str], other_tokens: Sequence[str]) -> int | None:
    """Return the position of the first token that differs; None if one text is the beginning of the other."""
    pairs = zip(tokens, other_tokens, strict=False)
    return next((position for position, (token, other) in enumerate(pairs) if token != other), None)


def fraction_differing(tokens: Sequence[str], other_tokens: Sequence[str]) -> float:
    """Return the fraction of positions with different tokens, from 0 to 1.

    Only positions that both texts have reached count, unless the shorter text ended in `<eos>`: then every further
    token of the longer text differs.
    """
    shorter, longer = sorted((tokens, other_tokens), key=len)
    num_positions = len(longer) if shorter and shorter[-1] == EOS else len(shorter)
    num_equal = sum(token == other for token, other in zip(shorter, longer, strict=False))
    return (num_positions - num_equal) / num_positions if num_positions else 0.0


def mean_surprisal(events: Sequence[TokenEvent | Done]) -> float | None:
    """Return the mean surprisal of the tokens in bits, by the model's own distribution; None without tokens."""
    log_probs = [event.logprob for event in events if isinstance(event, TokenEvent)]
    return -math.fsum(log_probs) / len(log_probs) / math.log(2) if log_probs else None


def _generate_group(
    columns: dict[int, GenerationColumn], seed: int, cancellation: Cancellation
) -> Iterator[list[IndexedEvent]]:
    """Yield the steps of the columns of one model and text, by their indices. The model reads the text once."""
    indices = list(columns)
    first = columns[indices[0]]
    state = prefill(first.model, first.ids)
    requests = [GenerationRequest(state, first.ids, column.settings, seed) for column in columns.values()]
    for step in generate_batch(first.model, requests, cancellation):
        yield [(indices[position], event) for position, event in step]


def _merge_steps(streams: Sequence[Iterator[list[IndexedEvent]]]) -> Iterator[list[IndexedEvent]]:
    """Merge the steps of all models: yield one event of every unfinished column, in the order of the columns."""
    while step := sorted(chain.from_iterable(next(stream, []) for stream in streams), key=itemgetter(0)):
        yield step
