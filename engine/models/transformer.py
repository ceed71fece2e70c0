"""The Transformer language model in PyTorch: decoder-only, in the layout of Llama (Touvron et al. 2023)."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.config import Config, ModelConfig
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset
from engine.data.tokenizers import EOS_ID, TokenIds, Tokenizer
from engine.models import torch_ops as ops
from engine.models import weights as layout
from engine.models.adapters import Adapter, lora_targets
from engine.models.base import SequenceOutput
from engine.models.numpy_transformer import NumpyTransformer
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.storage.tensor_file import StoredTensor, to_float32

if TYPE_CHECKING:  # most trainings need no tokenizers by others
    from engine.models.pretrained.base import Base

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


class _Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, size = config.embedding_size, layout.inner_size(config), layout.head_size(config)
        self.num_heads, self.num_kv_heads = config.num_heads, layout.num_kv_heads(config)
        units, kv_units = self.num_heads * size, self.num_kv_heads * size
        qkv = Linears(width, {"q_proj": units, "k_proj": kv_units, "v_proj": kv_units}, has_bias=config.qkv_bias)
        self.input_layernorm = nn.RMSNorm(width, config.norm_eps)
        self.self_attn = nn.ModuleDict({"qkv": qkv, "output": Linears(units, {"o_proj": width})})
        self.post_attention_layernorm = nn.RMSNorm(width, config.norm_eps)
        gate_up = Linears(width, {"gate_proj": inner, "up_proj": inner})
        self.mlp = nn.ModuleDict({"gate_up": gate_up, "down": Linears(inner, {"down_proj": width})})

    def forward(self, vectors: Tensor, rotation: tuple[Tensor, Tensor], drop: Drop, drop_adapted: Drop) -> Tensor:
        # Vectors are `[batch, time, width]`. Dropout is of what the layer adds, and of what adapters read.
        num_rotated = self.num_heads + self.num_kv_heads
        heads = self.self_attn["qkv"](ops.rms_norm(vectors, self.input_layernorm), drop_adapted)
        heads = heads.unflatten(-1, (num_rotated + self.num_kv_heads, -1))
        cosine, sine = (table.to(heads.dtype) for table in rotation)
        first, second = heads[:, :, :num_rotated].chunk(2, dim=-1)
        rotated = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
        queries, keys = rotated.tensor_split([self.num_heads], dim=2)
        attended = ops.causal_attention(queries, keys, heads[:, :, num_rotated:])
        vectors = vectors + drop(self.self_attn["output"](attended, drop_adapted))
        gate_up = self.mlp["gate_up"](ops.rms_norm(vectors, self.post_attention_layernorm), drop_adapted)
        gates, values = gate_up.chunk(2, dim=-1)  # SwiGLU (Shazeer 2020)
        return vectors + drop(self.mlp["down"](nn.functional.silu(gates) * values, drop_adapted))


class _Body(nn.Module):
    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.embedding_size, config.norm_eps)


class TransformerModel(nn.Module):
    """A Transformer that reads windows of at most `context_size` tokens, each independent of the window before.

    With a base, all weights are frozen, and the parameters are low-rank changes of the matrices (see `adapters`).
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
        self.config, self.vocabulary_size, self.base, self.punctuation_softmax = config, vocabulary_size, base, None
        self.start_id = EOS_ID  # token before the first one of a text that is scored
        self.checkpoints_gradients = False  # True: backward computes each layer again, whose outputs are not kept
        with torch.device("cpu" if base is None else "meta"):
            self.model = _Body(config, vocabulary_size)
            self.lm_head = None if config.tie_weights else nn.Linear(config.embedding_size, vocabulary_size, bias=False)
        angles = np.arange(config.context_size)[:, None, None] * layout.rotary_frequencies(config)
        for name, table in (("rotation_cosine", np.cos(angles)), ("rotation_sine", np.sin(angles))):
            self.register_buffer(name, torch.from_numpy(table.astype(np.float32)), persistent=False)
        if base is not None:
            self._freeze(base, base_dtype, generator)
            return
        # As in GPT-2: projections to the residual stream are smaller in models with more layers.
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = INIT_STD / math.sqrt(2 * config.num_layers) if is_residual else INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def build(
        cls,
        config: Config,
        dataset: Dataset,
        weights: ops.Weights | None = None,
        base: "Base | None" = None,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Build the network with `weights`, with `base` (which an adapter reads in `dtype`), or with random ones."""
        generator = torch.Generator().manual_seed(config.training.seed)
        frozen = base.weights if base is not None and config.model.lora_rank else None
        network = cls(config.model, len(dataset.tokenizer), generator, frozen, dtype)
        network.start_id = dataset.tokenizer.start_id
        if base is not None and frozen is None and weights is None:
            weights = {name: to_float32(tensor) for name, tensor in base.weights.items()}
        if weights is not None:
            network.load_weights(weights)
        return network

    def _freeze(self, base: Mapping[str, StoredTensor], dtype: torch.dtype, generator: torch.Generator) -> None:
        def load(*names: str) -> Tensor:
            return torch.cat([torch.tensor(to_float32(base[name]), dtype=dtype) for name in names])

        for path, module in list(self.named_modules()):
            if isinstance(module, Linears):
                layers = [f"{path.rpartition('.')[0]}.{name}" for name in module.sizes]
                bias = load(*(f"{layer}.bias" for layer in layers)) if f"{layers[0]}.bias" in base else None
                weight = load(*(f"{layer}.weight" for layer in layers))
                module.freeze(self.config, weight, bias, generator)
            elif isinstance(module, (nn.Embedding, nn.RMSNorm)) or path == "lm_head":
                del module.weight
                module.register_buffer("weight", load(f"{path}.weight"), persistent=False)

    def initial_state(self, batch_size: int) -> ops.RecurrentState:
        return []  # every window is read on its own

    def forward(
        self,
        ids: Tensor,
        state: ops.RecurrentState,
        generator: torch.Generator | None = None,
        class_ids: Tensor | None = None,
        punctuation: Tensor | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> ops.NetworkOutput:
        raw, dropped = self.read_window(ids, generator, distributed)
        logits = ops.linear(dropped, self.output_weight if class_ids is None else self.output_weight[class_ids])
        return ops.NetworkOutput(logits, [], raw, dropped)

    @property
    def output_weight(self) -> Tensor:
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def read_window(
        self, ids: Tensor, generator: torch.Generator | None, distributed: DistributedContext
    ) -> tuple[Tensor, Tensor]:
        """Return the output `[time, batch, width]` of the last layer before and after dropout, without any logits."""
        config = self.config
        drop = partial(
            ops.dropout, generator=generator, distributed=distributed, variational=config.variational_dropout
        )

        embeddings: Tensor = self.model.embed_tokens.weight
        if generator is not None and config.embedding_dropout:  # of random tokens in the whole window
            mask = ops.dropout_mask(embeddings, (len(embeddings), 1), config.embedding_dropout, generator)
            embeddings = embeddings * mask
        # Attention needs the batch first; dropout masks have the time first, as in the LSTM.
        vectors = drop(nn.functional.embedding(ids, embeddings), config.input_dropout).transpose(0, 1).contiguous()
        rotation = self.rotation_cosine[: len(ids)], self.rotation_sine[: len(ids)]

        def drop_batch(vectors: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
            return drop(vectors.transpose(0, 1), p, generator=generator).transpose(0, 1)

        def read_layer(vectors: Tensor, layer: nn.Module, generators: Iterator[torch.Generator | None]) -> Any:
            own, dropouts = next(generators), (config.hidden_dropout, config.lora_dropout)
            return layer(vectors, rotation, *(partial(drop_batch, p=p, generator=own) for p in dropouts))

        for layer in self.model.layers:
            if self.checkpoints_gradients and torch.is_grad_enabled():  # backward draws the same masks once more
                twice = iter((generator, generator and generator.clone_state()))
                vectors = checkpoint(read_layer, vectors, layer, twice, use_reentrant=False, preserve_rng_state=False)
            else:
                vectors = read_layer(vectors, layer, iter((generator,)))
        raw = ops.rms_norm(vectors.transpose(0, 1).contiguous(), self.model.norm)
        return raw, drop(raw, config.output_dropout)

    @torch.no_grad()
    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Score a whole text, several windows at once; each repeats the last `num_kept_tokens` of the one before."""
        context, device = self.config.context_size, self.rotation_cosine.device
        num_kept = layout.num_kept_tokens(context)
        tokens = torch.from_numpy(np.append(np.int32(self.start_id), ids).astype(np.int64))
        starts = [0, *range(context - num_kept, len(ids) - num_kept, context - num_kept)] if len(ids) else []
        num_windows = max(1, MAX_SCORING_LOGITS // (context * self.vocabulary_size))
        num_rows = max(1, MAX_SCORING_LOGITS // self.vocabulary_size)
        for group in (starts[first : first + num_windows] for first in range(0, len(starts), num_windows)):
            windows = nn.utils.rnn.pad_sequence([tokens[:-1][start : start + context] for start in group])
            raw, _ = self.read_window(windows.to(device), None, SINGLE_PROCESS)
            for column, start in enumerate(group):
                first = num_kept if start else 0
                targets = tokens[start + first + 1 : start + context + 1].to(device)
                hidden = raw[first : first + len(targets), column]
                for rows, classes in zip(torch.split(hidden, num_rows), torch.split(targets, num_rows), strict=True):
                    log_probs = ops.linear(rows, self.output_weight).float().log_softmax(-1)
                    scores = log_probs.gather(-1, classes[:, None]).flatten()
                    yield SequenceOutput(scores.double().cpu().numpy(), rows.float().cpu().numpy())

    def _named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        # As in Llama, without the `Linears` that compute several matrices as one.
        for name, parameter in self.named_parameters():
            parts = (part for part in name.split(".") if part not in ("qkv", "output", "gate_up", "down"))
            yield ".".join(parts), parameter

    @torch.no_grad()
    def export_weights(self) -> dict[str, Float32Array]:
        return {name: each.detach().float().cpu().numpy().copy() for name, each in self._named_tensors()}

    @torch.no_grad()
    def load_weights(self, weights: ops.Weights) -> None:
        for name, parameter in self._named_tensors():
            parameter.copy_(torch.from_numpy(weights[name]))

    def to_decoder(self, tokenizer: Tokenizer, weights: ops.Weights | None = None) -> NumpyTransformer:
        tensors = self.export_weights() if weights is None else weights
        if self.base is None:
            return NumpyTransformer(self.config, tokenizer, tensors)
        adapters = [Adapter("adapter", self.config, tensors)]
        return NumpyTransformer(self.config, tokenizer, self.base, int8=True, adapters=adapters)
