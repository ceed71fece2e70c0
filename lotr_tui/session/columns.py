"""Comparison columns: texts from one seed that are generated side by side, and how they differ."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from engine.data.tokenizers.base import EOS
from engine.generation.generate import Done, IndexedEvent, TokenEvent, generate_batch
from engine.generation.prompt import DecoderState, last_word_start, prefill, prefill_prompt
from engine.generation.sampling import TextInProgress
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation, throttle

_WORD = re.compile(r"\n|\S+")


@dataclass(frozen=True)
class GenerationColumn:
    """A model, a text for it to continue, and how to sample the next tokens. The columns of a model are alike but for
    the texts and the settings.
    """

    model: LanguageModel
    ids: tuple[int, ...]
    settings: SamplerSettings
    initial_state: DecoderState | None = None
    """State before a text by a chat template, whose last word is complete; by default, a text starts after `<eos>`."""
    lines_before: tuple[int, ...] | None = None
    """Ids of the lines before, if the text ends in the head of a line of a conversation, which the model completes."""


def generate_columns(
    columns: Sequence[GenerationColumn], seed: int, cancellation: Cancellation, pace: float = 0
) -> Iterator[IndexedEvent]:
    """Continue the text of every column of one model, one token of each in turn, until every column has its `Done`.

    All columns use the noise of one seed, so they differ by their settings alone. The model reads the common start of
    their texts once. `pace` is the maximum number of tokens per second in each column; 0 for no limit.
    """
    model, initial_state = columns[0].model, columns[0].initial_state
    if columns[0].lines_before is not None:
        initial_state = prefill(model, ())
    is_complete = initial_state is not None  # otherwise the last word may be left to its continuation
    ends = {column.ids: None if is_complete else last_word_start(model.tokenizer, column.ids) for column in columns}
    tokens = zip(*(ids[:end] for ids, end in ends.items()), strict=False)
    start = [same[0] for same in takewhile(lambda same: len(set(same)) == 1, tokens)]
    common, read = prefill(model, start, initial_state), prefill if is_complete else prefill_prompt
    states = {ids: read(model, ids[len(start) :], common) for ids in ends}
    texts = [
        TextInProgress(
            model, column.ids, column.settings, seed, states[column.ids], noise_context=column.lines_before or ()
        )
        for column in columns
    ]
    for step in throttle(generate_batch(texts, cancellation), pace, cancellation):
        yield from step


def generated_words(events: Sequence[TokenEvent | Done]) -> list[str]:
    """Return the words of a text with punctuation, and `<eos>` if the model ended it; a line feed counts as a word."""
    words = _WORD.findall("".join(event.piece for event in events if isinstance(event, TokenEvent)))
    return [*words, *(EOS for event in events if isinstance(event, Done) and event.reason == "eos")]


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
