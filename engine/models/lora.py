"""Low-rank changes of frozen layers in PyTorch (Hu et al. 2021, arXiv 2106.09685)."""

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import ModelConfig
from engine.models.adapter import lora_targets


class LowRankChange(nn.Module):
    """The matrices A `[rank, inputs]` and B `[outputs, rank]`, named as in PEFT."""

    def __init__(self, in_features: int, out_features: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.lora_A = nn.Linear(in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, out_features, bias=False)
        # The same as Kaiming-uniform initialization with a = √5, which PyTorch uses for linear layers.
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.lora_A.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.lora_B.weight)


class AdaptedLinears(nn.Module):
    """Frozen linear layers that read the same vectors, computed as one product, with trained low-rank changes.

    The frozen weights are buffers outside of the state dict, in the type that products are computed in. The changes
    are in single precision; dropout applies to what they read.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        config: ModelConfig,
        sizes: Mapping[str, int],
        weight: Tensor,
        bias: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        """Adapt layers by name with `sizes` outputs each, which are the rows of `weight` and `bias` in this order."""
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self._sizes = dict(sizes)
        self._scale = config.lora_alpha / config.lora_rank
        targets = lora_targets(config)
        for name, size in sizes.items():
            if name in targets:
                self.add_module(name, LowRankChange(weight.shape[1], size, config.lora_rank, generator))

    def forward(self, vectors: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the outputs `[..., sum of sizes]` for `vectors` `[..., inputs]`; `drop` is the dropout."""
        outputs = functional.linear(vectors, self.weight, self.bias)
        changes = {name: cast(LowRankChange, change) for name, change in self.named_children()}
        if not changes:
            return outputs
        first = torch.cat([change.lora_A.weight for change in changes.values()]).to(vectors.dtype)
        blocks = [
            changes[name].lora_B.weight if name in changes else first.new_empty(size, 0, dtype=torch.float32)
            for name, size in self._sizes.items()
        ]
        second: Tensor = torch.block_diag(*blocks) * self._scale  # type: ignore[no-untyped-call]
        low_rank = functional.linear(drop(vectors), first).flatten(0, -2)
        return torch.addmm(outputs.flatten(0, -2), low_rank, second.t().to(vectors.dtype)).view_as(outputs)
