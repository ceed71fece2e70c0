"""Matrix products on the CPU by oneDNN: on many a machine twice as fast as what PyTorch multiplies floats with."""

from typing import Any

import torch
from torch import Tensor, nn


def linear(vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`vectors` `[..., in]` times `weight` `[out, in]`, and `bias` `[out]` added: `[..., out]`.

    PyTorch's own `linear` goes by oneDNN in bfloat16, but not in float32, where the product below does.
    """
    in_float32 = vectors.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (_ONEDNN and in_float32 and vectors.device.type == "cpu"):
        return nn.functional.linear(vectors, weight, bias)
    product: Tensor = _Linear.apply(vectors, weight, bias)  # type: ignore[no-untyped-call]
    return product


# What torch.compile puts in the place of `linear`. It is not public, so one day it may be missing.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """`left` `[n, k]` times `right` `[m, k]` transposed: `[n, m]`; either may be a transposed view."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        context.save_for_backward(vectors, weight)
        return _product(vectors, weight, bias)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors, weight = context.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        of_vectors = _product(gradient, weight.t()).view_as(vectors)
        of_weight = _product(gradient.t(), vectors.flatten(0, -2).t())
        return of_vectors, of_weight, gradient.sum(0)
