"""Linear layer computed by oneDNN on CPUs, where it is up to twice as fast as PyTorch's float32 product."""

from typing import Any

import torch
from torch import Tensor, nn

HAS_ONEDNN_LINEAR = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
"""True if PyTorch has the operator that torch.compile replaces `linear` by; it is private and may disappear."""


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `inputs` `[..., in]` times the transposed `weight` `[out, in]` plus `bias` `[out]`: `[..., out]`.

    `torch.nn.functional.linear` uses oneDNN for bfloat16 only; this function also uses it for float32 on CPUs.
    """
    is_float32 = inputs.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (HAS_ONEDNN_LINEAR and is_float32 and inputs.device.type == "cpu"):
        return nn.functional.linear(inputs, weight, bias)
    outputs: Tensor = _OneDNNLinear.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
    return outputs


def _onednn_matmul(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `left` `[n, k]` times the transposed `right` `[m, k]`: `[n, m]`. Both may be transposed views."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        return _onednn_matmul(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        grad_inputs = _onednn_matmul(gradient, weight.t()).view_as(inputs)
        grad_weight = _onednn_matmul(gradient.t(), inputs.flatten(0, -2).t())
        return grad_inputs, grad_weight, gradient.sum(0) if ctx.has_bias else None
