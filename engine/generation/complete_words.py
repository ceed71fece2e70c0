"""The likeliest complete words after a text, for models whose tokens are parts of words."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from engine.data.tokenizers import EOS, EOS_ID, WORD_CHARACTER, ByteTokenizer, Tokenizer
from engine.generation import generate
from engine.generation.generate import Candidate, DecoderState, NextTokenProbs, TextInProgress
from engine.generation.settings import SamplerSettings
from engine.models.base import EXCLUDED_LOG_PROB, advance_batch

BATCH_SIZE = 16  # beginnings of words that the model reads together
MAX_STEPS = 512  # beginnings that it reads after one text
MAX_CACHE_ELEMENTS = 8_000_000  # log-probabilities that are kept, which limits the steps with a large vocabulary
MAX_WORD_TOKENS = 32  # a greedy model may repeat a letter forever
OPEN_WORD = re.compile(rf"(?:{WORD_CHARACTER.pattern}|[\udc80-\udcff])+\Z")  # with the bytes of a part of a character
FLOOR_STEP, LOWEST_FLOOR = 0.1, 1e-6  # the search lowers its minimum probability where it finds too few words


class _Spelling(NamedTuple):
    negative_bound: float  # minus the higher of the two probabilities, which no word with this beginning exceeds
    ids: tuple[int, ...]
    model_prob: float
    sampling_prob: float


@dataclass
class _Frontier:
    tokenizer: ByteTokenizer
    open_word: bytes
    floor: float
    beginnings: list[_Spelling] = field(default_factory=list)
    spellings: dict[tuple[str, bool], list[_Spelling]] = field(default_factory=dict)  # by the result of _word_text

    def words(self, min_prob: float) -> list[Candidate]:
        words = [
            Candidate(text, sum(each.model_prob for each in all), sum(each.sampling_prob for each in all), min(all).ids)
            for (text, _), all in self.spellings.items()
        ]
        return [word for word in words if word.highest_prob >= min_prob]

    def likeliest_words(self, max_words: int) -> tuple[Candidate, ...]:
        words = sorted(self.words(self.floor), key=lambda word: (-word.highest_prob, word.text))[:max_words]
        return tuple(sorted(words, key=lambda word: (-word.sampling_prob, -word.model_prob, word.text)))

    def expand(self, word: _Spelling, text: TextInProgress) -> None:
        log_probs, probs = text.state.log_probs, generate.sampling_probs([text])[0]
        min_log_prob = math.log(self.floor / word.model_prob) if word.model_prob else math.inf
        is_likely = (log_probs >= min_log_prob) | (probs * word.sampling_prob >= self.floor)
        if not _is_blank(self.tokenizer, word.ids):
            starts = self.tokenizer.word_starts
            end_prob = float(np.exp(log_probs[starts]).sum(dtype=np.float64))
            self._add(word, word.ids, end_prob, float(probs[starts].sum()))
            is_likely &= ~starts
        for id in np.flatnonzero(is_likely).tolist():
            self._add(word, (*word.ids, id), math.exp(log_probs[id]), float(probs[id]))

    def _add(self, word: _Spelling, ids: tuple[int, ...], model_prob: float, sampling_prob: float) -> None:
        model_prob, sampling_prob = model_prob * word.model_prob, sampling_prob * word.sampling_prob
        longer = _Spelling(-max(model_prob, sampling_prob), ids, model_prob, sampling_prob)
        if ids == word.ids or self.tokenizer.word_ends[ids[-1]]:
            self.spellings.setdefault(_word_text(self.tokenizer, self.open_word, ids), []).append(longer)
        elif len(ids) <= MAX_WORD_TOKENS:
            heappush(self.beginnings, longer)


class CompleteWordSearch:
    """Best-first search of the likeliest complete words after one text, which threads may share.

    A word is the tokens up to the next one that starts another word. Its probability is the product of its tokens'
    probabilities, times the probability that it ends there. Distributions are kept for a search with other settings.
    """

    def __init__(self, text: TextInProgress) -> None:
        assert isinstance(text.model.tokenizer, ByteTokenizer), "the words of a closed vocabulary are single tokens"
        self._text, self._tokenizer = text, text.model.tokenizer
        self._max_steps = min(MAX_STEPS, MAX_CACHE_ELEMENTS // len(self._tokenizer))
        self._states: dict[tuple[int, ...], DecoderState] = {(): text.state._replace(num_reread_tokens=0)}

    def search(
        self,
        settings: SamplerSettings,
        max_words: int,
        min_prob: float,
        min_words: int = 1,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        runs_model: bool = True,
    ) -> Iterator[NextTokenProbs]:
        """Yield the words found so far after each batch, then the final result, with `is_final`.

        It has the `max_words` likeliest words of at least `min_prob`, before or after sampling, and less likely ones if
        they are fewer than `min_words`. Without `runs_model`, the only result has the words that are known already.
        """
        root = _Spelling(-1.0, (), 1.0, 1.0)
        open_before = open_word(self._tokenizer, self._text.ids)
        next_tokens = generate.next_token_probs(self._after(root, settings), 0)
        result = replace(next_tokens, candidate_unit="word", is_final=False)
        floor, num_needed = min_prob, max_words
        while True:
            frontier, is_exhausted = _Frontier(self._tokenizer, open_before, floor), False
            frontier.expand(root, self._after(root, settings))
            while (heap := frontier.beginnings) and len(frontier.words(-heap[0].negative_bound)) < num_needed:
                if cancelled():
                    return
                batch = [heappop(heap) for _ in range(min(BATCH_SIZE, len(heap)))]
                unread = [word.ids for word in batch if word.ids not in self._states]
                if unread and (not runs_model or len(self._states) + len(unread) > self._max_steps):
                    is_exhausted = True
                    batch = [word for word in batch if word.ids in self._states]
                elif unread:
                    states = [self._states[ids[:-1]].model_state for ids in unread]
                    read = advance_batch(self._text.model, states, [ids[-1] for ids in unread])
                    self._states |= {ids: DecoderState(*state) for ids, state in zip(unread, read, strict=True)}
                for word in batch:
                    frontier.expand(word, self._after(word, settings))
                if runs_model:
                    yield replace(result, candidates=frontier.likeliest_words(max_words))
            if len(frontier.words(floor)) >= min_words or is_exhausted or floor < LOWEST_FLOOR:
                break
            floor, num_needed = floor * FLOOR_STEP, min_words
        yield replace(result, candidates=frontier.likeliest_words(max_words), is_final=runs_model or not is_exhausted)

    def _after(self, word: _Spelling, settings: SamplerSettings) -> TextInProgress:
        text = copy(self._text)
        text.ids, text.state, text.settings = [*text.ids, *word.ids], self._states[word.ids], settings
        text.is_first_token = text.is_first_token and not word.ids
        return text


def open_word(tokenizer: ByteTokenizer, ids: Sequence[int]) -> bytes:
    first = generate.last_word_start(tokenizer, ids)
    text = b"".join(tokenizer.token_bytes[id] for id in ids[first:]).decode(errors="surrogateescape")
    match = OPEN_WORD.search(text)
    return match[0].encode(errors="surrogateescape") if match else b""


def word_around(tokenizer: Tokenizer, ids: Sequence[int], index: int) -> str:
    """Return the word that the token at `index` of a text belongs to, without the space before it."""
    if not isinstance(tokenizer, ByteTokenizer):
        return tokenizer.tokens[ids[index]]
    end = index + 1
    while end < len(ids) and not tokenizer.word_ends[ids[end - 1]] and end - index < MAX_WORD_TOKENS:
        if tokenizer.word_starts[ids[end]] and not _is_blank(tokenizer, ids[index:end]):
            break
        end += 1
    return _word_text(tokenizer, open_word(tokenizer, ids[:index]), ids[index:end])[0]


def _is_blank(tokenizer: ByteTokenizer, ids: Sequence[int]) -> bool:
    return all(not tokenizer.token_bytes[id].strip(b" ") for id in ids)


def _word_text(tokenizer: ByteTokenizer, text_before: bytes, ids: Sequence[int]) -> tuple[str, bool]:
    if ids[-1] == EOS_ID:
        return EOS, False
    continues = bool(text_before) and not tokenizer.word_starts[ids[0]]
    word = b"".join([text_before if continues else b"", *(tokenizer.token_bytes[id] for id in ids)])
    text = word.decode(errors="replace").strip(" ")
    return (text if text.isprintable() else "".join(tokenizer.tokens[id] for id in ids).strip(" ")), continues


def end_word(text: TextInProgress) -> None:
    """End the last word of a text, so that only tokens that start another word can follow."""
    tokenizer, state = text.model.tokenizer, text.state
    if isinstance(tokenizer, ByteTokenizer) and not tokenizer.word_ends[text.ids[-1]]:
        starts = tokenizer.word_starts
        log_probs = state.log_probs - np.logaddexp.reduce(state.log_probs[starts])
        text.state = state._replace(log_probs=np.where(starts, log_probs, np.float32(EXCLUDED_LOG_PROB)))
