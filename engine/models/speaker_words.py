"""Each speaker's own word frequencies, which rescale the words of a language model (Kneser, Peters and Klakow 1997)."""

from collections import Counter
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.data.arrays import Float32Array, Float64Array, Int64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer, current_speakers
from engine.errors import InvalidInputError

WEIGHT = 0.5
PRIOR_TOKENS = 2000.0
UNSEEN_COUNT = 0.5
"""Count that is added to the count of each token of the vocabulary, so that all have a frequency."""

TokenCounts = tuple[tuple[int, int], ...]
"""Tokens, each with its count."""


@dataclass(frozen=True)
class SpeakerWords:
    """Token frequencies of each speaker, relative to the frequencies in all lines.

    The probability of a token is multiplied by (P(token | speaker) / P(token)) ** weight, and the distribution is then
    renormalized. This is called fast marginal adaptation.
    """

    weight: float
    """Exponent of the ratio of frequencies; 0 changes nothing."""
    prior_tokens: float
    """Number of imaginary tokens, spread like all tokens, that smooth the frequencies of a speaker."""
    counts: tuple[TokenCounts, ...]
    """Tokens `[cast]` of each speaker's lines in the training split, with their `<eos>`."""

    def __post_init__(self) -> None:
        if not (0 <= self.weight <= 10 and 0 < self.prior_tokens <= 1e9):  # NaN fails the comparison
            raise InvalidInputError(
                f"speaker words with weight {self.weight:g} and {self.prior_tokens:g} prior tokens are out of range; "
                "use a weight from 0 to 10, and more than 0 prior tokens"
            )
        for token, count in (pair for pairs in self.counts for pair in pairs):
            if token < 0 or count < 0:
                raise InvalidInputError(f"speaker words: count {count} of token {token}; neither may be negative")

    @classmethod
    def fit(
        cls, ids: TokenIds, tokenizer: Tokenizer, weight: float = WEIGHT, prior_tokens: float = PRIOR_TOKENS
    ) -> Self:
        """Count the tokens of an encoded training split in dialogue mode."""
        counts: list[Counter[int]] = [Counter() for _ in tokenizer.cast]
        first = tokenizer.num_text_tokens
        speakers = current_speakers(np.append(np.int32(EOS_ID), ids), first)[:-1]
        for speaker, token in zip(speakers.tolist(), ids.tolist(), strict=True):
            if speaker >= 0 and token < first:
                counts[speaker - first][token] += 1
        return cls(weight, prior_tokens, tuple(tuple(sorted(counter.items())) for counter in counts))

    @property
    def num_speakers(self) -> int:
        """Size of the cast."""
        return len(self.counts)

    def boosts(self, num_tokens: int) -> list[tuple[Int64Array, Float32Array]]:
        """Return for each speaker the tokens of the speaker and the numbers to add to their log-probabilities.

        All other tokens have the same factor, which renormalization removes. `num_tokens` is the number of text tokens
        of the vocabulary; a count of a token beyond it raises an InvalidInputError.
        """
        highest = max((pairs[-1][0] for pairs in map(sorted, self.counts) if pairs), default=0)
        if highest >= num_tokens:
            raise InvalidInputError(
                f"speaker words: token {highest} is outside a vocabulary of {num_tokens}; use the files of one run"
            )
        totals: Float64Array = np.full(num_tokens, UNSEEN_COUNT)
        for pairs in self.counts:
            for token, count in pairs:
                totals[token] += count
        frequencies = totals / totals.sum()
        boosts = []
        for pairs in self.counts:
            tokens, counts = np.array(pairs, np.int64).reshape(-1, 2).T
            ratios = self.weight * np.log1p(counts / (self.prior_tokens * frequencies[tokens]))
            boosts.append((tokens, ratios.astype(np.float32)))
        return boosts
