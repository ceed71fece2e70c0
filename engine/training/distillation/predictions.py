"""Predictions of teachers, the soft targets of a student."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """Distributions over the targets of a window."""

    tokens: Tensor
    """Probabilities `[time, batch, vocabulary]`, given the punctuation before the target if the model learns it."""
    punctuation: Tensor | None
    """Probabilities `[time, batch, classes]` of the punctuation before the target; None without punctuation softmax."""

    @classmethod
    def mean(cls, predictions: Sequence[Self]) -> Self:
        """Return the mean of the distributions of several teachers."""
        punctuation = [each.punctuation for each in predictions if each.punctuation is not None]
        return cls(
            torch.stack([each.tokens for each in predictions]).mean(dim=0),
            torch.stack(punctuation).mean(dim=0) if punctuation else None,
        )

    def append_columns(self, other: Self) -> Self:
        """Return the distributions of both batches side by side."""
        punctuation = None
        if self.punctuation is not None and other.punctuation is not None:
            punctuation = torch.cat([self.punctuation, other.punctuation], dim=1)
        return type(self)(torch.cat([self.tokens, other.tokens], dim=1), punctuation)


@dataclass(frozen=True)
class SoftTargets:
    """Predictions of teachers for a window, and how much each column of the window learns from them."""

    predictions: Predictions
    weights: Tensor
    """Fraction `[batch]` of each column's loss that compares with the predictions instead of the text."""
    num_corpus_columns: int
    """Number of columns that are from the corpus; the teachers wrote the text of the columns after them."""

    def mix_losses(self, losses: Tensor, log_probs: Tensor, probs: Tensor) -> Tensor:
        """Return the losses `[time, batch]` of the text mixed with the cross-entropies of predictions.

        `log_probs` of the student and `probs` of the teachers are `[time, batch, classes]`.
        """
        cross_entropies = -(probs * log_probs).sum(dim=-1)
        return (1 - self.weights) * losses + self.weights * cross_entropies
