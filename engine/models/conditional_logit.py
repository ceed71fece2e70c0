"""Conditional logit (McFadden 1974): a softmax over alternatives that are described by features, fitted by Newton."""

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float64Array

MAX_NEWTON_STEPS = 25


def fit_conditional_logit(features: Float64Array, chosen: npt.NDArray[np.int64], l2: float) -> Float64Array:
    """Return the coefficients `[features]` with the highest likelihood of the choices, less a quadratic penalty.

    Args:
        features: Features `[events, alternatives, features]`.
        chosen: Index `[events]` of the alternative that was chosen.
        l2: Weight of half the sum of squared coefficients.
    """
    events, size = np.arange(len(chosen)), features.shape[2]

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        logits = features @ weights
        highest = logits.max(axis=1, keepdims=True)
        log_probs = logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
        return float(0.5 * l2 * weights @ weights - log_probs[events, chosen].sum()), np.exp(log_probs)

    weights = np.zeros(size)
    value, probs = loss(weights)
    for _ in range(MAX_NEWTON_STEPS if len(chosen) else 0):
        means = np.matmul(probs[:, None], features)[:, 0]
        gradient = (means - features[events, chosen]).sum(axis=0) + l2 * weights
        scaled = (features * np.sqrt(probs)[:, :, None]).reshape(-1, size)
        hessian = scaled.T @ scaled - means.T @ means + l2 * np.eye(size)
        direction, length = np.linalg.solve(hessian, gradient), 1.0
        while (new := loss(weights - length * direction))[0] > value and length > 1e-3:
            length /= 2
        improvement = value - new[0]
        if improvement <= 1e-8 * abs(value):
            break
        weights, value, probs = weights - length * direction, *new
    return weights
