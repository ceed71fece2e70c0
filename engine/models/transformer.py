"""The Transformer language model in PyTorch: decoder-only, in the layout of Llama (Touvron et al. 2023)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.models.adapter import MergedWeights
from engine.models.base import SequenceOutput
from engine.models.linear import linear
from engine.models.lora import AdaptedLinears
from engine.models.network import LayerGroup, Network, NetworkOutput, RecurrentState, drop_tokens, dropout
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer_layout import (
    check_transformer_config,
    head_size,
    inner_size,
    num_kept_tokens,
    num_kv_heads,
    rotary_frequencies,
)
from engine.models.transformer_ops import causal_attention, rms_norm, rotate, swiglu
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.storage.tensor_file import StoredTensor, to_float32

Drop = Callable[[Tensor], Tensor]
"""Dropout of vectors `[batch, time, width]`."""
INIT_STD = 0.02
"""Standard deviation of the initial weights, as in GPT-2."""
MAX_SCORING_LOGITS = 2**23
"""Maximum number of logits in memory at once while a text is scored."""


class Linears(nn.Module):
    """Linear layers that read the same vectors, computed as one product; their outputs stand side by side."""

    def __init__(self, in_features: int, sizes: Mapping[str, int], *, has_bias: bool = False) -> None:
        """Create layers by name, with `sizes` outputs each."""
        super().__init__()
        self.sizes = dict(sizes)
        for name, size in sizes.items():
            self.add_module(name, nn.Linear(in_features, size, has_bias))

    def forward(self, vectors: Tensor, drop: Drop) -> Tensor:
        """Return the outputs `[..., sum of sizes]` for `vectors` `[..., inputs]`; `drop` is for adapters only."""
        layers = [cast(nn.Linear, layer) for layer in self.children()]
        weights: list[Tensor] = [layer.weight for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        if len(layers) == 1:
            return linear(vectors, *weights, *biases)
        return linear(vectors, torch.cat(weights), torch.cat(biases) if biases else None)


class _Attention(nn.Module):
    """Causal self-attention of several heads with rotary position embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, size = config.embedding_size, head_size(config)
        self.num_heads, self.num_kv_heads = config.num_heads, num_kv_heads(config)
        units, kv_units = self.num_heads * size, self.num_kv_heads * size
        sizes = {"q_proj": units, "k_proj": kv_units, "v_proj": kv_units}
        self.qkv = Linears(width, sizes, has_bias=config.qkv_bias)
        self.output = Linears(units, {"o_proj": width})

    def forward(self, vectors: Tensor, rotation: tuple[Tensor, Tensor], drop: Drop) -> Tensor:
        """Return the attention output `[batch, time, width]` of `vectors` `[batch, time, width]`."""
        num_rotated = self.num_heads + self.num_kv_heads
        heads = self.qkv(vectors, drop).unflatten(-1, (num_rotated + self.num_kv_heads, -1))
        rotated, values = rotate(heads[:, :, :num_rotated], *rotation), heads[:, :, num_rotated:]
        attended = causal_attention(rotated[:, :, : self.num_heads], rotated[:, :, self.num_heads :], values)
        output: Tensor = self.output(attended, drop)
        return output


class _FeedForward(nn.Module):
    """Feed-forward layer with a SwiGLU activation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.embedding_size, inner_size(config)
        self.gate_up = Linears(width, {"gate_proj": inner, "up_proj": inner})
        self.down = Linears(inner, {"down_proj": width})

    def forward(self, vectors: Tensor, drop: Drop) -> Tensor:
        """Return the output `[batch, time, width]` of `vectors` `[batch, time, width]`."""
        output: Tensor = self.down(swiglu(self.gate_up(vectors, drop)), drop)
        return output


class _Norm(nn.RMSNorm):
    """RMSNorm in fewer passes than PyTorch's."""

    def forward(self, vectors: Tensor) -> Tensor:
        assert self.eps is not None
        return rms_norm(vectors, self.weight, self.eps)


class _Layer(nn.Module):
    """Attention and feed-forward layer, each normalized before and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.input_layernorm = _Norm(width, config.norm_eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = _Norm(width, config.norm_eps)
        self.mlp = _FeedForward(config)


class _Body(nn.Module):
    """Embedding, layers and last norm, named as in Llama."""

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.norm = _Norm(config.embedding_size, config.norm_eps)


class TransformerModel(Network):
    """A Transformer that reads windows of at most `context_size` tokens, each independent of the window before.

    Input dropout applies to the embeddings, hidden dropout to what each layer adds, and output dropout to the vectors
    that the tokens are predicted from.

    With a base, all weights are frozen, and the parameters are low-rank changes of the matrices (see `engine.models.
    adapter`), to which `export_weights` and `load_weights` are limited.
    """

    rotation_cosine: Tensor
    rotation_sine: Tensor

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        generator: torch.Generator,
        base: Mapping[str, StoredTensor] | None = None,
        base_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Create the layers and initialize their weights from `generator`.

        With `lora_rank`, the weights are `base`, stored and multiplied in `base_dtype`.

        Raises:
            ConfigError: If settings do not fit together.
        """
        super().__init__()
        check_transformer_config(config)
        assert bool(config.lora_rank) == (base is not None)
        self.config = config
        self.punctuation_softmax = None
        self.vocabulary_size = vocabulary_size
        with torch.device("cpu" if base is None else "meta"):
            self.model = _Body(config, vocabulary_size)
            self.lm_head = None if config.tie_weights else nn.Linear(config.embedding_size, vocabulary_size, bias=False)
        angles = np.arange(config.context_size)[:, None, None] * rotary_frequencies(config)
        for name, table in (("rotation_cosine", np.cos(angles)), ("rotation_sine", np.sin(angles))):
            self.register_buffer(name, torch.from_numpy(table.astype(np.float32)), persistent=False)
        self.start_id = EOS_ID
        """Token before the first one of a text that is scored."""
        self.base = base
        """Frozen weights; None if all weights are trained."""
        if base is None:
            self._init_weights(generator)
        else:
            self._freeze(base, base_dtype, generator)

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices as GPT-2 does: projections to the residual stream are smaller in models with more layers."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = INIT_STD / math.sqrt(2 * self.config.num_layers) if is_residual else INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def _freeze(self, base: Mapping[str, StoredTensor], dtype: torch.dtype, generator: torch.Generator) -> None:
        """Replace all parameters by buffers with the tensors of `base`, and add low-rank changes."""

        def load(names: Iterable[str]) -> Tensor | None:
            tensors = [torch.tensor(to_float32(base[name]), dtype=dtype) for name in names if name in base]
            return torch.cat(tensors) if tensors else None

        for path, module in list(self.named_modules()):
            if isinstance(module, Linears):
                layers = [f"{path.rpartition('.')[0]}.{name}" for name in module.sizes]
                weight, bias = (load(f"{layer}.{kind}" for layer in layers) for kind in ("weight", "bias"))
                assert weight is not None
                self.set_submodule(path, AdaptedLinears(self.config, module.sizes, weight, bias, generator))
            elif isinstance(module, (nn.Embedding, nn.RMSNorm)) or path == "lm_head":
                del module.weight
                module.register_buffer("weight", load([f"{path}.weight"]), persistent=False)

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
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> NetworkOutput:
        """Read a window of at most `context_size` tokens: see the base class."""
        raw, dropped = self.read_window(ids, dropout_generator, distributed)
        weight = self.output_weight
        logits = linear(dropped, weight if class_ids is None else weight[class_ids])
        return NetworkOutput(logits, [], raw, dropped)

    @property
    def output_weight(self) -> Tensor:
        """Matrix `[vocabulary, width]` of the output layer."""
        weight: Tensor = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return weight

    def read_window(
        self, ids: Tensor, dropout_generator: torch.Generator | None, distributed: DistributedContext
    ) -> tuple[Tensor, Tensor]:
        """Return the output `[time, batch, width]` of the last layer before and after dropout, without any logits."""
        raw = self._read(ids, dropout_generator, distributed)
        return raw, self._dropout(raw, self.config.output_dropout, dropout_generator, distributed)

    def _read(
        self, ids: Tensor, generator: torch.Generator | None = None, distributed: DistributedContext = SINGLE_PROCESS
    ) -> Tensor:
        """Return the normalized output `[time, batch, width]` of the last layer."""
        config = self.config
        embeddings = drop_tokens(self.model.embed_tokens.weight, config.embedding_dropout, generator)
        # Attention needs the batch first; dropout masks have the time first, as in the LSTM.
        vectors = nn.functional.embedding(ids, embeddings)
        vectors = self._dropout(vectors, config.input_dropout, generator, distributed).transpose(0, 1).contiguous()
        cosine, sine = (table[: len(ids)].to(vectors.dtype) for table in (self.rotation_cosine, self.rotation_sine))

        def drop(p: float, batch: Tensor) -> Tensor:
            if generator is None or not p:
                return batch
            return self._dropout(batch.transpose(0, 1), p, generator, distributed).transpose(0, 1)

        drop_added, drop_adapted = partial(drop, config.hidden_dropout), partial(drop, config.lora_dropout)
        for layer in self.model.layers:
            assert isinstance(layer, _Layer)
            attended = layer.self_attn(layer.input_layernorm(vectors), (cosine, sine), drop_adapted)
            vectors = vectors + drop_added(attended)
            vectors = vectors + drop_added(layer.mlp(layer.post_attention_layernorm(vectors), drop_adapted))
        output: Tensor = self.model.norm(vectors.transpose(0, 1).contiguous())
        return output

    def _dropout(
        self, vectors: Tensor, p: float, generator: torch.Generator | None, distributed: DistributedContext
    ) -> Tensor:
        return dropout(vectors, p, generator, distributed, variational=self.config.variational_dropout)

    @torch.no_grad()
    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Score a whole text; see `SequenceModel`.

        After a full window, the next one begins with its last `num_kept_tokens`, as in `NumpyTransformer`. So a window
        after the first one predicts only the tokens after these.
        """
        context = self.config.context_size
        num_reread = num_kept_tokens(context)
        inputs = np.append(np.int32(self.start_id), ids[:-1]).astype(np.int64)
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
                rows_at_once = max(1, MAX_SCORING_LOGITS // self.vocabulary_size)
                log_probs = [
                    torch.log_softmax(linear(rows, self.output_weight).float(), dim=-1).gather(-1, classes[:, None])
                    for rows, classes in zip(
                        torch.split(hidden, rows_at_once), torch.split(targets, rows_at_once), strict=True
                    )
                ]
                scores = torch.cat(log_probs).flatten().double().cpu().numpy()
                yield SequenceOutput(scores, hidden.float().cpu().numpy())

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
        return [group for group in groups if group]

    @torch.no_grad()
    def export_weights(self) -> dict[str, Float32Array]:
        """Return copies of all trained tensors by name, as `model.safetensors` or an adapter stores them."""
        return {
            _tensor_name(name): each.detach().float().cpu().numpy().copy() for name, each in self.named_parameters()
        }

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Float32Array]) -> None:
        """Copy the tensors that `export_weights` returned into this model."""
        for name, parameter in self.named_parameters():
            parameter.copy_(torch.from_numpy(weights[_tensor_name(name)]))

    def to_decoder(self, tokenizer: Tokenizer, weights: Mapping[str, Float32Array] | None = None) -> NumpyTransformer:
        """Return the model with `weights` (see the base class) for inference in numpy; an adapted one has 8 bits."""
        tensors: Mapping[str, StoredTensor] = self.export_weights() if weights is None else weights
        if self.base is not None:
            tensors = MergedWeights(self.config, self.base, tensors, int8=True)
        return NumpyTransformer(self.config, tokenizer, tensors)


def _tensor_name(parameter_name: str) -> str:
    """Return the name in Llama of a parameter: without the `Linears` that compute several matrices as one."""
    parts = parameter_name.split(".")
    return ".".join(part for part in parts if part not in ("qkv", "output", "gate_up", "down"))
