"""Comparison columns: texts from one prompt and one seed that are generated side by side, and how they differ."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

from engine.data.vocabulary import EOS
from engine.errors import PromptError
from engine.generation.batch import GenerationRequest, IndexedEvent, generate_batch
from engine.generation.generate import Done, TokenEvent, encode_prompt, prefill
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation, throttle


@dataclass(frozen=True)
class GenerationColumn:
    """A model and its sampler settings; one text is generated with them."""

    name: str
    model: LanguageModel
    settings: SamplerSettings


def generate_columns(
    columns: Sequence[GenerationColumn], prompt: str, seed: int, cancellation: Cancellation, pace: float = 0
) -> Iterator[IndexedEvent]:
    """Continue `prompt` in every column, one token of each in turn, until every column has its `Done`.

    Every model encodes the prompt with its own vocabulary. All columns use the noise of one seed (see `generate_from`),
    so columns of one model differ by their settings alone. Models with different vocabularies share the seed, but not
    the noise of a token. The columns of one model are generated as one batch. `pace` is the maximum number of tokens
    per second in each column; 0 for no limit.

    Raises:
        PromptError: If the prompt has no word, or a model knows none of its words. The message names the column.
        InvalidInputError: If the seed is out of range.
    """
    check_seed(seed)
    ids = [_encode_for_column(column, prompt) for column in columns]
    columns_of_model: dict[int, dict[int, GenerationColumn]] = {}
    for index, column in enumerate(columns):
        columns_of_model.setdefault(id(column.model), {})[index] = column
    streams = [_generate_for_model(group, ids[min(group)], seed, cancellation) for group in columns_of_model.values()]
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


def _generate_for_model(
    columns: dict[int, GenerationColumn], ids: tuple[int, ...], seed: int, cancellation: Cancellation
) -> Iterator[list[IndexedEvent]]:
    """Yield the steps of the columns of one model, by their indices. The model reads the prompt once."""
    indices = list(columns)
    model = columns[indices[0]].model
    state = prefill(model, ids)
    requests = [GenerationRequest(state, ids, column.settings, seed) for column in columns.values()]
    for step in generate_batch(model, requests, cancellation):
        yield [(indices[position], event) for position, event in step]


def _merge_steps(streams: Sequence[Iterator[list[IndexedEvent]]]) -> Iterator[list[IndexedEvent]]:
    """Merge the steps of all models: yield one event of every unfinished column, in the order of the columns."""
    while step := sorted(chain.from_iterable(next(stream, []) for stream in streams), key=itemgetter(0)):
        yield step


def _encode_for_column(column: GenerationColumn, prompt: str) -> tuple[int, ...]:
    try:
        return encode_prompt(prompt, column.model.vocabulary).ids
    except PromptError as error:
        raise PromptError(f"{column.name}: {error}") from error
