"""Preview of the next token: the likeliest candidates before and after the sampler chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.generation.sampling import END_OF_TEXT, entropy_bits, process_log_probs
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs

Unit = Literal["word", "token"]
"""Unit of a text. The tokens of a closed vocabulary are words."""


@dataclass(frozen=True)
class Candidate:
    """A possible next token or word, with its probability by the model itself and after the sampler chain."""

    text: str
    model_prob: float
    sampling_prob: float
    ids: tuple[int, ...] = ()
    """Ids of its tokens; of several token sequences with this text, the likeliest."""


@dataclass(frozen=True)
class NextTokenProbs:
    """Distribution of the next token or word, reduced to its likeliest candidates."""

    candidates: tuple[Candidate, ...]
    """Candidates, likeliest after the sampler chain first; tokens that the chain removed come last."""
    num_kept: int
    """Number of tokens that the sampler chain left to sample from."""
    vocabulary_size: int
    entropy: float
    """Entropy of the model's own distribution of the next token, in bits."""
    candidate_unit: Unit = "word"
    token_unit: Unit = "word"
    """Unit of the tokens that `num_kept`, `vocabulary_size` and `entropy` are about."""
    is_final: bool = True
    """False if further words may be found."""


def next_token_probs(
    log_probs: LogProbs,
    settings: SamplerSettings,
    history: Sequence[int],
    tokenizer: Tokenizer,
    top_n: int,
    *,
    is_first_token: bool = False,
    end_ids: TokenIds = END_OF_TEXT,
) -> NextTokenProbs:
    """Return the `top_n` likeliest next tokens without sampling one.

    `log_probs` is the model's distribution `[vocabulary]`, and `history` the ids of the text so far. The first token of
    a reply cannot be one of `end_ids`, which end it.
    """
    model_probs = np.exp(log_probs.astype(np.float64))
    logits = process_log_probs(
        log_probs, settings, history, suppress_eos=is_first_token, unk_id=tokenizer.unk_id, end_ids=end_ids
    )
    probs = np.exp(logits)
    unit: Unit = "token" if tokenizer.is_open else "word"
    order = np.lexsort((-model_probs, -probs))[:top_n]
    return NextTokenProbs(
        candidates=tuple(
            Candidate(tokenizer.tokens[i], float(model_probs[i]), float(probs[i]), (i,)) for i in order.tolist()
        ),
        num_kept=int(np.count_nonzero(probs)),
        vocabulary_size=len(tokenizer),
        entropy=float(entropy_bits(log_probs)),
        candidate_unit=unit,
        token_unit=unit,
    )
