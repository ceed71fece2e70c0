"""Random sampling: a seed determines the text and the noise, and samples follow the distribution."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from engine.generation.sampling import sample_tokens, sampling_probs
from engine.generation.settings import SamplerSettings
from tests.support import sampling
from tests.support.sampling import CHAINS, NO_FILTERS, FixedModel, generate_tokens, zipf_probs


def test_a_seed_determines_the_text_and_other_seeds_give_other_texts() -> None:
    settings = SamplerSettings(temperature=1.0, max_tokens=40)

    def text(seed: int) -> list[int]:
        return [word.id for word in generate_tokens(FixedModel(zipf_probs(200)), settings, seed)[0]]

    assert text(5) == text(5)
    assert len({tuple(text(seed)) for seed in range(20)}) == 20


def test_greedy_sampling_never_takes_a_removed_token() -> None:
    """Float32 noise is exactly 0 once in about 10 million samples, and that token, even `<unk>`, would win.

    The seed is chosen so that float32 noise has a zero at the 143rd token.
    """
    size = 4000
    probs = [0.3, 1e-9, 0.4, *([0.3 / size] * (size - 3))]
    words, done = generate_tokens(FixedModel(probs), SamplerSettings(temperature=0, max_tokens=400), 2)
    assert Counter(word.id for word in words) == {2: 400}
    assert done.reason == "length"


@pytest.mark.parametrize(
    "settings", [NO_FILTERS, SamplerSettings(temperature=0.6), SamplerSettings(temperature=1.5, top_p=0.8)]
)
def test_samples_follow_the_distribution(settings: SamplerSettings) -> None:
    """Compares 8,000 tokens of one text with the naive chain by chi-square and total variation."""
    weights = [0.2, 1e-9, 0.3, 0.2, 0.12, 0.08, 0.05, 0.03, 0.015, 0.005]
    number = 8_000
    words, _ = generate_tokens(FixedModel(weights), replace(settings, max_tokens=number), 7)
    expected = sampling.naive_chain(np.log(np.array(weights) / sum(weights)), settings, [], False)
    counts = Counter(word.id for word in words)
    assert all(expected[i] > 0 for i in counts)
    assert sum(abs(counts[i] / number - p) for i, p in enumerate(expected)) / 2 < 0.02
    cells = [(counts[i], p * number) for i, p in enumerate(expected) if p * number > 5]
    assert (
        sum((actual - mean) ** 2 / mean for actual, mean in cells) < 40
    )  # at most 9 degrees of freedom: exceeded once in 100,000


def test_first_tokens_over_many_seeds_follow_the_distribution() -> None:
    weights = [0.3, 0.2, 0.25, 0.15, 0.1]
    counts = Counter(
        generate_tokens(FixedModel(weights), replace(NO_FILTERS, max_tokens=1), seed)[0][0].id for seed in range(4000)
    )
    expected = {2: 0.5, 3: 0.3, 4: 0.2}
    assert set(counts) == set(expected)
    assert all(counts[i] / 4000 == pytest.approx(p, abs=0.035) for i, p in expected.items())


def zipf_text(settings: SamplerSettings, seed: int) -> list[int]:
    return [token.id for token in generate_tokens(FixedModel(zipf_probs(300)), settings, seed)[0]]


def agreement(first: tuple[float, int], second: tuple[float, int], number: int = 600) -> float:
    texts = [
        [
            word.id
            for word in generate_tokens(
                FixedModel(zipf_probs(300)), SamplerSettings(temperature=t, max_tokens=number), seed
            )[0]
        ]
        for t, seed in (first, second)
    ]
    assert all(len(text) == number for text in texts)
    return float(np.mean([a == b for a, b in zip(*texts, strict=True)]))


def test_noise_of_a_seed_does_not_depend_on_the_temperature() -> None:
    shared = agreement((0.7, 3), (1.0, 3))
    independent = max(agreement((0.7, 3), (1.0, other)) for other in (4, 5, 6))
    assert shared > 0.5
    assert shared > 2.5 * independent


def test_noise_of_a_seed_does_not_depend_on_the_filters() -> None:
    """Removed tokens are masked, so two texts agree wherever both can take the token."""
    both = [
        [
            w.id
            for w in generate_tokens(
                FixedModel(zipf_probs(300)), SamplerSettings(temperature=1, top_p=p, max_tokens=400), 3
            )[0]
        ]
        for p in (1.0, 0.9)
    ]
    kept = set(both[1])
    pairs = [(a, b) for a, b in zip(*both, strict=True) if a in kept]
    assert len(pairs) > 200
    assert all(a == b for a, b in pairs)


def test_sampling_several_texts_equals_sampling_each_alone() -> None:
    number = len(CHAINS)
    log_probs = np.stack([sampling.random_logits(seed) for seed in range(number)]).astype(np.float32)
    histories = [[seed, seed + 1, 2 * seed] for seed in range(number)]
    probs = sampling_probs(log_probs, CHAINS, histories, suppress_eos=False)
    noise = np.random.default_rng(0).standard_exponential(probs.shape)
    sampled = sample_tokens(probs, noise.copy())
    for i in range(number):
        own = log_probs[i : i + 1]
        alone = sampling_probs(own, CHAINS[i : i + 1], histories[i : i + 1], suppress_eos=False)
        assert np.array_equal(alone[0], probs[i])
        assert sample_tokens(alone, noise[i : i + 1].copy()).tolist() == [sampled[i]]
        assert sampled[i] == max(range(40), key=lambda word: alone[0, word] / noise[i, word])
