"""What may come next, without drawing: the likeliest words before and after the chain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.vocabulary import Vocabulary
from engine.generation.generate import apply_chain, entropy_of
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs


@dataclass(frozen=True)
class Candidate:
    """A word that may come next, before and after the chain."""

    text: str
    before: float
    after: float


@dataclass(frozen=True)
class NextWords:
    """What may come next, seen over the whole vocabulary, without drawing."""

    candidates: tuple[Candidate, ...]
    """The likeliest words after the chain, those it dropped behind them."""
    kept: int
    vocabulary: int
    entropy: float
    """Bits, of the model's own distribution."""


def preview(
    log_probs: LogProbs,
    settings: SamplerSettings,
    history: Sequence[int],
    vocabulary: Vocabulary,
    most: int,
    *,
    first: bool = False,
) -> NextWords:
    """The `most` likeliest next words under `settings`, computed on the whole vocabulary.

    `first`: whether it would be the first word of a reply, which is not `<eos>`.
    """
    filtered = apply_chain(log_probs, settings, history, first=first)
    before = np.exp(log_probs.astype(np.float64))
    after = np.exp(filtered)
    order = np.lexsort((-before, -after))[:most]
    return NextWords(
        candidates=tuple(Candidate(vocabulary.words[i], float(before[i]), float(after[i])) for i in order),
        kept=int(np.count_nonzero(after)),
        vocabulary=len(vocabulary),
        entropy=float(entropy_of(log_probs)),
    )
