"""Attention and logit lens of models by others."""

import threading
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError
from engine.models.attention import AttentionRecord
from engine.models.pretrained.chat import ChatTemplate
from engine.models.pretrained.contexts import ContextReader
from engine.models.pretrained.forward import CausalForward
from engine.models.pretrained.model import PretrainedInfo, PretrainedModel
from engine.models.pretrained.probe import is_close
from engine.models.pretrained.tokenizer import PretrainedTokenizer

MAX_RECORD_BYTES = 1_000_000_000
"""Maximum memory of the attention weights of one text."""
FINAL_NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "ln_out")
"""Names of the layer before the output layer, by family: Llama, GPT-2, GPT-NeoX and OPT, Phi, MPT, Falcon-H1, RWKV."""


@dataclass(frozen=True)
class OutputHead:
    """The end of a model: from the vector after the last layer to the logits."""

    norm: nn.Module
    output_layer: nn.Module
    scale: float = 1.0
    """Factor of the logits, as in Cohere and Granite."""
    softcap: float | None = None
    """Bound of the logits, as in Gemma 2."""

    def logits(self, vectors: Tensor) -> Tensor:
        """Return the logits `[rows, vocabulary]` of vectors `[rows, width]` after the last layer."""
        logits: Tensor = self.output_layer(self.norm(vectors)) * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


class AttentionRecorder:
    """A copy of a model that shares its weights, and computes attention in the way that returns the weights.

    The model itself keeps the fast attention, also while another thread records.
    """

    def __init__(self, forward: CausalForward) -> None:
        """Copy the model. A model without a known structure raises a ValueError."""
        tensors = [*forward.module.parameters(), *forward.module.buffers()]
        # Hooks of the model refer to its `CausalForward`, which is not copied; the copy gets its own.
        module = deepcopy(forward.module, {id(shared): shared for shared in [*tensors, forward]})
        for part in module.modules():
            part._forward_pre_hooks.clear()
            for config in (getattr(part, "config", None), getattr(getattr(part, "config", None), "text_config", None)):
                if config is not None:
                    config._attn_implementation = "eager"
        self._forward = CausalForward(module)
        self.head = find_output_head(module)
        self._lock = threading.Lock()

    def record(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read `ids` `[1, positions]`.

        Returns:
            Attention weights `[layers, heads, positions, positions]`; the vectors `[layers + 1, positions, width]`
            before the first layer and after each layer; and the logits `[positions, vocabulary]`.
        """
        last: list[Tensor] = []
        with self._lock:
            hook = self.head.norm.register_forward_pre_hook(lambda module, arguments: last.append(arguments[0]))
            try:
                output = self._forward.module(ids, output_attentions=True, output_hidden_states=True, use_cache=False)
            finally:
                hook.remove()
        weights: list[Tensor | None] = list(output.attentions or [])
        if not weights or any(layer is None or layer.shape[-1] != ids.shape[1] for layer in weights):
            raise ValueError("the model returns no attention weights")
        # transformers normalizes the last of its vectors, so the vector after the last layer is taken before the norm.
        vectors = [*output.hidden_states[: len(weights)], last[-1].reshape(1, ids.shape[1], -1)]
        return torch.cat([layer for layer in weights if layer is not None]), torch.cat(vectors), output.logits[0]


def find_output_head(module: nn.Module) -> OutputHead:
    """Return the final norm and the output layer of a model of transformers; a ValueError if there are none."""
    output_layer = module.get_output_embeddings()  # type: ignore[operator]
    if output_layer is None:
        raise ValueError("no output layer")
    config: Any = module.config
    body = getattr(module, module.base_model_prefix, None)  # type: ignore[call-overload]
    for part in (body, getattr(body, "decoder", None), getattr(body, "language_model", None)):
        for name in FINAL_NORM_NAMES:
            norm = getattr(part, name, None)
            if isinstance(norm, nn.Module):
                return OutputHead(norm, output_layer, _logit_scale(config), _softcap(config))
    raise ValueError("no final norm")


def _logit_scale(config: Any) -> float:
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        return 1 / float(divisor)
    return float(getattr(config, "logit_scale", None) or 1.0)


def _softcap(config: Any) -> float | None:
    softcap = getattr(config, "final_logit_softcapping", None)
    return None if softcap is None else float(softcap)


class AttentionPretrainedModel(PretrainedModel):
    """A model by others whose attention and layers can be recorded."""

    def __init__(
        self,
        forward: CausalForward,
        reader: ContextReader,
        tokenizer: PretrainedTokenizer,
        info: PretrainedInfo,
        chat: ChatTemplate | None = None,
        *,
        reads_ragged_batches: bool = False,
        recorder: AttentionRecorder,
    ) -> None:
        """Create a model whose attention `recorder` records; see `PretrainedModel` for the other arguments."""
        super().__init__(forward, reader, tokenizer, info, chat, reads_ragged_batches=reads_ragged_batches)
        self._recorder = recorder
        config: Any = forward.module.config
        self._bytes_per_pair = 4 * config.num_hidden_layers * config.num_attention_heads
        """Bytes of the attention weights of one pair of positions."""

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        """Read the start of a text and then `ids` `[time]`, and record all `time + 1` positions.

        Raises:
            InvalidInputError: If the positions do not fit into the context, or the record into memory.
        """
        size = len(ids) + 1
        max_size = min(self.context_size, int((MAX_RECORD_BYTES / self._bytes_per_pair) ** 0.5))
        if size > max_size:
            raise InvalidInputError(
                f"attention of {size:,} positions: {self.name} can show {max_size:,} at most; shorten the text"
            )
        model_ids = self._model_ids(self.start(), [EOS_ID, *ids.tolist()])
        with torch.inference_mode():
            weights, vectors, _ = self._recorder.record(self._forward.to_ids([model_ids]))
            return AttentionRecord(_to_numpy(weights), _to_numpy(vectors))

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        """Return the log-probabilities `[rows, vocabulary]` that the output layer computes from layer outputs."""
        dtype = next(self._forward.module.parameters()).dtype
        with torch.inference_mode():
            vectors = torch.from_numpy(np.ascontiguousarray(layer_outputs)).to(self._forward.device, dtype)
            return _to_numpy(self._log_probs(self._recorder.head.logits(vectors)))


def find_recorder(forward: CausalForward, vocabulary_size: int) -> AttentionRecorder | None:
    """Return a recorder of a model's attention, or None if the model has no attention or an unknown structure.

    The recorder is tried on some tokens: its weights sum to 1, and its last vectors lead to the logits.
    """
    ids = forward.to_ids([[id % vocabulary_size for id in (3, 7, 5, 11)]])
    try:
        with torch.inference_mode():
            recorder = AttentionRecorder(forward)
            weights, vectors, logits = recorder.record(ids)
            sums = weights.float().sum(-1)
            is_causal = not bool(weights.triu(1).any())
            is_right = is_close(recorder.head.logits(vectors[-1]), logits)
    except Exception:  # models of unknown structure raise anything
        return None
    return recorder if is_right and is_causal and bool((sums - 1).abs().max() < 0.02) else None


def _to_numpy(tensor: Tensor) -> Float32Array:
    array: Float32Array = tensor.float().cpu().numpy()
    return array
