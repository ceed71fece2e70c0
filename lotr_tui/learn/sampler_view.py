"""Next tokens before and after a sampler chain, with the numbers that the chapter on sampling shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.data.tokenizers.base import Tokenizer
from engine.generation.preview import NextTokenProbs, next_token_probs
from engine.generation.sampling import process_log_probs, sampling_entropy_bits
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs


@dataclass(frozen=True)
class SamplerView:
    """Distribution of the next token before and after a sampler chain."""

    preview: NextTokenProbs
    sampling_entropy: float
    """Entropy after the sampler chain, in bits."""
    likeliest: int
    """Id of the likeliest token after the sampler chain."""
    prob: float
    """Probability of that token after the sampler chain."""
    prob_at_one: float
    """Probability of that token after the same chain with temperature 1."""

    @property
    def ratio(self) -> float:
        """Probability of the likeliest token as a multiple of the one at temperature 1."""
        return self.prob / self.prob_at_one


def view_sampler(
    log_probs: LogProbs, settings: SamplerSettings, history: Sequence[int], tokenizer: Tokenizer, top_n: int
) -> SamplerView:
    """Apply a sampler chain to the distribution `log_probs` `[vocabulary]` after the tokens `history`."""
    unk_id = tokenizer.unk_id
    logits = process_log_probs(log_probs, settings, history, suppress_eos=False, unk_id=unk_id)
    at_one = process_log_probs(
        log_probs, replace(settings, temperature=1.0), history, suppress_eos=False, unk_id=unk_id
    )
    likeliest = int(np.argmax(logits))
    return SamplerView(
        preview=next_token_probs(log_probs, settings, history, tokenizer, top_n),
        sampling_entropy=sampling_entropy_bits(logits),
        likeliest=likeliest,
        prob=float(np.exp(logits[likeliest])),
        prob_at_one=float(np.exp(at_one[likeliest])),
    )
