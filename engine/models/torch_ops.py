"""Shared parts of networks in PyTorch: their output, and operations that are faster on CPUs than PyTorch's own."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.arrays import Float32Array
from engine.runtime.distributed import DistributedContext

# The operator that torch.compile replaces `linear` by is private and may disappear.
HAS_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
NO_ACTIVATION: tuple[str, list[Any], str] = ("none", [], "")  # last arguments of that operator
HAS_ONEDNN_LINEAR = HAS_ONEDNN and hasattr(torch.ops.mkldnn, "_linear_pointwise")
MAX_EXPLICIT_TIME = 1024  # the matrix of the attention weights of longer windows takes too much memory
CROSS_ENTROPY_ROWS = 512  # whose logits over a large vocabulary are in memory at once

# Hidden and cell of every LSTM layer, each `[1, batch, hidden]`; none of a Transformer.
RecurrentState = Sequence[tuple[Tensor, Tensor]]
Weights = Mapping[str, Float32Array]  # by name, as `weight_shapes` or `adapter_shapes` lists them


class NetworkOutput(NamedTuple):
    logits: Tensor  # [time, batch, classes]
    state: RecurrentState  # after the window
    raw: Tensor  # output of the last layer [time, batch, width] before dropout
    dropped: Tensor  # and after dropout


def layer_groups(network: nn.Module) -> list[dict[str, nn.Parameter]]:
    """Return parameters by layer from top to bottom: output layer with a tied embedding, layers, another embedding."""
    config: Any = network.config
    groups: list[dict[str, nn.Parameter]] = [{} for _ in range(config.num_layers + 2)]
    for name, parameter in network.named_parameters():
        index = -1 if "embed" in name and not config.tie_weights else 0
        if layer := re.search(r"(layers|mogrifiers)\.(\d+)\.", name):
            index = config.num_layers - int(layer[2])
        groups[index][name] = parameter
    return [group for group in groups if group]


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `functional.linear`, in float32 on CPUs by oneDNN, which is up to twice as fast."""
    is_float32 = inputs.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (HAS_ONEDNN_LINEAR and is_float32 and inputs.device.type == "cpu"):
        return functional.linear(inputs, weight, bias)
    outputs: Tensor = _OneDNNLinear.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
    return outputs


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, *NO_ACTIVATION)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        multiply = torch.ops.mkldnn._linear_pointwise
        grad_inputs = multiply(gradient, weight.t(), None, *NO_ACTIVATION).view_as(inputs)
        grad_weight = multiply(gradient.t(), inputs.flatten(0, -2).t(), None, *NO_ACTIVATION)
        return grad_inputs, grad_weight, gradient.sum(0) if ctx.has_bias else None


def dropout_mask(like: Tensor, shape: tuple[int, ...], p: float, generator: torch.Generator) -> Tensor:
    """Return a mask of `shape`: 0 with probability `p`, otherwise 1 / (1 - p).

    On the CPU, a random 64-bit integer supplies four elements, in a tenth of the time of `bernoulli_`, for multiples of
    1 / 65,536.
    """
    keep = 1.0 - p
    mask = torch.empty(shape, dtype=like.dtype, device=like.device)
    if like.device.type != "cpu":  # pragma: no cover - the tests have no GPU
        return mask.bernoulli_(keep, generator=generator).div_(keep)
    integers = torch.empty(-(-mask.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    uniform = integers.view(torch.int16)[: mask.numel()].view(shape)
    num_kept = round(keep * 2**16)  # out of the 2**16 values of an int16
    return torch.lt(uniform, num_kept - 2**15, out=mask).mul_(2**16 / num_kept)


def dropout(
    vectors: Tensor, p: float, generator: torch.Generator | None, distributed: DistributedContext, *, variational: bool
) -> Tensor:
    """Drop elements of `vectors` `[time, batch, size]`, if there is a generator.

    `variational` dropout uses one mask for all time steps (Merity et al. 2017, section 4.2). Each process of a
    `distributed` training draws the mask of the whole batch and uses its own columns.
    """
    if generator is None or not p:
        return vectors
    time, batch, size = vectors.shape
    shape = (1 if variational else time, batch * distributed.process.world_size, size)
    return vectors * distributed.shard_batch(dropout_mask(vectors, shape, p, generator))


def rms_norm(vectors: Tensor, norm: nn.RMSNorm) -> Tensor:
    """Return `norm(vectors)`; by its own operations, the training of an adapter takes 1.08 times as long."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = (norms.square() / vectors.shape[-1] + (norm.eps or 0.0)).rsqrt().to(vectors.dtype)
    return vectors * inverse * norm.weight


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the attention `[batch, time, width]` of queries `[batch, time, heads, size]`; several share keys."""
    batch, time, num_heads, size = queries.shape
    is_explicit = queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and time <= MAX_EXPLICIT_TIME
    if not is_explicit:
        attended = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), is_causal=True, enable_gqa=True
        )
        return attended.transpose(1, 2).flatten(2)
    # The training of an adapter takes 1.25 times as long by PyTorch's kernel. The query heads of a key head are rows of
    # one product.
    num_kv_heads = keys.shape[2]
    group = num_heads // num_kv_heads
    rows = (queries * size**-0.5).transpose(1, 2).reshape(batch * num_kv_heads, group * time, size)
    keys, values = (each.transpose(1, 2).reshape(batch * num_kv_heads, time, size) for each in (keys, values))
    mask = torch.full((time, time), -torch.inf, dtype=rows.dtype).triu_(1).repeat(group, 1)
    weights = torch.softmax(torch.baddbmm(mask, rows, keys.mT), -1)
    return torch.bmm(weights, values).view(batch, num_heads, time, size).transpose(1, 2).flatten(2)


def linear_cross_entropy(vectors: Tensor, weight: Tensor, targets: Tensor, target_weights: Tensor | None) -> Tensor:
    """Return the mean cross-entropy of targets `[time, batch]`, with few logits in memory at once."""
    vectors, targets = vectors.flatten(0, 1), targets.flatten()
    factors = torch.ones(targets.shape, device=targets.device) if target_weights is None else target_weights.flatten()
    factors = factors / targets.numel()
    rows = factors.nonzero().flatten()
    if len(rows) < len(targets):
        vectors, targets, factors = vectors[rows], targets[rows], factors[rows]
    loss: Tensor = _LinearCrossEntropy.apply(vectors, weight, targets, factors)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    # Computes the gradients with the loss, so that the logits of a few rows are needed only once.
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weight: Tensor, targets: Tensor, all_factors: Tensor) -> Tensor:
        loss, grad_vectors = torch.zeros((), device=vectors.device), torch.empty_like(vectors)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, len(vectors), CROSS_ENTROPY_ROWS):
            chunk = slice(start, start + CROSS_ENTROPY_ROWS)
            classes, factors = targets[chunk, None], all_factors[chunk, None]
            probs = torch.softmax(vectors[chunk] @ weight.t(), -1)
            picked = probs.gather(1, classes)
            loss -= (picked.float().clamp_min(1e-30).log() * factors).sum()
            probs.scatter_(1, classes, picked - 1)
            grad_vectors[chunk] = (probs @ weight).mul_(factors)
            if grad_weight is not None:
                grad_weight += probs.t() @ (vectors[chunk] * factors).to(probs.dtype)
        ctx.save_for_backward(grad_vectors, grad_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_vectors, grad_weight = (None if each is None else each.mul_(gradients[0]) for each in ctx.saved_tensors)
        return grad_vectors, grad_weight, None, None
