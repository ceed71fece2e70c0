"""The conditional logit against closed forms and the conditions of a maximum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.conditional_logit import fit_conditional_logit


def test_constants_of_the_alternatives_give_their_frequencies() -> None:
    """With one feature for each alternative but the first, probabilities equal the relative frequencies."""
    chosen = np.array([0] * 5 + [1] * 2 + [2] * 3)
    features = np.broadcast_to(np.eye(3)[:, 1:], (10, 3, 2))
    assert fit_conditional_logit(features, chosen, l2=0) == pytest.approx(np.log([2 / 5, 3 / 5]), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 5), st.floats(0.01, 20))
def test_the_gradient_is_zero(seed: int, num_events: int, num_alternatives: int, l2: float) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 3, (num_events, num_alternatives, 3))
    chosen = rng.integers(0, num_alternatives, num_events)
    weights = fit_conditional_logit(features, chosen, l2)
    gradient = -l2 * weights
    for rows, choice in zip(features, chosen, strict=True):
        probs = np.exp(rows @ weights - (rows @ weights).max())
        gradient += rows[choice] - probs @ rows / probs.sum()
    assert gradient == pytest.approx(np.zeros(3), abs=1e-2 * (1 + num_events))


def test_separable_choices_have_finite_coefficients() -> None:
    features = np.zeros((50, 2, 1))
    features[:, 0, 0] = 1000
    weights = fit_conditional_logit(features, np.zeros(50, np.int64), l2=1)
    assert np.isfinite(weights).all()
    assert weights[0] > 0


def test_no_events_give_coefficients_of_zero() -> None:
    assert fit_conditional_logit(np.zeros((0, 4, 3)), np.zeros(0, np.int64), 1).tolist() == [0, 0, 0]
