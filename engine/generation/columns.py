"""Comparison columns: texts from one seed that are generated side by side, and how they differ."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from operator import itemgetter

from engine.data.tokenizers.base import EOS
from engine.generation.batch import GenerationRequest, IndexedEvent, generate_batch
from engine.generation.generate import Done, TokenEvent
from engine.generation.prompt import DecoderState, last_word_start, prefill, prefill_prompt
from engine.generation.settings import SamplerSettings, check_seed
from engine.generation.turns import end_ids
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation, throttle

_WORD = re.compile(r"\n|\S+")


@dataclass(frozen=True)
class GenerationColumn:
    """A model, a text for it to continue, and how to sample the next tokens."""

    model: LanguageModel
    ids: tuple[int, ...]
    """Token ids of the text, in the vocabulary of the model."""
    settings: SamplerSettings
    initial_state: DecoderState | None = None
    """State before a text by a chat template, whose last word is complete; None for a text that starts after `<eos>`.

    All columns of one model have the same.
    """
    lines_before: tuple[int, ...] | None = None
    """Ids of the lines before, if the text ends in the head of a line of a conversation, which the model completes.

    Either all columns of one model have them, or none.
    """


def generate_columns(
    columns: Sequence[GenerationColumn], seed: int, cancellation: Cancellation, pace: float = 0
) -> Iterator[IndexedEvent]:
    """Continue the text of every column, one token of each in turn, until every column has its `Done`.

    All columns use the noise of one seed (see `generate_from`), so columns of one model differ by their settings alone.
    Models with different vocabularies share the seed, but not the noise of a token. The columns of one model are
    generated as one batch. `pace` is the maximum number of tokens per second in each column; 0 for no limit.

    Raises:
        InvalidInputError: If the seed is out of range.
    """
    check_seed(seed)
    groups: dict[int, dict[int, GenerationColumn]] = {}
    for index, column in enumerate(columns):
        groups.setdefault(id(column.model), {})[index] = column
    streams = [_generate_group(group, seed, cancellation) for group in groups.values()]
    for step in throttle(_merge_steps(streams), pace, cancellation):
        yield from step


def generated_words(events: Sequence[TokenEvent | Done]) -> list[str]:
    """Return the words of a text with punctuation, and `<eos>` if the model ended it; a line feed counts as a word."""
    words = _WORD.findall("".join([event.piece for event in events if isinstance(event, TokenEvent)]))
    ended = any(isinstance(event, Done) and event.reason == "eos" for event in events)
    return [*words, EOS] if ended else words


def first_difference(words: Sequence[str], other_words: Sequence[str]) -> int | None:
    """Return the position of the first word that differs; None if one text is the beginning of the other."""
    pairs = zip(words, other_words, strict=False)
    return next((position for position, (word, other) in enumerate(pairs) if word != other), None)


def fraction_differing(words: Sequence[str], other_words: Sequence[str]) -> float:
    """Return the fraction of positions with different words, from 0 to 1.

    Only positions that both texts have reached count, unless the shorter text ended in `<eos>`: then every further
    word of the longer text differs.
    """
    shorter, longer = sorted((words, other_words), key=len)
    num_positions = len(longer) if shorter and shorter[-1] == EOS else len(shorter)
    num_equal = sum(word == other for word, other in zip(shorter, longer, strict=False))
    return (num_positions - num_equal) / num_positions if num_positions else 0.0


def mean_surprisal(events: Sequence[TokenEvent | Done]) -> float | None:
    """Return the mean surprisal per word of a text in bits, by the model's own distribution; None without words.

    The surprisal of a word is the sum over its tokens, so models with different tokenizers are comparable.
    """
    num_words = sum(word not in ("\n", EOS) for word in generated_words(events))
    log_probs = [event.logprob for event in events if isinstance(event, TokenEvent)]
    return -math.fsum(log_probs) / num_words / math.log(2) if num_words else None


def _generate_group(
    columns: dict[int, GenerationColumn], seed: int, cancellation: Cancellation
) -> Iterator[list[IndexedEvent]]:
    """Yield the steps of the columns of one model, by their indices. The model reads a common text once."""
    indices = list(columns)
    first = columns[indices[0]]
    model, is_turn = first.model, first.lines_before is not None
    texts = {column.ids for column in columns.values()}
    states = _read_texts(model, texts, prefill(model, ()) if is_turn else first.initial_state)
    requests = [
        GenerationRequest(states[column.ids], column.ids, column.settings, seed, column.lines_before or ())
        for column in columns.values()
    ]
    for step in generate_batch(model, requests, cancellation, end_ids(model)):
        yield [(indices[position], event) for position, event in step]


def _read_texts(
    model: LanguageModel, texts: set[tuple[int, ...]], initial_state: DecoderState | None
) -> dict[tuple[int, ...], DecoderState]:
    """Return the state after each text, given the token ids of the texts; the model reads their common start once.

    After an `initial_state`, the last word of a text is complete; else it may be left to its continuation.
    """
    is_complete = initial_state is not None
    columns = zip(
        *(ids if is_complete else ids[: last_word_start(model.tokenizer, ids)] for ids in texts), strict=False
    )
    start = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, columns)]
    common = prefill(model, start, initial_state)
    read = prefill if is_complete else prefill_prompt
    return {ids: read(model, ids[len(start) :], common) for ids in texts}


def _merge_steps(streams: Sequence[Iterator[list[IndexedEvent]]]) -> Iterator[list[IndexedEvent]]:
    """Merge the steps of all models: yield one event of every unfinished column, in the order of the columns."""
    while step := sorted(chain.from_iterable(next(stream, []) for stream in streams), key=itemgetter(0)):
        yield step
