"""Softmax regression and L-BFGS against closed forms and the conditions of a minimum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.softmax_regression import fit_softmax_regression, minimize_lbfgs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_the_minimum_of_a_quadratic_function_is_found(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 1, (size, size))
    matrix, minimum = root @ root.T + np.eye(size), rng.normal(0, 3, size)

    def loss(x):  # type: ignore[no-untyped-def]
        return float(0.5 * (x - minimum) @ matrix @ (x - minimum)), matrix @ (x - minimum)

    found = minimize_lbfgs(loss, np.zeros(size), max_iterations=500)
    assert loss(found)[0] < 1e-3 * max(1, loss(np.zeros(size))[0])


def test_a_minimum_stays_where_it_is() -> None:
    assert minimize_lbfgs(lambda x: (float(x @ x), 2 * x), np.zeros(3)).tolist() == [0, 0, 0]


def test_the_valley_of_rosenbrock_is_followed_to_its_end() -> None:
    def loss(x):  # type: ignore[no-untyped-def]
        value = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        gradient = [-2 * (1 - x[0]) - 400 * x[0] * (x[1] - x[0] ** 2), 200 * (x[1] - x[0] ** 2)]
        return float(value), np.array(gradient)

    assert minimize_lbfgs(loss, np.array([-1.2, 1.0]), max_iterations=200) == pytest.approx([1, 1], abs=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.1, 20))
def test_the_gradient_of_the_penalized_likelihood_is_small(seed: int, num_events: int, l2: float) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (num_events, 5)).astype(np.float32)
    labels, offsets = rng.integers(0, 3, num_events), rng.normal(0, 1, 3)
    weights = fit_softmax_regression(features, labels, offsets, l2)
    gradient = -l2 * weights
    for row, label in zip(features.astype(np.float64), labels, strict=True):
        probs = np.exp(row @ weights + offsets)
        gradient += np.outer(row, np.eye(3)[label] - probs / probs.sum())
    assert np.abs(gradient).max() < 0.05 * (1 + num_events) ** 0.5


def test_offsets_that_explain_the_labels_leave_no_weights() -> None:
    labels = np.array([0] * 6 + [1] * 2)
    weights = fit_softmax_regression(np.ones((8, 1), np.float32), labels, np.log([6.0, 2.0]), l2=1)
    assert weights == pytest.approx(np.zeros((1, 2)), abs=1e-6)
