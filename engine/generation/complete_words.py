"""The likeliest complete words after a text, for models whose tokens are parts of words."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.data.tokenizers.base import EOS, EOS_ID, TokenIds, Tokenizer
from engine.data.tokenizers.bytes import ByteTokenizer, is_word_character
from engine.generation.preview import Candidate, NextTokenProbs, next_token_probs
from engine.generation.prompt import DecoderState, last_word_start
from engine.generation.sampling import END_OF_TEXT, Probs, sampling_probs, stack_rows
from engine.generation.settings import SamplerSettings
from engine.models.base import EXCLUDED_LOG_PROB, LanguageModel, LogProbs, advance_batch

BATCH_SIZE = 16
"""Partial words that the model reads together."""
MAX_STEPS = 512
"""Maximum number of partial words that the model reads after one text."""
MAX_CACHE_ELEMENTS = 8_000_000
"""Maximum number of log-probabilities that are kept, which limits the steps of a model with a large vocabulary."""
MAX_WORD_TOKENS = 32
"""Maximum number of tokens of a word; a greedy model may repeat a letter forever."""
FLOOR_STEP, LOWEST_FLOOR = 0.1, 1e-6
"""Factor by which the search lowers the minimum probability where it finds too few words, and the lowest minimum."""


class _PartialWord(NamedTuple):
    """Beginning of a word; of several, the search continues the smallest, which is the likeliest."""

    negative_bound: float
    """Minus the higher of the two probabilities, which no word with this beginning exceeds."""
    ids: tuple[int, ...]
    model_prob: float
    sampling_prob: float


@dataclass
class _CompleteWord:
    """A word, with its probabilities summed over the token sequences that spell it."""

    model_prob: float = 0.0
    sampling_prob: float = 0.0
    ids: tuple[int, ...] = ()
    """The likeliest of the token sequences."""
    highest_bound: float = -1.0
    """Higher probability of that sequence."""

    @property
    def bound(self) -> float:
        return max(self.model_prob, self.sampling_prob)


@dataclass
class _Frontier:
    """Words found so far, and the beginnings of words that are likelier than `floor`."""

    floor: float
    partial_words: list[_PartialWord] = field(default_factory=list)
    """Heap with the likeliest beginning first."""
    complete_words: dict[tuple[str, bool], _CompleteWord] = field(default_factory=dict)
    """Words by their text; True is added where they continue the last word of the text before them."""

    def count_certain(self) -> int:
        """Return the number of words that are at least as likely as all words that may still be found."""
        highest = -self.partial_words[0].negative_bound
        return sum(word.bound >= highest for word in self.complete_words.values())

    def count_likely(self) -> int:
        """Return the number of words that are likelier than the floor."""
        return sum(word.bound >= self.floor for word in self.complete_words.values())


class CompleteWordSearch:
    """Best-first search of the likeliest complete words after one text.

    A word is a sequence of tokens up to the next token that starts another word. A punctuation mark is complete at
    once. The probability of a word is the product of the probabilities of its tokens, times the probability that it
    ends there. Its probability after sampling is the same product after the sampler chain, which applies at each token.

    The distributions that the model has computed are kept, so that a search with other settings is fast. Threads may
    share a search.
    """

    def __init__(
        self,
        model: LanguageModel,
        state: DecoderState,
        ids: Sequence[int],
        *,
        is_first_token: bool = False,
        end_ids: TokenIds = END_OF_TEXT,
    ) -> None:
        """Prepare the search after the text `ids`, whose state is `state`.

        The first token of a reply is none of `end_ids`, which end it.
        """
        assert isinstance(model.tokenizer, ByteTokenizer), "the words of a closed vocabulary are single tokens"
        self._model = model
        self._tokenizer: ByteTokenizer = model.tokenizer
        self._root = state
        self._history = list(ids[: len(ids) - state.num_reread_tokens])
        self._is_first_token, self._end_ids = is_first_token, end_ids
        self._open_word = open_word(self._tokenizer, self._history)
        self._max_steps = min(MAX_STEPS, MAX_CACHE_ELEMENTS // len(self._tokenizer))
        self._states: dict[tuple[int, ...], DecoderState] = {(): state}
        """States after the beginnings of words that the model has read."""

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

        The result has the `max_words` likeliest words with a probability of at least `min_prob`; the higher probability
        of a word counts, before or after sampling. If there are fewer than `min_words`, less likely words follow. After
        the maximum number of steps, the result may lack words.

        Args:
            settings: Sampler settings.
            max_words: Maximum number of words.
            min_prob: Minimum probability of a word.
            min_words: Number of words from which less likely ones are left out.
            cancelled: Called before each batch; True ends the search without a final result.
            runs_model: False to use only what earlier searches have computed. If that is not enough, the only result
                has no `is_final`.
        """
        token_probs = next_token_probs(
            self._root.log_probs,
            settings,
            self._history,
            self._tokenizer,
            0,
            is_first_token=self._is_first_token,
            end_ids=self._end_ids,
        )
        frontier, num_needed = _Frontier(min_prob), max_words
        while True:
            self._start(frontier, settings)
            is_exhausted = False
            while frontier.partial_words and frontier.count_certain() < num_needed:
                if cancelled():
                    return
                batch = [heappop(frontier.partial_words) for _ in range(min(BATCH_SIZE, len(frontier.partial_words)))]
                unread = [word.ids for word in batch if word.ids not in self._states]
                if unread and (not runs_model or len(self._states) + len(unread) > self._max_steps):
                    is_exhausted = True
                    batch = [word for word in batch if word.ids in self._states]
                elif unread:
                    self._read(unread)
                self._expand(frontier, batch, settings)
                if runs_model:
                    yield self._result(frontier, token_probs, max_words)
            if frontier.count_likely() >= min_words or is_exhausted or frontier.floor < LOWEST_FLOOR:
                break
            frontier, num_needed = _Frontier(frontier.floor * FLOOR_STEP), min_words
        yield replace(self._result(frontier, token_probs, max_words), is_final=runs_model or not is_exhausted)

    def _start(self, frontier: _Frontier, settings: SamplerSettings) -> None:
        """Add the first tokens of the words."""
        log_probs = self._root.log_probs
        probs = sampling_probs(
            log_probs[None],
            [settings],
            [self._history],
            suppress_eos=self._is_first_token,
            unk_id=None,
            end_ids=self._end_ids,
        )
        self._continue_word(frontier, _PartialWord(-1.0, (), 1.0, 1.0), log_probs, probs[0])

    def _read(self, unread: Sequence[tuple[int, ...]]) -> None:
        """Let the model read the last token of each beginning."""
        states = [self._states[ids[:-1]].model_state for ids in unread]
        for ids, state in zip(unread, advance_batch(self._model, states, [ids[-1] for ids in unread]), strict=True):
            self._states[ids] = DecoderState(*state)

    def _expand(self, frontier: _Frontier, batch: Sequence[_PartialWord], settings: SamplerSettings) -> None:
        """Complete each beginning where a word can end, and continue it by one token."""
        if not batch:
            return
        log_probs = stack_rows([self._states[word.ids].log_probs for word in batch])
        histories = [[*self._history, *word.ids] for word in batch]
        probs = sampling_probs(
            log_probs, [settings] * len(batch), histories, suppress_eos=False, unk_id=None, end_ids=self._end_ids
        )
        starts = self._tokenizer.word_starts
        end_probs = np.exp(log_probs[:, starts]).sum(axis=1, dtype=np.float64).tolist()
        sampling_end_probs = probs[:, starts].sum(axis=1).tolist()
        for row, word in enumerate(batch):
            if not _is_blank(self._tokenizer, word.ids):
                model_prob, sampling_prob = (
                    word.model_prob * end_probs[row],
                    word.sampling_prob * sampling_end_probs[row],
                )
                self._complete_word(frontier, word.ids, model_prob, sampling_prob)
            self._continue_word(frontier, word, log_probs[row], probs[row])

    def _continue_word(self, frontier: _Frontier, word: _PartialWord, log_probs: LogProbs, probs: Probs) -> None:
        """Add the likely continuations of a beginning, by one token."""
        min_log_prob = math.log(frontier.floor / word.model_prob) if word.model_prob else math.inf
        is_likely = (log_probs >= min_log_prob) | (probs * word.sampling_prob >= frontier.floor)
        if not _is_blank(self._tokenizer, word.ids):
            is_likely &= ~self._tokenizer.word_starts
        for id in np.flatnonzero(is_likely).tolist():
            ids = (*word.ids, id)
            model_prob = word.model_prob * math.exp(log_probs[id])
            sampling_prob = word.sampling_prob * float(probs[id])
            if self._tokenizer.word_ends[id]:
                self._complete_word(frontier, ids, model_prob, sampling_prob)
            elif len(ids) <= MAX_WORD_TOKENS:
                bound = max(model_prob, sampling_prob)
                heappush(frontier.partial_words, _PartialWord(-bound, ids, model_prob, sampling_prob))

    def _complete_word(
        self, frontier: _Frontier, ids: tuple[int, ...], model_prob: float, sampling_prob: float
    ) -> None:
        text, continues = _word_text(self._tokenizer, self._open_word, ids)
        word = frontier.complete_words.setdefault((text, continues), _CompleteWord())
        word.model_prob += model_prob
        word.sampling_prob += sampling_prob
        if (bound := max(model_prob, sampling_prob)) > word.highest_bound:
            word.ids, word.highest_bound = ids, bound

    def _result(self, frontier: _Frontier, token_probs: NextTokenProbs, max_words: int) -> NextTokenProbs:
        """Return the likeliest words above the floor, in the order of their probability after sampling."""
        words = [
            Candidate(text, word.model_prob, word.sampling_prob, word.ids)
            for (text, _), word in frontier.complete_words.items()
            if word.bound >= frontier.floor
        ]
        words.sort(key=lambda word: (-max(word.model_prob, word.sampling_prob), word.text))
        words = sorted(words[:max_words], key=lambda word: (-word.sampling_prob, -word.model_prob, word.text))
        return replace(token_probs, candidates=tuple(words), candidate_unit="word", is_final=False)


def open_word(tokenizer: ByteTokenizer, ids: Sequence[int]) -> bytes:
    """Return the bytes of the word at the end of a text, which the next token may continue; empty if there is none."""
    first = last_word_start(tokenizer, ids)
    text = b"".join(tokenizer.token_bytes[id] for id in ids[first:]).decode(errors="surrogateescape")
    start = len(text)
    while start and (is_word_character(text[start - 1]) or "\udc80" <= text[start - 1] <= "\udcff"):
        start -= 1
    return text[start:].encode(errors="surrogateescape")


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
    """Return True if a word has only spaces so far, so that any token continues it."""
    return all(not tokenizer.token_bytes[id].strip(b" ") for id in ids)


def _word_text(tokenizer: ByteTokenizer, text_before: bytes, ids: Sequence[int]) -> tuple[str, bool]:
    """Return the text of a word without the space before it, and True if its beginning is `text_before`."""
    if ids[-1] == EOS_ID:
        return EOS, False
    continues = bool(text_before) and not tokenizer.word_starts[ids[0]]
    word = b"".join([text_before if continues else b"", *(tokenizer.token_bytes[id] for id in ids)])
    text = word.decode(errors="replace").strip(" ")
    if not text.isprintable():
        text = "".join(tokenizer.tokens[id] for id in ids).strip(" ")
    return text, continues


def end_word(tokenizer: Tokenizer, word: Sequence[int], state: DecoderState) -> DecoderState:
    """Return the state after a complete word, from which only tokens that start another word can follow."""
    if not isinstance(tokenizer, ByteTokenizer) or tokenizer.word_ends[word[-1]]:
        return state
    starts: npt.NDArray[np.bool_] = tokenizer.word_starts
    total = np.logaddexp.reduce(state.log_probs[starts])
    log_probs = np.where(starts, state.log_probs - total, np.float32(EXCLUDED_LOG_PROB))
    return state._replace(log_probs=log_probs)
