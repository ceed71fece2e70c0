"""The Transformer language model in PyTorch: decoder-only, in the layout of Llama (Touvron et al. 2023)."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import EOS_ID, TokenIds, Tokenizer
from engine.models import torch_ops as ops
from engine.models import transformer_layout as layout
from engine.models.adapter import MergedWeights, lora_targets
from engine.models.base import SequenceOutput
from engine.models.numpy_transformer import NumpyTransformer
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.storage.tensor_file import StoredTensor, to_float32

Drop = Callable[[Tensor], Tensor]  # of vectors `[batch, time, width]`
INIT_STD = 0.02  # as in GPT-2
MAX_SCORING_LOGITS = 2**23  # in memory at once


class Linears(nn.Module):
    """Linear layers by name that read the same vectors, computed as one product; their outputs stand side by side.

    Frozen ones are buffers outside of the state dict, with trained low-rank changes in float32 (Hu et al. 2021): the
    matrices A `[rank, inputs]` and B `[outputs, rank]`, named as in PEFT. Dropout applies to what the changes read.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, sizes: Mapping[str, int], *, has_bias: bool = False) -> None:
        super().__init__()
        self.sizes, self._is_frozen, self._scale = dict(sizes), False, 1.0
        for name, size in sizes.items():
            self.add_module(name, nn.Linear(in_features, size, has_bias))

    def freeze(self, config: ModelConfig, weight: Tensor, bias: Tensor | None, generator: torch.Generator) -> None:
        """Replace the layers by one frozen matrix, and add low-rank changes of the layers that `config` names."""
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self._is_frozen, self._scale = True, config.lora_alpha / config.lora_rank
        in_features, targets = weight.shape[1], lora_targets(config)
        for name, size in self.sizes.items():
            delattr(self, name)
            if name in targets:
                first = nn.Linear(in_features, config.lora_rank, bias=False)
                second = nn.Linear(config.lora_rank, size, bias=False)
                # The same as Kaiming-uniform initialization with a = √5, which PyTorch uses for linear layers.
                bound = 1 / math.sqrt(in_features)
                nn.init.uniform_(first.weight, -bound, bound, generator=generator)
                nn.init.zeros_(second.weight)
                self.add_module(name, nn.ModuleDict({"lora_A": first, "lora_B": second}))

    def forward(self, vectors: Tensor, drop: Drop) -> Tensor:
        layers: dict[str, Any] = dict(self.named_children())
        if not self._is_frozen:
            weights = [layer.weight for layer in layers.values()]
            biases = [layer.bias for layer in layers.values() if layer.bias is not None]
            if len(layers) == 1:
                return ops.linear(vectors, *weights, *biases)
            return ops.linear(vectors, torch.cat(weights), torch.cat(biases) if biases else None)
        outputs = nn.functional.linear(vectors, self.weight, self.bias)
        if not layers:
            return outputs
        first = torch.cat([change["lora_A"].weight for change in layers.values()]).to(vectors.dtype)
        blocks = [
            layers[name]["lora_B"].weight if name in layers else first.new_empty(size, 0, dtype=torch.float32)
            for name, size in self.sizes.items()
        ]
        second: Tensor = torch.block_diag(*blocks) * self._scale  # type: ignore[no-untyped-call]
        low_rank = nn.functional.linear(drop(vectors), first).flatten(0, -2)
        return torch.addmm(outputs.flatten(0, -2), low_rank, second.t().to(vectors.dtype)).view_as(outputs)


class _Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, layout.num_kv_heads(config)
        units, kv_units = self.num_heads * layout.head_size(config), self.num_kv_heads * layout.head_size(config)
        sizes = {"q_proj": units, "k_proj": kv_units, "v_proj": kv_units}
        self.qkv = Linears(config.embedding_size, sizes, has_bias=config.qkv_bias)
        self.output = Linears(units, {"o_proj": config.embedding_size})

    def forward(self, vectors: Tensor, rotation: tuple[Tensor, Tensor], drop: Drop) -> Tensor:
        num_rotated = self.num_heads + self.num_kv_heads
        heads = self.qkv(vectors, drop).unflatten(-1, (num_rotated + self.num_kv_heads, -1))
        rotated, values = ops.rotate(heads[:, :, :num_rotated], *rotation), heads[:, :, num_rotated:]
        attended = ops.causal_attention(rotated[:, :, : self.num_heads], rotated[:, :, self.num_heads :], values)
        return cast(Tensor, self.output(attended, drop))


class _FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.embedding_size, layout.inner_size(config)
        self.gate_up = Linears(width, {"gate_proj": inner, "up_proj": inner})
        self.down = Linears(inner, {"down_proj": width})

    def forward(self, vectors: Tensor, drop: Drop) -> Tensor:
        return cast(Tensor, self.down(ops.swiglu(self.gate_up(vectors, drop)), drop))


class _Norm(nn.RMSNorm):
    def forward(self, vectors: Tensor) -> Tensor:
        return ops.rms_norm(vectors, self.weight, cast(float, self.eps))


class _Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = _Norm(config.embedding_size, config.norm_eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = _Norm(config.embedding_size, config.norm_eps)
        self.mlp = _FeedForward(config)


class _Body(nn.Module):
    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.norm = _Norm(config.embedding_size, config.norm_eps)


class TransformerModel(nn.Module):
    """A Transformer that reads windows of at most `context_size` tokens, each independent of the window before.

    With a base, all weights are frozen, and the parameters are low-rank changes of the matrices (see `adapter`).
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
        """Draw the weights from `generator`; `base` is stored and multiplied in `base_dtype`."""
        super().__init__()
        self.punctuation_softmax = None
        layout.check_transformer_config(config)
        self.config, self.vocabulary_size, self.base = config, vocabulary_size, base
        self.start_id = EOS_ID  # token before the first one of a text that is scored
        with torch.device("cpu" if base is None else "meta"):
            self.model = _Body(config, vocabulary_size)
            self.lm_head = None if config.tie_weights else nn.Linear(config.embedding_size, vocabulary_size, bias=False)
        angles = np.arange(config.context_size)[:, None, None] * layout.rotary_frequencies(config)
        for name, table in (("rotation_cosine", np.cos(angles)), ("rotation_sine", np.sin(angles))):
            self.register_buffer(name, torch.from_numpy(table.astype(np.float32)), persistent=False)
        if base is None:
            self._init_weights(generator)
        else:
            self._freeze(base, base_dtype, generator)

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator) -> None:
        # As in GPT-2: projections to the residual stream are smaller in models with more layers.
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = INIT_STD / math.sqrt(2 * self.config.num_layers) if is_residual else INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def _freeze(self, base: Mapping[str, StoredTensor], dtype: torch.dtype, generator: torch.Generator) -> None:
        def load(*names: str) -> Tensor:
            return torch.cat([torch.tensor(to_float32(base[name]), dtype=dtype) for name in names])

        for path, module in list(self.named_modules()):
            if isinstance(module, Linears):
                layers = [f"{path.rpartition('.')[0]}.{name}" for name in module.sizes]
                has_bias = f"{layers[0]}.bias" in base
                bias = load(*(f"{layer}.bias" for layer in layers)) if has_bias else None
                weight = load(*(f"{layer}.weight" for layer in layers))
                module.freeze(self.config, weight, bias, generator)
            elif isinstance(module, (nn.Embedding, nn.RMSNorm)) or path == "lm_head":
                del module.weight
                module.register_buffer("weight", load(f"{path}.weight"), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.output_weight.device

    def initial_state(self, batch_size: int) -> ops.RecurrentState:
        return []  # every window is read on its own

    def forward(
        self,
        ids: Tensor,
        state: ops.RecurrentState,
        dropout_generator: torch.Generator | None = None,
        class_ids: Tensor | None = None,
        punctuation: Tensor | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> ops.NetworkOutput:
        raw, dropped = self.read_window(ids, dropout_generator, distributed)
        weight = self.output_weight
        logits = ops.linear(dropped, weight if class_ids is None else weight[class_ids])
        return ops.NetworkOutput(logits, [], raw, dropped)

    @property
    def output_weight(self) -> Tensor:
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def read_window(
        self, ids: Tensor, generator: torch.Generator | None, distributed: DistributedContext
    ) -> tuple[Tensor, Tensor]:
        """Return the output `[time, batch, width]` of the last layer before and after dropout, without any logits."""
        config, has_dropout = self.config, generator is not None

        def drop(p: float, vectors: Tensor) -> Tensor:
            return ops.dropout(vectors, p, generator, distributed, variational=config.variational_dropout)

        def drop_batch(p: float, vectors: Tensor) -> Tensor:
            return drop(p, vectors.transpose(0, 1)).transpose(0, 1) if has_dropout and p else vectors

        embeddings = ops.drop_tokens(self.model.embed_tokens.weight, config.embedding_dropout, generator)
        # Attention needs the batch first; dropout masks have the time first, as in the LSTM.
        vectors = drop(config.input_dropout, nn.functional.embedding(ids, embeddings)).transpose(0, 1).contiguous()
        rotation = self.rotation_cosine[: len(ids)], self.rotation_sine[: len(ids)]
        drop_added, drop_adapted = partial(drop_batch, config.hidden_dropout), partial(drop_batch, config.lora_dropout)
        for layer in self.model.layers:
            assert isinstance(layer, _Layer)
            attended = layer.self_attn(layer.input_layernorm(vectors), rotation, drop_adapted)
            vectors = vectors + drop_added(attended)
            vectors = vectors + drop_added(layer.mlp(layer.post_attention_layernorm(vectors), drop_adapted))
        raw = self.model.norm(vectors.transpose(0, 1).contiguous())
        return raw, drop(config.output_dropout, raw)

    @torch.no_grad()
    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Score a whole text, several windows at once; each repeats the last `num_kept_tokens` of the one before."""
        context, num_kept = self.config.context_size, layout.num_kept_tokens(self.config.context_size)
        tokens = torch.from_numpy(np.append(np.int32(self.start_id), ids).astype(np.int64))
        starts = [0, *range(context - num_kept, len(ids) - num_kept, context - num_kept)] if len(ids) else []
        num_windows = max(1, MAX_SCORING_LOGITS // (context * self.vocabulary_size))
        num_rows = max(1, MAX_SCORING_LOGITS // self.vocabulary_size)
        for group in (starts[first : first + num_windows] for first in range(0, len(starts), num_windows)):
            windows = nn.utils.rnn.pad_sequence([tokens[:-1][start : start + context] for start in group])
            raw, _ = self.read_window(windows.to(self.device), None, SINGLE_PROCESS)
            for column, start in enumerate(group):
                first = num_kept if start else 0
                targets = tokens[start + first + 1 : start + context + 1].to(self.device)
                hidden = raw[first : first + len(targets), column]
                scores = [
                    torch.log_softmax(ops.linear(rows, self.output_weight).float(), dim=-1).gather(-1, classes[:, None])
                    for rows, classes in zip(torch.split(hidden, num_rows), torch.split(targets, num_rows), strict=True)
                ]
                log_probs = torch.cat(scores).flatten().double().cpu().numpy()
                yield SequenceOutput(log_probs, hidden.float().cpu().numpy())

    def layer_groups(self) -> list[ops.LayerGroup]:
        num_layers = self.config.num_layers
        groups: list[ops.LayerGroup] = [{} for _ in range(num_layers + 1)]
        for name, parameter in self.named_parameters():
            parts = name.split(".")
            groups[num_layers - int(parts[2]) if parts[1] == "layers" else 0][name] = parameter
        return [group for group in groups if group]

    def _named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        # As in Llama, without the `Linears` that compute several matrices as one.
        for name, parameter in self.named_parameters():
            parts = (part for part in name.split(".") if part not in ("qkv", "output", "gate_up", "down"))
            yield ".".join(parts), parameter

    @torch.no_grad()
    def export_weights(self) -> dict[str, Float32Array]:
        return {name: each.detach().float().cpu().numpy().copy() for name, each in self._named_tensors()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Float32Array]) -> None:
        for name, parameter in self._named_tensors():
            parameter.copy_(torch.from_numpy(weights[name]))

    def to_decoder(self, tokenizer: Tokenizer, weights: Mapping[str, Float32Array] | None = None) -> NumpyTransformer:
        tensors: Mapping[str, StoredTensor] = self.export_weights() if weights is None else weights
        if self.base is not None:
            tensors = MergedWeights(self.config, self.base, tensors, int8=True)
        return NumpyTransformer(self.config, tokenizer, tensors)
