"""Baseline of the Transformer's generation: a plain PyTorch decoder with a key-value cache, in the style of nanoGPT.

`python -m lotr_tui.bench.playing.torch_decoder` prints its tokens per second on one core as JSON.
"""

import json

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.models.transformer_layout import RMS_NORM_EPS, ROPE_BASE, head_size, inner_size
from lotr_tui.bench.measurement import measure_tokens_per_second
from lotr_tui.bench.playing.transformer_generation import CONFIG, NUM_TOKENS, VOCABULARY_SIZE

MIN_SECONDS = 2.0
"""Minimum CPU time of the measurement."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of a layer, `[batch, heads, positions, head size]`."""


class _Attention(nn.Module):
    """Causal self-attention that appends to the keys and values of the positions before."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.num_heads = config.num_heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, cache: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Return the attention output `[batch, time, width]` of `x` `[batch, time, width]`, and the new cache."""
        batch, time, width = x.shape
        q, k, v = (
            projection(x).view(batch, time, self.num_heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, cosine, sine), _rotate(k, cosine, sine)
        if cache is not None:
            k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        return self.o_proj(y.transpose(1, 2).reshape(batch, time, width)), (k, v)


class _FeedForward(nn.Module):
    """Feed-forward layer with a SwiGLU activation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.embedding_size, inner_size(config)
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output `[batch, time, width]` for `x` `[batch, time, width]`."""
        output: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class _Block(nn.Module):
    """Attention and feed-forward layer, each normalized before and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.embedding_size, RMS_NORM_EPS)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.embedding_size, RMS_NORM_EPS)
        self.mlp = _FeedForward(config)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, cache: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Return the output of the block for `x`, both `[batch, time, width]`, and the new cache."""
        attended, cache = self.self_attn(self.input_layernorm(x), cosine, sine, cache)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), cache


class TorchDecoder(nn.Module):
    """A decoder with the weights of `NumpyTransformer`, which are named as there without the prefix `model.`."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        """Initialize random weights."""
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.embedding_size, RMS_NORM_EPS)
        size = head_size(config)
        angles = torch.outer(torch.arange(config.context_size), ROPE_BASE ** (-torch.arange(0, size, 2) / size))
        angles = torch.cat((angles, angles), dim=1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, ids: Tensor, caches: list[KeysValues] | None = None) -> tuple[Tensor, list[KeysValues]]:
        """Read `ids` `[batch, time]` after the cached positions.

        Returns:
            The logits `[batch, vocabulary]` of the token after the last one, and the caches of all layers.
        """
        start = 0 if caches is None else caches[0][0].shape[2]
        cosine, sine = (table[start : start + ids.shape[1]] for table in (self.cosine, self.sine))
        x, new_caches = self.embed_tokens(ids), []
        for index, block in enumerate(self.layers):
            x, cache = block(x, cosine, sine, None if caches is None else caches[index])
            new_caches.append(cache)
        return functional.linear(self.norm(x[:, -1]), self.embed_tokens.weight), new_caches

    @torch.inference_mode()
    def generate(self, num_tokens: int, temperature: float = 1.0) -> int:
        """Sample a text after `<eos>`, and return its number of tokens."""
        logits, caches = self(torch.tensor([[EOS_ID]]))
        for _ in range(num_tokens):
            token = torch.multinomial(functional.softmax(logits / temperature, dim=-1), num_samples=1)
            logits, caches = self(token, caches)
        return num_tokens


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def measure_torch_decoder(min_seconds: float = MIN_SECONDS) -> float:
    """Return the tokens per second of the baseline of `measure_transformer_speeds`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    decoder = TorchDecoder(CONFIG, VOCABULARY_SIZE).eval()
    return measure_tokens_per_second(lambda: decoder.generate(NUM_TOKENS), min_seconds)


if __name__ == "__main__":
    print(json.dumps(measure_torch_decoder()))
