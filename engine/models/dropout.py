"""Dropout masks from a generator of their own, so that a training can be resumed exactly."""

import torch
from torch import Tensor

from engine.runtime.distributed import DistributedContext


def dropout_mask(like: Tensor, shape: tuple[int, ...], p: float, generator: torch.Generator) -> Tensor:
    """Return a mask of `shape`: 0 with probability `p`, otherwise 1 / (1 - p), so that the expected value is 1.

    On the CPU, each random 64-bit integer supplies four elements, which takes a tenth of the time of `bernoulli_`
    and rounds `p` to a multiple of 1 / 65,536.
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
    vectors: Tensor,
    p: float,
    generator: torch.Generator | None,
    distributed: DistributedContext,
    *,
    variational: bool,
) -> Tensor:
    """Drop elements of `vectors` `[time, batch, size]`; without a generator, return them unchanged.

    `variational` dropout uses one mask for all time steps (Merity et al. 2017, section 4.2). Each process of a
    `distributed` training draws the mask of the whole batch and uses its own columns.
    """
    if generator is None or not p:
        return vectors
    time, batch, size = vectors.shape
    shape = (1 if variational else time, batch * distributed.process.world_size, size)
    return vectors * distributed.shard_batch(dropout_mask(vectors, shape, p, generator))


def drop_tokens(embeddings: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """Zero the embeddings `[vocabulary, size]` of random tokens in a whole window (Merity et al. 2017, section 4.3)."""
    if generator is None or not p:
        return embeddings
    return embeddings * dropout_mask(embeddings, (embeddings.shape[0], 1), p, generator)
