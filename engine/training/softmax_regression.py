"""Softmax regression (multinomial logistic regression)."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from engine.data.arrays import Float32Array, Float64Array

MAX_ITERATIONS = 60


def fit_softmax_regression(
    features: Float32Array, labels: npt.NDArray[np.int64], offsets: Float64Array, l2: float
) -> Float32Array:
    """Return the weights `[features, classes]` with the highest likelihood of the labels, less a quadratic penalty.

    Args:
        features: Features `[events, features]`.
        labels: Class `[events]` of each event.
        offsets: Constant logit `[classes]` of each class, which is not fitted.
        l2: Weight of half the sum of squared weights.
    """
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    constants = torch.from_numpy(offsets).float()
    weights = torch.zeros(features.shape[1], len(offsets), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = cross_entropy(torch.addmm(constants, inputs, weights), targets, reduction="sum")
        loss = loss + 0.5 * l2 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted: Float32Array = weights.detach().numpy()
    return fitted
