"""Softmax regression against the conditions of a minimum."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.softmax_regression import fit_softmax_regression


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.1, 20))
def test_the_gradient_of_the_penalized_likelihood_is_small(seed, num_events, l2):
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (num_events, 5)).astype(np.float32)
    labels, offsets = rng.integers(0, 3, num_events), rng.normal(0, 1, 3)
    weights = fit_softmax_regression(features, labels, offsets, l2)
    gradient = -l2 * weights
    for row, label in zip(features.astype(np.float64), labels, strict=True):
        probs = np.exp(row @ weights + offsets)
        gradient += np.outer(row, np.eye(3)[label] - probs / probs.sum())
    assert np.abs(gradient).max() < 0.05 * (1 + num_events) ** 0.5
