"""Preview of the next token: the likeliest candidates before and after the sampler chain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.vocabulary import Vocabulary
from engine.generation.sampling import entropy_bits, process_log_probs
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs


@dataclass(frozen=True)
class Candidate:
    """A possible next token, with its probability by the model's own distribution and after the sampler chain."""

    text: str
    model_prob: float
    sampling_prob: float


@dataclass(frozen=True)
class NextTokenProbs:
    """Distribution of the next token, reduced to its likeliest candidates."""

    candidates: tuple[Candidate, ...]
    """Candidates, likeliest after the sampler chain first; tokens that the chain removed come last."""
    num_kept: int
    """Number of tokens that the sampler chain left to sample from."""
    vocabulary_size: int
    entropy: float
    """Entropy of the model's own distribution, in bits."""


def next_token_probs(
    log_probs: LogProbs,
    settings: SamplerSettings,
    history: Sequence[int],
    vocabulary: Vocabulary,
    top_n: int,
    *,
    is_first_token: bool = False,
) -> NextTokenProbs:
    """Return the `top_n` likeliest next tokens without sampling one.

    `log_probs` is the model's distribution `[vocabulary]`, and `history` the ids of the text so far. The first token of
    a reply cannot be `<eos>`.
    """
    model_probs = np.exp(log_probs.astype(np.float64))
    probs = np.exp(process_log_probs(log_probs, settings, history, suppress_eos=is_first_token))
    order = np.lexsort((-model_probs, -probs))[:top_n]
    return NextTokenProbs(
        candidates=tuple(
            Candidate(text=vocabulary.tokens[i], model_prob=float(model_probs[i]), sampling_prob=float(probs[i]))
            for i in order
        ),
        num_kept=int(np.count_nonzero(probs)),
        vocabulary_size=len(vocabulary),
        entropy=float(entropy_bits(log_probs)),
    )
