"""Text generation: prompts, sampler settings, the sampler chain, single and batched generation."""
