"""Scores of a text: how well a model predicts its tokens, its words and its sentences."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.analysis.evaluation import CandidateScores, count_characters
from engine.analysis.tokenized_text import WRITTEN_WORD, TokenizedText
from engine.data.arrays import Float64Array
from engine.data.dataset import Dataset
from engine.data.speakers import display_name
from engine.data.tokenizers import EOS_ID, Tokenizer
from engine.generation.generate import NUM_TOP_TOKENS
from engine.models.base import BatchModel, LanguageModel, LogProbs, predict_tokens
from engine.models.dialogue import DialogueModel

# Tokens per chunk. Chunks grow, so that the first scores appear at once, but for models that read each in one pass.
FIRST_CHUNK_SIZE, MAX_CHUNK_SIZE = 16, 512
NUM_HELD_OUT_LINES, LINE_WORDS = 8, range(5, 15)  # lines that are chosen, and their words, the line end included
MAX_SEARCHED_TOKENS = 50_000  # in which they are looked for


class WordScore(NamedTuple):
    bits: float
    model_prob: float  # product over the tokens of the word
    rank: int | None  # of a word that is one token, 1 for the most likely one
    parts: tuple[tuple[str, float], ...]  # text of each token as written and its bits; a character is one part
    top_tokens: tuple[tuple[str, float], ...]  # the most likely alternatives to the first token that is not a space


class TokenScores:
    """Scores of the tokens of a text, filled in while a model reads it: one record of an array for each token."""

    def __init__(self, tokens: TokenizedText, tokenizer: Tokenizer, previous: "TokenScores | None" = None) -> None:
        """Create the scores of `tokens`; `previous` ones by the same model are kept up to the first change."""
        num_top = min(NUM_TOP_TOKENS, len(tokenizer))
        self.tokens, self.tokenizer, self.num_scored = tokens, tokenizer, 0
        self._records = np.zeros(
            len(tokens),
            [
                ("log_prob", np.float64),
                ("rank", np.int32),
                ("top_ids", np.int32, num_top),
                ("top_log_probs", np.float32, num_top),
                ("num_characters", np.int32),
                ("spelling_bits", np.float64),
            ],
        )
        self._records["log_prob"] = np.nan
        if previous is not None:
            self.num_scored = min(previous.num_scored, tokens.num_shared(previous.tokens))
            self._records[: self.num_scored] = previous._records[: self.num_scored]

    def read(self, model: LanguageModel, cancelled: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Let a model read the text after `<eos>`, with names of a script; yield the scored tokens by chunk."""
        if isinstance(model, DialogueModel):
            model = model.model  # its distributions are the same
        size = MAX_CHUNK_SIZE if isinstance(model, BatchModel) else FIRST_CHUNK_SIZE
        state, unread, start = model.start(), EOS_ID, 0
        while start < len(self.tokens) and not cancelled():
            inputs, positions = self.tokens.read_ids(start, start + size)
            # The token before an input predicts it, so the last input is left to the next chunk.
            rows, state = predict_tokens(model, state, [unread, *inputs[:-1]])
            unread = inputs[-1]
            self._score_rows([rows[position] for position in positions], start)
            start, size = start + len(positions), min(4 * size, MAX_CHUNK_SIZE)
            self.num_scored = max(self.num_scored, start)
            yield self.num_scored

    def _score_rows(self, rows: Sequence[LogProbs], start: int) -> None:
        # Row by row: a long row stays in the processor's cache.
        span = slice(start, start + len(rows))
        ids, records = self.tokens.ids[span], self._records[span]
        log_probs, ranks, top_ids, top_log_probs = (
            records[name] for name in ("log_prob", "rank", "top_ids", "top_log_probs")
        )
        num_top = top_ids.shape[1]
        for index, (row, token) in enumerate(zip(rows, ids.tolist(), strict=True)):
            log_probs[index], ranks[index] = row[token], 1 + np.count_nonzero(row > row[token])
            top = np.argpartition(row, -num_top)[-num_top:]
            top_ids[index] = top = top[np.argsort(-row[top], kind="stable")]
            top_log_probs[index] = row[top]
        texts = [self.tokens[index] for index in range(span.start, span.stop)]
        records["num_characters"], records["spelling_bits"] = count_characters(self.tokenizer, texts, ids)

    @property
    def log_probs(self) -> Float64Array:
        """Natural-log probabilities `[tokens]`; NaN for tokens that are not scored yet."""
        log_probs: Float64Array = self._records["log_prob"]
        return log_probs

    @property
    def bits(self) -> Float64Array:
        return -self.log_probs / math.log(2)

    @property
    def is_complete(self) -> bool:
        return self.num_scored == len(self.tokens)

    @property
    def bits_per_character(self) -> float:
        """Mean over the tokens scored so far; NaN if they have no character."""
        scored = self._records[: self.num_scored]
        num_characters = int(scored["num_characters"].sum())
        bits = -float(scored["log_prob"].sum()) / math.log(2) + float(scored["spelling_bits"].sum())
        return bits / num_characters if num_characters else math.nan

    @property
    def num_scored_words(self) -> int:
        return int(np.searchsorted(self.tokens.word_ends, self.num_scored, side="right"))

    @property
    def word_bits(self) -> Float64Array:
        """`[words]`; NaN for words that are not scored to their end."""
        return _sum_from(self.bits, self.tokens.word_starts)

    def word_score(self, index: int) -> WordScore | None:
        """Return the score of one word; None if it is not scored to its end yet."""
        if not 0 <= index < self.num_scored_words:
            return None
        tokens = range(int(self.tokens.word_starts[index]), int(self.tokens.word_ends[index]))
        # The model of a character tokenizer predicts the space before a word separately.
        first = self._records[next((token for token in tokens if self.tokens[token].strip(" ")), tokens[0])]
        parts: list[tuple[str, float]] = []
        for token in tokens:
            text, bits = self.tokens[token], -float(self.log_probs[token]) / math.log(2)
            if text or not parts:
                parts.append((text, bits))
            else:  # a later byte of the character before
                parts[-1] = (parts[-1][0], parts[-1][1] + bits)
        top = zip(first["top_ids"].tolist(), first["top_log_probs"].tolist(), strict=True)
        return WordScore(
            bits=sum(bits for _, bits in parts),
            model_prob=math.exp(self.log_probs[tokens.start : tokens.stop].sum()),
            rank=int(first["rank"]) if len(tokens) == 1 else None,
            parts=tuple(parts),
            top_tokens=tuple((self.tokenizer.tokens[token], math.exp(log_prob)) for token, log_prob in top),
        )

    def sentence_perplexities(self) -> Float64Array:
        """Return the perplexity `[sentences]` of each sentence; NaN for sentences that are not scored to their end."""
        starts = self.tokens.word_starts[self.tokens.sentence_starts]
        nlls, lengths = _sum_from(-self.log_probs, starts), np.diff(starts, append=len(self.tokens))
        with np.errstate(over="ignore"):
            perplexities: Float64Array = np.exp(nlls / lengths)
        return perplexities


class HeldOutLine(NamedTuple):
    """A line of the validation split: words with their punctuation, of which the line end is the last."""

    speaker: str  # as shown; empty if the text is no script
    words: tuple[str, ...]
    edges: tuple[int, ...]  # first token of each word in the split, and the one after the last word


def choose_held_out_lines(dataset: Dataset) -> list[HeldOutLine]:
    """Choose a few short lines, in a script of different speakers, those with most lines in the training first."""
    tokenizer, ids = dataset.tokenizer, dataset.valid[:MAX_SEARCHED_TOKENS]
    is_said, ends = dataset.scored_mask(ids), np.flatnonzero(np.isin(ids, tokenizer.line_end_ids)) + 1
    ranks = {display_name(name): rank for rank, name in enumerate(dataset.cast)}
    found, num_found = list[tuple[int, int, HeldOutLine]](), Counter[str]()
    for start, end in pairwise([0, *ends.tolist()]):
        first = start + int(is_said[start:end].argmax())
        pieces = tokenizer.pieces(ids[first:end].tolist())
        starts = [index for index, piece in enumerate(pieces) if not index or piece.startswith((" ", "\n"))]
        if len(starts) in LINE_WORDS:
            speaker = tokenizer.decode(ids[start:first].tolist()).removesuffix(":")
            words = ("".join(pieces[begin:stop]).strip(" ") for begin, stop in pairwise([*starts, None]))
            edges = *(first + index for index in starts), end
            line = HeldOutLine(speaker, tuple(words), edges)
            found.append((num_found[speaker], ranks.get(speaker, len(ranks)), line))
            num_found[speaker] += 1
    return [line for *_, line in sorted(found, key=lambda each: each[:2])[:NUM_HELD_OUT_LINES]]


def _sum_from(values: Float64Array, starts: npt.NDArray[np.int32]) -> Float64Array:
    sums: Float64Array = np.add.reduceat(values, starts) if len(starts) else np.empty(0)
    return sums


class WordChange(NamedTuple):
    word: str
    line: int  # of the scored text, from 1
    start: int  # first character in the scored text
    context: str  # the line up to the word and with it
    bits: float
    other_bits: float

    @property
    def gain(self) -> float:
        """Bits that the word costs less than by the other model: the binary logarithm of the ratio of its chances."""
        return self.other_bits - self.bits


def most_changed_words(
    scores: CandidateScores, other: CandidateScores, count: int
) -> tuple[list[WordChange], list[WordChange]]:
    """Return the `count` words that gain most from `other` to `scores`, two models on one text, and that lose most.

    A word has the white space before it. A token of several words counts for each by its characters.
    """
    text = scores.text.text
    matches = list(WRITTEN_WORD.finditer(text))
    edges = np.array([0, *(match.end() for match in matches)], np.int64)
    bits, other_bits = (each.text.bits_between(edges, each.log_probs) for each in (scores, other))
    order = order_by_gain(other_bits - bits, np.array([match.lastgroup == "word" for match in matches], np.bool_))

    def describe(index: int) -> WordChange:
        start, end = matches[index].span()
        line, context = text.count("\n", 0, start) + 1, text[text.rfind("\n", 0, start) + 1 : end]
        return WordChange(text[start:end], line, start, context, float(bits[index]), float(other_bits[index]))

    gained, lost = map(describe, order[:count]), map(describe, order[: -count - 1 : -1])
    return [each for each in gained if each.gain > 0], [each for each in lost if each.gain < 0]


def order_by_gain(gains: Float64Array, is_word: npt.NDArray[np.bool_]) -> list[int]:
    """Return the indices of the words whose gains are known, from the largest gain to the largest loss."""
    order = np.argsort(-gains, kind="stable")
    return [index for index in order.tolist() if is_word[index] and not math.isnan(gains[index])]
