"""Draws at random: one seed is one text and one noise, and many words follow the distribution."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from engine.generation.generate import chances, describe, draw
from engine.generation.settings import SamplerSettings
from tests.support.sampling import CHAINS, OFF, Fixed, naive_chain, scores_of, tokens, vocabulary_of, zipf


def test_one_seed_one_text_and_another_seed_another() -> None:
    sampler = SamplerSettings(temperature=1.0, max_tokens=40)

    def text(seed: int) -> list[int]:
        return [word.id for word in tokens(Fixed(zipf(200)), sampler, seed)[0]]

    assert text(5) == text(5)
    assert len({tuple(text(seed)) for seed in range(20)}) == 20


def test_greedy_never_strays_where_the_noise_is_coarse() -> None:
    """Noise in float32 is exactly zero once in some 10 million draws: such a word must not win, least of all <unk>.

    The seed is one whose float32 exponentials have a zero in the 143rd word.
    """
    size = 4000
    probs = [0.3, 1e-9, 0.4, *([0.3 / size] * (size - 3))]
    words, done = tokens(Fixed(probs), SamplerSettings(temperature=0, max_tokens=400), 2)
    assert Counter(word.id for word in words) == {2: 400}
    assert done.reason == "length"


@pytest.mark.parametrize(
    "sampler", [OFF, SamplerSettings(temperature=0.6), SamplerSettings(temperature=1.5, top_p=0.8)]
)
def test_draws_follow_the_distribution(sampler: SamplerSettings) -> None:
    """8,000 words of one stream, seed fixed: chi-square and total variation against the naive chain."""
    weights = [0.2, 1e-9, 0.3, 0.2, 0.12, 0.08, 0.05, 0.03, 0.015, 0.005]
    number = 8_000
    words, _ = tokens(Fixed(weights), replace(sampler, max_tokens=number), 7)
    expected = naive_chain(np.log(np.array(weights) / sum(weights)), sampler, [], False)
    counts = Counter(word.id for word in words)
    assert all(expected[i] > 0 for i in counts)
    assert sum(abs(counts[i] / number - p) for i, p in enumerate(expected)) / 2 < 0.02
    cells = [(counts[i], p * number) for i, p in enumerate(expected) if p * number > 5]
    assert sum((found - mean) ** 2 / mean for found, mean in cells) < 40  # 9 degrees at most: one in 100,000


def test_first_words_over_many_seeds_follow_the_distribution() -> None:
    weights = [0.3, 0.2, 0.25, 0.15, 0.1]
    counts = Counter(tokens(Fixed(weights), replace(OFF, max_tokens=1), seed)[0][0].id for seed in range(4000))
    expected = {2: 0.5, 3: 0.3, 4: 0.2}
    assert set(counts) == set(expected)
    assert all(counts[i] / 4000 == pytest.approx(p, abs=0.035) for i, p in expected.items())


def agreement(first: tuple[float, int], second: tuple[float, int], number: int = 600) -> float:
    texts = [
        [word.id for word in tokens(Fixed(zipf(300)), SamplerSettings(temperature=t, max_tokens=number), seed)[0]]
        for t, seed in (first, second)
    ]
    assert all(len(text) == number for text in texts)
    return float(np.mean([a == b for a, b in zip(*texts, strict=True)]))


def test_one_seed_is_one_noise_whatever_the_temperature() -> None:
    shared = agreement((0.7, 3), (1.0, 3))
    independent = max(agreement((0.7, 3), (1.0, other)) for other in (4, 5, 6))
    assert shared > 0.5
    assert shared > 2.5 * independent


def test_one_seed_is_one_noise_whatever_the_filter() -> None:
    """Filtered words are masked, not left out: a word that both may take is the same one."""
    both = [
        [w.id for w in tokens(Fixed(zipf(300)), SamplerSettings(temperature=1, top_p=p, max_tokens=400), 3)[0]]
        for p in (1.0, 0.9)
    ]
    kept = set(both[1])
    pairs = [(a, b) for a, b in zip(*both, strict=True) if a in kept]
    assert len(pairs) > 200
    assert all(a == b for a, b in pairs)


def test_of_several_texts_each_is_drawn_and_told_as_alone() -> None:
    number, words = len(CHAINS), vocabulary_of(40).words
    log_probs = np.stack([scores_of(seed) for seed in range(number)]).astype(np.float32)
    histories = [[seed, seed + 1, 2 * seed] for seed in range(number)]
    probs = chances(log_probs, CHAINS, histories, first=False)
    noise = np.random.default_rng(0).standard_exponential(probs.shape)
    drawn = draw(probs, noise.copy())
    told = describe(4, drawn, log_probs, probs, words)
    for i in range(number):
        own = log_probs[i : i + 1]
        alone = chances(own, CHAINS[i : i + 1], histories[i : i + 1], first=False)
        assert np.array_equal(alone[0], probs[i])
        assert draw(alone, noise[i : i + 1].copy()).tolist() == [drawn[i]]
        assert drawn[i] == max(range(40), key=lambda word: alone[0, word] / noise[i, word])
        assert describe(4, drawn[i : i + 1], own, alone, words) == [told[i]]
        assert told[i][:3] == (4, drawn[i], words[drawn[i]])
