"""Several texts from one prompt and one seed, growing in step, and where they part."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

from engine.data.vocabulary import EOS
from engine.errors import PromptError
from engine.generation.batch import Beginning, Event, write
from engine.generation.generate import Done, TokenEvent, encode_prompt, read
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation, paced


@dataclass(frozen=True)
class Column:
    """Who writes one of the texts, and how its words are drawn."""

    name: str
    model: LanguageModel
    settings: SamplerSettings


def in_step(
    columns: Sequence[Column], prompt: str, seed: int, cancellation: Cancellation, per_second: float = 0
) -> Iterator[Event]:
    """Continue `prompt` in every column, a word each in turn, until the last of them has its `Done`.

    Each model reads the prompt with its own vocabulary. All draw with the noise of one seed (see
    `engine.generation.generate.go_on`), so columns of one model differ by their settings alone. Models whose
    vocabularies differ share the seed, but no word's noise. The words of one model's columns are read
    together (see `engine.generation.batch.write`). An event's number is that of its column.

    Args:
        columns: the texts to write.
        prompt: what they all begin with.
        seed: of the noise that they share.
        cancellation: ends every column, each with a `Done`.
        per_second: words a second in each column at most; 0 does not hold back.

    Raises:
        PromptError: the prompt has no word, or a model, which is named, knows none of its words.
        UnusableInput: the seed is out of range.
    """
    check_seed(seed)
    ids = [_encode(column, prompt) for column in columns]
    of_model: dict[int, list[int]] = {}
    for number, column in enumerate(columns):
        of_model.setdefault(id(column.model), []).append(number)
    writing = [
        _write([columns[n] for n in numbers], numbers, ids[numbers[0]], seed, cancellation)
        for numbers in of_model.values()
    ]
    for row in paced(_rows(writing), per_second, cancellation):
        yield from row


def words_of(events: Sequence[TokenEvent | Done]) -> list[str]:
    """The words of a text, and `<eos>` where the model itself ended it: an end is what one may differ in too."""
    words = [event.text for event in events if isinstance(event, TokenEvent)]
    ended = any(isinstance(event, Done) and event.reason == "eos" for event in events)
    return [*words, EOS] if ended else words


def first_difference(words: Sequence[str], others: Sequence[str]) -> int | None:
    """The place, from 0, of the first word that is not the same; None where one text only goes on after the other."""
    return next((place for place, (a, b) in enumerate(zip(words, others, strict=False)) if a != b), None)


def share_differing(words: Sequence[str], others: Sequence[str]) -> float:
    """The share of places with different words, from 0 to 1.

    Only places that both texts have reached count; but a text that ended in `<eos>` stays there, and every
    further word of the other differs from it.
    """
    shorter, longer = sorted((words, others), key=len)
    places = len(longer) if shorter and shorter[-1] == EOS else len(shorter)
    same = sum(a == b for a, b in zip(shorter, longer, strict=False))
    return (places - same) / places if places else 0.0


def mean_surprise(events: Sequence[TokenEvent | Done]) -> float | None:
    """Bits a word that the model itself, before the chain, gave to the words drawn; None where there is none."""
    scores = [event.logprob for event in events if isinstance(event, TokenEvent)]
    return -math.fsum(scores) / len(scores) / math.log(2) if scores else None


def _write(
    columns: Sequence[Column], numbers: Sequence[int], ids: tuple[int, ...], seed: int, cancellation: Cancellation
) -> Iterator[list[Event]]:
    """The rows of those columns that have one model; it reads the prompt once."""
    model = columns[0].model
    reading = read(model, ids)
    beginnings = [Beginning(reading, ids, column.settings, seed) for column in columns]
    for row in write(model, beginnings, cancellation):
        yield [(numbers[place], event) for place, event in row]


def _rows(writing: Sequence[Iterator[list[Event]]]) -> Iterator[list[Event]]:
    """A row of all models: an event of each column that still goes on."""
    while row := sorted(chain.from_iterable(next(rows, []) for rows in writing), key=itemgetter(0)):
        yield row


def _encode(column: Column, prompt: str) -> tuple[int, ...]:
    try:
        return encode_prompt(prompt, column.model.vocabulary).ids
    except PromptError as error:
        raise PromptError(f"{column.name}: {error}") from error
