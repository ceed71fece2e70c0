"""Figure of the chapter on sampling: the sampler chain, its effect on next words, and sampled texts."""
