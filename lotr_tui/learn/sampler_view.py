"""Next tokens before and after a sampler chain, with the numbers that the chapter on sampling shows."""

from dataclasses import dataclass, replace

import numpy as np

from engine.generation.sampling import END_OF_TEXT, NextTokenProbs, TextInProgress, next_token_probs, sampling_probs
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.learn.sample_ladder import ReadLine


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


def view_sampler(model: LanguageModel, line: ReadLine, settings: SamplerSettings, top_n: int) -> SamplerView:
    """Apply a sampler chain to the distribution of the next token after a line."""
    text, at_one = (
        TextInProgress(model, line.ids, chain, state=line.state, is_first_token=False, end_ids=END_OF_TEXT)
        for chain in (settings, replace(settings, temperature=1.0))
    )
    probs, probs_at_one = sampling_probs(text), sampling_probs(at_one)
    likeliest, kept = int(np.argmax(probs)), probs[probs > 0]
    return SamplerView(
        preview=next_token_probs(text, top_n),
        sampling_entropy=float(-np.vecdot(kept, np.log2(kept))),
        likeliest=likeliest,
        prob=float(probs[likeliest]),
        prob_at_one=float(probs_at_one[likeliest]),
    )
