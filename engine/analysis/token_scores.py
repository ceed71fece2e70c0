"""Scores of a text token by token: the spans of the tokens in the text, and how well a model predicts them."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from engine.analysis.perplexity import Evaluation, perplexity, summarize_log_probs
from engine.data.arrays import Float32Array, Float64Array, Int32Array
from engine.data.vocabulary import EOS_ID, UNK_ID, TokenIds, Vocabulary, skipped_spans
from engine.generation.generate import NUM_TOP_TOKENS
from engine.models.base import LanguageModel

FIRST_CHUNK_SIZE, MAX_CHUNK_SIZE = 16, 256
"""Tokens per chunk; chunks start small, so that the first scores appear at once."""

LINE_END = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Line ends as in `str.splitlines`."""

# The lookbehind and the possessive quantifiers avoid quadratic time on long runs of punctuation.
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?:\s++|$)|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+""")


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of a text, with their spans in the text and the sentences they form."""

    text: str
    start_offsets: Int32Array
    """Index `[tokens]` of the first character of each token."""
    end_offsets: Int32Array
    """Index `[tokens]` after the last character of each token."""
    ids: TokenIds
    """Token ids `[tokens]`. If line ends are tokens, an `<eos>` spans each line end after a line with a word."""
    sentence_starts: Int32Array
    """First token `[sentences]` of each sentence. Sentences end at . ! ? … and at line ends."""
    skipped_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))
    """Start and end `[runs, 2]` of each run of characters that the tokenizer cannot read."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> str:
        """Return a token as written in the text."""
        return self.text[self.start_offsets[index] : self.end_offsets[index]]

    @cached_property
    def unknown_mask(self) -> npt.NDArray[np.bool_]:
        """`[tokens]`: True for tokens that the model reads as `<unk>`."""
        unknown: npt.NDArray[np.bool_] = self.ids == UNK_ID
        return unknown

    def skipped_texts(self) -> list[str]:
        """Return the distinct runs of characters that the tokenizer cannot read, in the order of the text."""
        return list(dict.fromkeys(self.text[start:end] for start, end in self.skipped_spans.tolist()))

    def sentence_index(self, index: int) -> int:
        """Return the index of the sentence that contains a token."""
        return int(np.searchsorted(self.sentence_starts, index, side="right")) - 1

    def sentence_span(self, index: int) -> tuple[int, int]:
        """Return the first token of a sentence and the token after its last."""
        is_last = index + 1 == len(self.sentence_starts)
        return int(self.sentence_starts[index]), len(self) if is_last else int(self.sentence_starts[index + 1])


def tokenize_with_offsets(text: str, vocabulary: Vocabulary, *, eos_per_line: bool = False) -> TokenizedText:
    """Split `text` into tokens and sentences.

    With `eos_per_line`, each line that has a word ends in `<eos>`, as in the training of line mode; a last line without
    a line end gets no `<eos>`.
    """
    token_to_id = vocabulary.token_to_id
    spans = [(start, end, token_to_id.get(token, UNK_ID)) for start, end, token in vocabulary.token_spans(text)]
    starts, ends, ids = np.array(spans, np.int32).reshape(-1, 3).T
    if eos_per_line and len(ids):
        line_ends = np.array([match.span() for match in LINE_END.finditer(text)], np.int32).reshape(-1, 2)
        num_tokens_before = np.searchsorted(starts, line_ends[:, 0])
        line_ends = line_ends[np.diff(num_tokens_before, prepend=0) > 0]
        starts = np.concatenate([starts, line_ends[:, 0]])
        ends = np.concatenate([ends, line_ends[:, 1]])
        ids = np.concatenate([ids, np.full(len(line_ends), EOS_ID, np.int32)])
        order = np.argsort(starts, kind="stable")
        starts, ends, ids = starts[order], ends[order], ids[order]
    sentence_ends = np.array([match.end() for match in _SENTENCE_END.finditer(text)], np.int32)
    # A token belongs to the sentence of its last character; an <eos> belongs to the line it ends.
    sentence_of_token = np.searchsorted(sentence_ends, ends - 1, side="right")
    sentence_starts = np.flatnonzero(np.diff(sentence_of_token, prepend=-1))
    skipped = np.array([span[:2] for span in skipped_spans(text, vocabulary.tokenizer)], np.int32).reshape(-1, 2)
    start_offsets, end_offsets, token_ids, first_tokens = (
        np.ascontiguousarray(array, np.int32) for array in (starts, ends, ids, sentence_starts)
    )
    return TokenizedText(text, start_offsets, end_offsets, token_ids, first_tokens, skipped)


@dataclass(frozen=True)
class ScoredChunk:
    """Scores of consecutive tokens."""

    start: int
    log_probs: Float64Array
    """Natural-log probabilities `[tokens]`."""
    ranks: Int32Array
    """Rank `[tokens]` of each token in its distribution, 1 for the most likely token."""
    top_ids: TokenIds
    """The most likely tokens `[tokens, alternatives]` at each position, in descending order of probability."""
    top_log_probs: Float32Array
    """Natural-log probabilities `[tokens, alternatives]` of `top_ids`."""

    def __len__(self) -> int:
        return len(self.log_probs)


def score_chunks(
    model: LanguageModel, ids: TokenIds, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[ScoredChunk]:
    """Read `ids` `[time]` after `<eos>` in one pass and yield their scores chunk by chunk.

    The alternatives are collected in the same pass, which costs less than keeping the states to find them later.
    """
    log_probs, state = model.advance(model.start(), EOS_ID)
    num_top = min(NUM_TOP_TOKENS, len(model.vocabulary))
    start, size = 0, FIRST_CHUNK_SIZE
    while start < len(ids) and not cancelled():
        chunk = ids[start : start + size]
        rows = np.empty((len(chunk), len(log_probs)), np.float32)
        for row, token in zip(rows, chunk, strict=True):
            row[:] = log_probs
            log_probs, state = model.advance(state, int(token))
            if cancelled():
                return
        token_log_probs = rows[np.arange(len(chunk)), chunk]
        ranks = 1 + np.count_nonzero(rows > token_log_probs[:, None], axis=1)
        top_ids = np.argpartition(rows, -num_top, axis=1)[:, -num_top:]
        top_log_probs = np.take_along_axis(rows, top_ids, axis=1)
        order = np.argsort(-top_log_probs, axis=1, kind="stable")
        yield ScoredChunk(
            start=start,
            log_probs=token_log_probs.astype(np.float64),
            ranks=ranks.astype(np.int32),
            top_ids=np.take_along_axis(top_ids, order, axis=1).astype(np.int32),
            top_log_probs=np.take_along_axis(top_log_probs, order, axis=1),
        )
        start, size = start + len(chunk), min(2 * size, MAX_CHUNK_SIZE)


@dataclass(frozen=True)
class TokenScore:
    """Score of one token."""

    bits: float
    """Negative base-2 logarithm of the probability."""
    model_prob: float
    rank: int
    """Rank of the token in the distribution, 1 for the most likely token."""
    top_tokens: tuple[tuple[str, float], ...]
    """The most likely tokens with their probabilities, in descending order."""


class TokenScores:
    """Scores of a text, collected from chunks while a model reads the text."""

    def __init__(self, tokens: TokenizedText, vocabulary: Vocabulary, previous: Self | None = None) -> None:
        """Create the scores of `tokens`, none of them known yet.

        `previous` are scores of an earlier version of the text by the same model; the scores of the tokens that both
        texts start with are copied.
        """
        num_top = min(NUM_TOP_TOKENS, len(vocabulary))
        self.tokens = tokens
        self.vocabulary = vocabulary
        self.num_scored = 0
        self.log_probs = np.full(len(tokens), np.nan)
        """Natural-log probabilities `[tokens]`; NaN for tokens that are not scored yet."""
        self._ranks = np.zeros(len(tokens), np.int32)
        self._top_ids = np.zeros((len(tokens), num_top), np.int32)
        self._top_log_probs = np.zeros((len(tokens), num_top), np.float32)
        if previous is not None:
            comparable = min(previous.num_scored, len(tokens))
            different = np.flatnonzero(previous.tokens.ids[:comparable] != tokens.ids[:comparable])
            num_shared = int(different[0]) if len(different) else comparable
            self.log_probs[:num_shared] = previous.log_probs[:num_shared]
            self._ranks[:num_shared] = previous._ranks[:num_shared]
            self._top_ids[:num_shared] = previous._top_ids[:num_shared]
            self._top_log_probs[:num_shared] = previous._top_log_probs[:num_shared]
            self.num_scored = num_shared

    @property
    def is_complete(self) -> bool:
        """True if all tokens are scored."""
        return self.num_scored == len(self.tokens)

    @property
    def bits(self) -> Float64Array:
        """Negative base-2 logarithm `[tokens]` of the probabilities; NaN for tokens that are not scored yet."""
        return -self.log_probs / math.log(2)

    def add_chunk(self, chunk: ScoredChunk) -> None:
        """Add the scores of the next tokens."""
        span = slice(chunk.start, chunk.start + len(chunk))
        self.log_probs[span] = chunk.log_probs
        self._ranks[span] = chunk.ranks
        self._top_ids[span] = chunk.top_ids
        self._top_log_probs[span] = chunk.top_log_probs
        self.num_scored = max(self.num_scored, span.stop)

    def token_score(self, index: int) -> TokenScore | None:
        """Return the score of one token; None if the token is not scored yet."""
        if not 0 <= index < self.num_scored:
            return None
        log_prob, token_texts = float(self.log_probs[index]), self.vocabulary.tokens
        alternatives = zip(self._top_ids[index].tolist(), self._top_log_probs[index].tolist(), strict=True)
        return TokenScore(
            bits=-log_prob / math.log(2),
            model_prob=math.exp(log_prob),
            rank=int(self._ranks[index]),
            top_tokens=tuple((token_texts[token], math.exp(top_log_prob)) for token, top_log_prob in alternatives),
        )

    def summarize(self) -> "TokenScoresSummary | None":
        """Return the summary of the tokens scored so far; None before the first."""
        if not self.num_scored:
            return None
        log_probs, unknown = self.log_probs[: self.num_scored], self.tokens.unknown_mask[: self.num_scored]
        known = log_probs[~unknown]
        return TokenScoresSummary(
            evaluation=summarize_log_probs(log_probs, self.tokens.ids[: self.num_scored]),
            num_unknown=int(np.count_nonzero(unknown)),
            known_perplexity=perplexity(float(-known.mean())) if len(known) else None,
        )

    def sentence_perplexities(self) -> Float64Array:
        """Return the perplexity `[sentences]` of each sentence; NaN for sentences that are not scored to their end."""
        if not len(self.tokens):
            return np.empty(0)
        sizes = np.diff(self.tokens.sentence_starts, append=len(self.tokens))
        mean_nlls = np.add.reduceat(-self.log_probs, self.tokens.sentence_starts) / sizes
        with np.errstate(over="ignore"):
            perplexities: Float64Array = np.exp(mean_nlls)
        return perplexities


@dataclass(frozen=True)
class TokenScoresSummary:
    """Summary of the scores of a text."""

    evaluation: Evaluation
    """Evaluation on all tokens; `<unk>` counts like any token."""
    num_unknown: int
    known_perplexity: float | None
    """Perplexity on the known tokens only, each predicted from all tokens before it; None if no token is known."""


@dataclass(frozen=True)
class ScoreComparison:
    """Comparison of two models on the tokens that both have scored."""

    num_tokens: int
    num_better: int
    """Number of tokens that are more likely under the first model."""
    num_worse: int
    """Number of tokens that are less likely under the first model."""
    mean_bits_difference: float
    """Mean bits per token, second model minus first model; positive if the first model is better."""


def compare_scores(first: TokenScores, second: TokenScores) -> ScoreComparison | None:
    """Compare the scores of two models for the same text; return None until both have scored a token."""
    num_tokens = min(first.num_scored, second.num_scored)
    if not num_tokens:
        return None
    difference = first.log_probs[:num_tokens] - second.log_probs[:num_tokens]
    return ScoreComparison(
        num_tokens=num_tokens,
        num_better=int(np.count_nonzero(difference > 0)),
        num_worse=int(np.count_nonzero(difference < 0)),
        mean_bits_difference=float(difference.mean()) / math.log(2),
    )
