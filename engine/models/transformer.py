"""The Transformer language model in PyTorch: decoder-only, in the layout of Llama (Touvron et al. 2023)."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Float64Array, Int64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.models.dropout import drop_tokens, dropout
from engine.models.linear import linear
from engine.models.network import LayerGroup, Network, NetworkOutput, RecurrentState
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer_layout import (
    RMS_NORM_EPS,
    ROPE_BASE,
    check_transformer_config,
    head_size,
    inner_size,
    num_kept_tokens,
)
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext

INIT_STD = 0.02
"""Standard deviation of the initial weights, as in GPT-2."""
MAX_SCORING_LOGITS = 2**23
"""Maximum number of logits in memory at once while a text is scored."""


class _Linear(nn.Linear):
    """Linear layer without bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight)


class _Attention(nn.Module):
    """Causal self-attention of several heads with rotary position embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.num_heads = config.num_heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (_Linear(width, width) for _ in range(4))

    def forward(self, vectors: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Return the attention output `[batch, time, width]` of `vectors` `[batch, time, width]`."""
        queries, keys, values = (
            projection(vectors).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [batch, heads, time, head size]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        output: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return output


class _FeedForward(nn.Module):
    """Feed-forward layer with a SwiGLU activation (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.embedding_size, inner_size(config)
        self.gate_proj, self.up_proj = _Linear(width, inner), _Linear(width, inner)
        self.down_proj = _Linear(inner, width)

    def forward(self, vectors: Tensor) -> Tensor:
        output: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(vectors)) * self.up_proj(vectors))
        return output


class _Layer(nn.Module):
    """Attention and feed-forward layer, each normalized before and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.input_layernorm = nn.RMSNorm(width, RMS_NORM_EPS)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(width, RMS_NORM_EPS)
        self.mlp = _FeedForward(config)


class _Body(nn.Module):
    """Embedding, layers and last norm, named as in Llama."""

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.embedding_size, RMS_NORM_EPS)


class TransformerModel(Network):
    """A Transformer that reads windows of at most `context_size` tokens, each independent of the window before.

    Input dropout applies to the embeddings, hidden dropout to what each layer adds, and output dropout to the vectors
    that the tokens are predicted from.
    """

    rotation_cosine: Tensor
    rotation_sine: Tensor

    def __init__(self, config: ModelConfig, vocabulary_size: int, generator: torch.Generator) -> None:
        """Create the layers and initialize their weights from `generator`.

        Raises:
            ConfigError: If the heads do not divide the width into even parts.
        """
        super().__init__()
        check_transformer_config(config)
        self.config = config
        self.punctuation_softmax = None
        self.vocabulary_size = vocabulary_size
        self.model = _Body(config, vocabulary_size)
        cosine, sine = rotation_tables(config)
        self.register_buffer("rotation_cosine", cosine, persistent=False)
        self.register_buffer("rotation_sine", sine, persistent=False)
        self._init_weights(generator)

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices as GPT-2 does: projections to the residual stream are smaller in models with more layers."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = INIT_STD / math.sqrt(2 * self.config.num_layers) if is_residual else INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)

    def initial_state(self, batch_size: int) -> RecurrentState:
        """Return an empty state: every window is read on its own."""
        return []

    def forward(
        self,
        ids: Tensor,
        state: RecurrentState,
        dropout_generator: torch.Generator | None = None,
        class_ids: Tensor | None = None,
        punctuation: Tensor | None = None,
        speakers: Tensor | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> NetworkOutput:
        """Read a window of at most `context_size` tokens: see the base class."""
        raw = self._read(ids, dropout_generator, distributed)
        dropped = self._dropout(raw, self.config.output_dropout, dropout_generator, distributed)
        embeddings: Tensor = self.model.embed_tokens.weight
        logits = linear(dropped, embeddings if class_ids is None else embeddings[class_ids])
        return NetworkOutput(logits, [], raw, dropped)

    def _read(
        self, ids: Tensor, generator: torch.Generator | None = None, distributed: DistributedContext = SINGLE_PROCESS
    ) -> Tensor:
        """Return the normalized output `[time, batch, width]` of the last layer."""
        config = self.config
        embeddings = drop_tokens(self.model.embed_tokens.weight, config.embedding_dropout, generator)
        # Scaled dot-product attention needs the batch first; dropout masks have the time first, as in the LSTM.
        vectors = nn.functional.embedding(ids, embeddings)
        vectors = self._dropout(vectors, config.input_dropout, generator, distributed).transpose(0, 1).contiguous()
        rotation = (self.rotation_cosine[: len(ids)], self.rotation_sine[: len(ids)])

        def drop(added: Tensor) -> Tensor:
            if generator is None or not config.hidden_dropout:
                return added
            return self._dropout(added.transpose(0, 1), config.hidden_dropout, generator, distributed).transpose(0, 1)

        for layer in self.model.layers:
            assert isinstance(layer, _Layer)
            vectors = vectors + drop(layer.self_attn(layer.input_layernorm(vectors), rotation))
            vectors = vectors + drop(layer.mlp(layer.post_attention_layernorm(vectors)))
        output: Tensor = self.model.norm(vectors.transpose(0, 1).contiguous())
        return output

    def _dropout(
        self, vectors: Tensor, p: float, generator: torch.Generator | None, distributed: DistributedContext
    ) -> Tensor:
        return dropout(vectors, p, generator, distributed, variational=self.config.variational_dropout)

    @torch.no_grad()
    def _iter_scored_chunks(self, ids: TokenIds) -> Iterator[tuple[Float64Array, Tensor]]:
        """Yield log-probabilities `[time]` and hidden vectors `[time, width]` of consecutive tokens of a text.

        After a full window, the next one begins with its last `num_kept_tokens`, as in `NumpyTransformer`. So a window
        after the first one predicts only the tokens after these.
        """
        context = self.config.context_size
        num_reread = num_kept_tokens(context)
        inputs = np.append(np.int32(EOS_ID), ids[:-1]).astype(np.int64)
        starts = [0, *range(context - num_reread, max(1, len(ids) - num_reread), context - num_reread)]
        windows_per_batch = max(1, MAX_SCORING_LOGITS // (context * self.vocabulary_size))
        groups = [starts[:1]] + [
            starts[first : first + windows_per_batch] for first in range(1, len(starts), windows_per_batch)
        ]
        for group in groups:
            first_row = 0 if group[0] == 0 else num_reread
            raw = self._read(self._stack_windows(inputs, group))
            for column, start in enumerate(group):
                targets = torch.from_numpy(ids[start + first_row : start + context].astype(np.int64)).to(self.device)
                hidden = raw[first_row : first_row + len(targets), column]
                logits = linear(hidden, self.model.embed_tokens.weight).float()
                log_probs = torch.log_softmax(logits, dim=-1).gather(-1, targets[:, None]).flatten()
                yield log_probs.double().cpu().numpy(), hidden

    def _stack_windows(self, inputs: Int64Array, starts: Sequence[int]) -> Tensor:
        """Return the windows `[time, windows]` of `inputs` `[time]` that begin at `starts`, padded at the end."""
        context = self.config.context_size
        length = min(context, max(len(inputs) - start for start in starts))
        windows = np.full((length, len(starts)), EOS_ID, np.int64)
        for column, start in enumerate(starts):
            window = inputs[start : start + length]
            windows[: len(window), column] = window
        return torch.from_numpy(windows).to(self.device)

    def layer_groups(self) -> list[LayerGroup]:
        """Return the layer groups from top to bottom; the tied embedding belongs to the first."""
        num_layers = self.config.num_layers
        groups: list[LayerGroup] = [{} for _ in range(num_layers + 1)]
        for name, parameter in self.named_parameters():
            parts = name.split(".")
            groups[num_layers - int(parts[2]) if parts[1] == "layers" else 0][name] = parameter
        return groups

    @torch.no_grad()
    def export_weights(self) -> dict[str, Float32Array]:
        """Return copies of all tensors by name, as `NumpyTransformer` and `model.safetensors` store them."""
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in self.named_parameters()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Float32Array]) -> None:
        """Copy the tensors that `export_weights` returned into this model."""
        for name, parameter in self.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))

    def to_decoder(self, tokenizer: Tokenizer) -> NumpyTransformer:
        """Return a copy of the model for inference in numpy; later training does not change the copy."""
        return NumpyTransformer(self.config, tokenizer, self.export_weights())


def rotation_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Return cosine and sine `[context, head size]` of the angle by which each position rotates the units of a head."""
    size = head_size(config)
    frequencies = ROPE_BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(config.context_size, dtype=torch.float64)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos().float(), angles.sin().float()


def rotate(vectors: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate queries or keys `[..., time, head size]` by their positions (Su et al. 2021, arXiv 2104.09864).

    Unit `i` of the first half and unit `i` of the second half are the two coordinates that are rotated together, as in
    the weights of Hugging Face.
    """
    cosine, sine = rotation
    first, second = vectors.chunk(2, dim=-1)
    rotated: Tensor = vectors * cosine.to(vectors.dtype) + torch.cat([-second, first], dim=-1) * sine.to(vectors.dtype)
    return rotated
