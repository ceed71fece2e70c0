"""Baseline of the Transformer: a GPT-2 of the size of a preset, in plain PyTorch, written in the style of nanoGPT.

Learned position embeddings, LayerNorm, a fused projection to queries, keys and values, a feed-forward layer of four
times the width with GELU, and an output layer tied to the embedding (Radford et al. 2019).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import Config
from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds

INIT_STD = 0.02
WINDOWS_PER_BATCH = 16
"""Windows of a text that are scored at once."""


@dataclass(frozen=True)
class NanoGPTConfig:
    """Size of the network."""

    vocabulary_size: int
    context_size: int
    num_layers: int
    num_heads: int
    width: int

    @classmethod
    def from_preset(cls, config: Config, vocabulary_size: int) -> "NanoGPTConfig":
        """Return the size of the Transformer of a configuration; the context is the length of its windows."""
        model = config.model
        return cls(vocabulary_size, config.training.bptt, model.num_layers, model.num_heads, model.embedding_size)


class _Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, config: NanoGPTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.projection = nn.Linear(config.width, config.width)

    def forward(self, vectors: Tensor) -> Tensor:
        batch, time, width = vectors.shape
        queries, keys, values = (
            part.view(batch, time, self.num_heads, width // self.num_heads).transpose(1, 2)
            for part in self.qkv(vectors).split(width, dim=2)
        )
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        output: Tensor = self.projection(attended.transpose(1, 2).contiguous().view(batch, time, width))
        return output


class _Block(nn.Module):
    """Attention and feed-forward layer, each normalized before and added to the residual stream."""

    def __init__(self, config: NanoGPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = _Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, 4 * config.width)
        self.projection = nn.Linear(4 * config.width, config.width)

    def forward(self, vectors: Tensor) -> Tensor:
        vectors = vectors + self.attention(self.attention_norm(vectors))
        inner = functional.gelu(self.expand(self.feed_forward_norm(vectors)))
        output: Tensor = vectors + self.projection(inner)
        return output


class NanoGPT(nn.Module):
    """Decoder-only Transformer with learned positions."""

    def __init__(self, config: NanoGPTConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary_size, config.width)
        self.positions = nn.Embedding(config.context_size, config.width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self._init_weights(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices as GPT-2 does, with smaller projections to the residual stream the more layers there are."""
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                std = INIT_STD / math.sqrt(2 * self.config.num_layers) if ".projection." in name else INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits `[batch, time, vocabulary]` of the tokens after each of `ids` `[batch, time]`."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        vectors = self.tokens(ids) + self.positions(positions)
        for block in self.blocks:
            vectors = block(vectors)
        return functional.linear(self.norm(vectors), self.tokens.weight)

    @torch.no_grad()
    def score_sequence(self, ids: TokenIds) -> Float64Array:
        """Return the natural-log probability `[time]` of each token of a text, the first after `<eos>`.

        Windows overlap by half of the context, as in lotr-tui's Transformer: a window after the first one
        predicts only the tokens in its second half.
        """
        context = self.config.context_size
        num_reread = context // 2
        text = np.append(np.int64(EOS_ID), ids)
        starts = [0, *range(context - num_reread, max(1, len(ids) - num_reread), context - num_reread)]
        log_probs = np.empty(len(ids))
        for first in range(0, len(starts), WINDOWS_PER_BATCH):
            group = starts[first : first + WINDOWS_PER_BATCH]
            windows = np.full((len(group), context + 1), EOS_ID, np.int64)
            for row, start in zip(windows, group, strict=True):
                window = text[start : start + context + 1]
                row[: len(window)] = window
            tokens = torch.from_numpy(windows)
            scores = self(tokens[:, :-1]).log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].double().numpy()
            for row, start in zip(scores, group, strict=True):
                begin = num_reread if start else 0
                end = min(context, len(ids) - start)
                log_probs[start + begin : start + end] = row[begin:end]
        return log_probs
