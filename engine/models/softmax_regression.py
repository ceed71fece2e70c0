"""Softmax regression (multinomial logistic regression), fitted with L-BFGS (Nocedal 1980)."""

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array, Float64Array

MAX_ITERATIONS = 60
NUM_CORRECTIONS = 8
"""Number of the latest steps that approximate the curvature."""
TOLERANCE = 1e-5
"""Relative improvement of the loss below which the fit ends."""
MIN_STEP = 1e-6
SUFFICIENT_DECREASE = 1e-4
"""Fraction of the decrease predicted from the gradient that a step must reach."""

Loss = Callable[[Float64Array], tuple[float, Float64Array]]
"""Function from parameters `[any]` to the loss and its gradient `[any]`."""


def fit_softmax_regression(
    features: Float32Array, labels: npt.NDArray[np.int64], offsets: Float64Array, l2: float
) -> Float64Array:
    """Return the weights `[features, classes]` with the highest likelihood of the labels, less a quadratic penalty.

    Args:
        features: Features `[events, features]`.
        labels: Class `[events]` of each event.
        offsets: Constant logit `[classes]` of each class, which is not fitted.
        l2: Weight of half the sum of squared weights.
    """
    num_classes, events = len(offsets), np.arange(len(labels))

    def loss(parameters: Float64Array) -> tuple[float, Float64Array]:
        weights = parameters.reshape(-1, num_classes)
        logits = features @ weights.astype(np.float32) + offsets
        logits -= logits.max(axis=1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        errors = np.exp(log_probs)
        errors[events, labels] -= 1
        gradient = features.T @ errors.astype(np.float32) + l2 * weights
        value = 0.5 * l2 * float(parameters @ parameters) - float(log_probs[events, labels].sum())
        return value, gradient.ravel().astype(np.float64)

    return minimize_lbfgs(loss, np.zeros(features.shape[1] * num_classes)).reshape(-1, num_classes)


def minimize_lbfgs(loss: Loss, start: Float64Array, max_iterations: int = MAX_ITERATIONS) -> Float64Array:
    """Return the parameters `[any]` where a smooth function is minimal, searching from `start`."""
    parameters, (value, gradient) = start, loss(start)
    corrections: deque[tuple[Float64Array, Float64Array]] = deque(maxlen=NUM_CORRECTIONS)
    for _ in range(max_iterations):
        direction = _descent_direction(gradient, corrections)
        slope = float(gradient @ direction)
        length = 1.0
        new_value, new_gradient = loss(parameters + direction)
        while not new_value <= value + SUFFICIENT_DECREASE * length * slope and length > MIN_STEP:
            length /= 2
            new_value, new_gradient = loss(parameters + length * direction)
        if not new_value < value:
            break
        step, change = length * direction, new_gradient - gradient
        if step @ change > 0:
            corrections.append((step, change))
        improvement = value - new_value
        parameters, value, gradient = parameters + step, new_value, new_gradient
        if improvement <= TOLERANCE * max(1.0, abs(value)):
            break
    return parameters


def _descent_direction(gradient: Float64Array, corrections: deque[tuple[Float64Array, Float64Array]]) -> Float64Array:
    """Return minus the gradient `[any]` times the inverse curvature that the latest steps indicate."""
    direction = -gradient
    if not corrections:
        return direction / max(float(np.linalg.norm(gradient)), 1e-9)
    projections = []
    for step, change in reversed(corrections):
        projection = float(step @ direction) / float(step @ change)
        direction = direction - projection * change
        projections.append(projection)
    step, change = corrections[-1]
    direction = direction * (float(step @ change) / float(change @ change))
    for (step, change), projection in zip(corrections, reversed(projections), strict=True):
        direction = direction + step * (projection - float(change @ direction) / float(step @ change))
    return direction
