"""Scores of a text: how well a model predicts its tokens, its words and its sentences."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.analysis.bits_per_character import CharacterBits, count_character_bits
from engine.analysis.perplexity import Evaluation, perplexity, summarize_log_probs
from engine.analysis.tokenized_text import TokenizedText
from engine.data.arrays import Float32Array, Float64Array, Int32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.generation.generate import NUM_TOP_TOKENS
from engine.models.base import LanguageModel, LogProbs, ModelState, ParallelModel
from engine.models.dialogue import DialogueModel

FIRST_CHUNK_SIZE, MAX_CHUNK_SIZE = 16, 512
"""Tokens per chunk; chunks start small, so that the first scores appear at once."""
CHUNK_GROWTH = 4
"""Factor by which chunks grow."""


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
    characters: CharacterBits
    """Bits and characters of the tokens."""

    def __len__(self) -> int:
        return len(self.log_probs)


def score_chunks(
    model: LanguageModel, tokens: TokenizedText, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[ScoredChunk]:
    """Read the tokens of a text after `<eos>` in one pass and yield their scores chunk by chunk.

    The model reads the name before each line of a script, so each word is predicted given its speaker. Names have no
    scores. The alternatives are collected in the same pass, which costs less than keeping the states
    to find them later. A `ParallelModel` reads each chunk at once, and large ones, because a pass over all its weights
    takes long.
    """
    if isinstance(model, DialogueModel):
        model = model.model  # its distributions are the same
    state, unread = model.start(), EOS_ID
    ids, start, size = tokens.ids, 0, MAX_CHUNK_SIZE if isinstance(model, ParallelModel) else FIRST_CHUNK_SIZE
    while start < len(ids) and not cancelled():
        chunk = ids[start : start + size]
        inputs, positions = _chunk_inputs(tokens, start, chunk)
        # The token before an input predicts it, so the last input is left to the next chunk.
        rows, state = _predict_tokens(model, state, [unread, *inputs[:-1]], cancelled)
        if len(rows) < len(inputs):
            return
        unread = inputs[-1]
        token_texts = [tokens[index] for index in range(start, start + len(chunk))]
        yield _score_rows([rows[position] for position in positions], chunk, start, token_texts, model.tokenizer)
        start, size = start + len(chunk), min(CHUNK_GROWTH * size, MAX_CHUNK_SIZE)


def _predict_tokens(
    model: LanguageModel, state: ModelState, inputs: Sequence[int], cancelled: Callable[[], bool]
) -> tuple[Float32Array, ModelState]:
    """Return the distributions `[inputs, vocabulary]` after each input, and the state after the last.

    There are fewer distributions if the reading was cancelled.
    """
    if isinstance(model, ParallelModel):
        return model.predict_tokens(state, inputs)
    rows = np.empty((len(inputs), len(model.tokenizer)), np.float32)
    for index, token in enumerate(inputs):
        rows[index], state = model.advance(state, token)
        if cancelled():
            return rows[:index], state
    return rows, state


def _chunk_inputs(tokens: TokenizedText, start: int, chunk: TokenIds) -> tuple[list[int], list[int]]:
    """Return what a model reads for the tokens `chunk`, which begin at index `start` of a text.

    Returns:
        The ids to read, with the name of the speaker of a line before its first token, and the position of each token
        of the chunk among them.
    """
    inputs: list[int] = []
    positions = []
    for index, token in enumerate(chunk.tolist(), start):
        inputs += tokens.heads.get(index, ())
        positions.append(len(inputs))
        inputs.append(token)
    return inputs, positions


def _score_rows(
    rows: Sequence[LogProbs], chunk: TokenIds, start: int, token_texts: Sequence[str], tokenizer: Tokenizer
) -> ScoredChunk:
    """Return the scores of the tokens `chunk`, each predicted by its distribution `[vocabulary]` in `rows`.

    One row after the other, so that a long row stays in the processor's cache.
    """
    num_top = min(NUM_TOP_TOKENS, len(tokenizer))
    log_probs = np.empty(len(chunk), np.float64)
    ranks = np.empty(len(chunk), np.int32)
    top_ids = np.empty((len(chunk), num_top), np.int32)
    top_log_probs = np.empty((len(chunk), num_top), np.float32)
    for index, (row, token) in enumerate(zip(rows, chunk.tolist(), strict=True)):
        log_probs[index] = row[token]
        ranks[index] = 1 + np.count_nonzero(row > row[token])
        ids = np.argpartition(row, -num_top)[-num_top:]
        order = np.argsort(-row[ids], kind="stable")
        top_ids[index] = ids[order]
        top_log_probs[index] = row[top_ids[index]]
    return ScoredChunk(
        start=start,
        log_probs=log_probs,
        ranks=ranks,
        top_ids=top_ids,
        top_log_probs=top_log_probs,
        characters=count_character_bits(tokenizer, token_texts, chunk, log_probs),
    )


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


@dataclass(frozen=True)
class WordScore:
    """Score of one word."""

    bits: float
    """Sum over the tokens of the word."""
    model_prob: float
    """Product over the tokens of the word."""
    rank: int | None
    """Rank of a word that is one token; None for a longer word, whose alternatives are not known."""
    parts: tuple[tuple[str, float], ...]
    """Text of each token as written and its bits. The tokens of one character are one part."""
    top_tokens: tuple[tuple[str, float], ...]
    """The most likely alternatives to the first token that is not a space, with their probabilities, in descending
    order."""


class TokenScores:
    """Scores of a text, collected from chunks while a model reads the text."""

    def __init__(self, tokens: TokenizedText, tokenizer: Tokenizer, previous: Self | None = None) -> None:
        """Create the scores of `tokens`, none of them known yet.

        `previous` are scores of an earlier version of the text by the same model; the scores of the tokens that both
        texts start with are copied.
        """
        num_top = min(NUM_TOP_TOKENS, len(tokenizer))
        self.tokens = tokens
        self.tokenizer = tokenizer
        self.num_scored = 0
        self.characters = CharacterBits(0.0, 0)
        """Bits and characters of the tokens in the chunks added so far."""
        self.log_probs = np.full(len(tokens), np.nan)
        """Natural-log probabilities `[tokens]`; NaN for tokens that are not scored yet."""
        self._ranks = np.zeros(len(tokens), np.int32)
        self._top_ids = np.zeros((len(tokens), num_top), np.int32)
        self._top_log_probs = np.zeros((len(tokens), num_top), np.float32)
        if previous is not None:
            num_shared = min(previous.num_scored, tokens.num_shared(previous.tokens))
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
    def num_scored_words(self) -> int:
        """Number of words whose tokens are all scored."""
        return int(np.searchsorted(self.tokens.word_ends, self.num_scored, side="right"))

    @property
    def bits(self) -> Float64Array:
        """Negative base-2 logarithm `[tokens]` of the probabilities; NaN for tokens that are not scored yet."""
        return -self.log_probs / math.log(2)

    @property
    def word_bits(self) -> Float64Array:
        """Bits `[words]` of each word; NaN for words that are not scored to their end."""
        if not len(self.tokens):
            return np.empty(0)
        sums: Float64Array = np.add.reduceat(self.bits, self.tokens.word_starts)
        return sums

    def add_chunk(self, chunk: ScoredChunk) -> None:
        """Add the scores of the next tokens."""
        span = slice(chunk.start, chunk.start + len(chunk))
        self.log_probs[span] = chunk.log_probs
        self._ranks[span] = chunk.ranks
        self._top_ids[span] = chunk.top_ids
        self._top_log_probs[span] = chunk.top_log_probs
        self.num_scored = max(self.num_scored, span.stop)
        self.characters = CharacterBits(
            self.characters.bits + chunk.characters.bits,
            self.characters.num_characters + chunk.characters.num_characters,
        )

    def token_score(self, index: int) -> TokenScore | None:
        """Return the score of one token; None if the token is not scored yet."""
        if not 0 <= index < self.num_scored:
            return None
        log_prob, token_texts = float(self.log_probs[index]), self.tokenizer.tokens
        alternatives = zip(self._top_ids[index].tolist(), self._top_log_probs[index].tolist(), strict=True)
        return TokenScore(
            bits=-log_prob / math.log(2),
            model_prob=math.exp(log_prob),
            rank=int(self._ranks[index]),
            top_tokens=tuple((token_texts[token], math.exp(top_log_prob)) for token, top_log_prob in alternatives),
        )

    def bits_of_word(self, index: int) -> float:
        """Return the sum of the bits over the tokens of a word; NaN if one of them is not scored yet."""
        tokens = self.tokens
        return -float(self.log_probs[tokens.word_starts[index] : tokens.word_ends[index]].sum()) / math.log(2)

    def word_score(self, index: int) -> WordScore | None:
        """Return the score of one word; None if the word is not scored to its end yet."""
        if not 0 <= index < self.num_scored_words:
            return None
        tokens = range(int(self.tokens.word_starts[index]), int(self.tokens.word_ends[index]))
        # The model of a character tokenizer predicts the space before a word separately.
        first_visible = next((token for token in tokens if self.tokens[token].strip(" ")), tokens[0])
        first_token = self.token_score(first_visible)
        assert first_token is not None, "the word is scored"
        parts: list[tuple[str, float]] = []
        for token in tokens:
            text, bits = self.tokens[token], -float(self.log_probs[token]) / math.log(2)
            if text or not parts:
                parts.append((text, bits))
            else:  # a later byte of the character before
                parts[-1] = (parts[-1][0], parts[-1][1] + bits)
        return WordScore(
            bits=self.bits_of_word(index),
            model_prob=math.exp(self.log_probs[tokens.start : tokens.stop].sum()),
            rank=first_token.rank if len(tokens) == 1 else None,
            parts=tuple(parts),
            top_tokens=first_token.top_tokens,
        )

    def summarize(self) -> "TokenScoresSummary | None":
        """Return the summary of the tokens scored so far; None before the first."""
        if not self.num_scored:
            return None
        log_probs, unknown = self.log_probs[: self.num_scored], self.tokens.unknown_mask[: self.num_scored]
        known = log_probs[~unknown]
        ids = self.tokens.ids[: self.num_scored]
        return TokenScoresSummary(
            evaluation=summarize_log_probs(log_probs, ids, self.tokens.unk_id),
            num_unknown=int(np.count_nonzero(unknown)),
            known_perplexity=perplexity(float(-known.mean())) if len(known) else None,
            bits_per_character=self.characters.bits_per_character,
        )

    def sentence_perplexities(self) -> Float64Array:
        """Return the perplexity `[sentences]` of each sentence; NaN for sentences that are not scored to their end."""
        if not len(self.tokens):
            return np.empty(0)
        starts = self.tokens.word_starts[self.tokens.sentence_starts]
        mean_nlls = np.add.reduceat(-self.log_probs, starts) / np.diff(starts, append=len(self.tokens))
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
    bits_per_character: float
    """Bits per character of the tokens in the chunks added so far; NaN if they have no character."""


@dataclass(frozen=True)
class ScoreComparison:
    """Comparison of two models on the words that both have scored."""

    num_words: int
    num_better: int
    """Number of words that are more likely under the first model."""
    num_worse: int
    """Number of words that are less likely under the first model."""
    mean_bits_difference: float
    """Mean bits per word, second model minus first model; positive if the first model is better."""


def compare_scores(first: TokenScores, second: TokenScores) -> ScoreComparison | None:
    """Compare the scores of two models for the same text; return None until both have scored a word."""
    num_words = min(first.num_scored_words, second.num_scored_words)
    if not num_words:
        return None
    saved_bits = second.word_bits[:num_words] - first.word_bits[:num_words]
    return ScoreComparison(
        num_words=num_words,
        num_better=int(np.count_nonzero(saved_bits > 0)),
        num_worse=int(np.count_nonzero(saved_bits < 0)),
        mean_bits_difference=float(saved_bits.mean()),
    )
