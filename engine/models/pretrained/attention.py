"""Attention and logit lens of models by others."""

import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError
from engine.models.attention import AttentionRecord
from engine.models.pretrained.model import PretrainedModel
from engine.models.pretrained.probe import is_close

MAX_RECORD_BYTES = 1_000_000_000
"""Maximum memory of the attention weights of one text."""
FINAL_NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "ln_out")
"""Names of the layer before the output layer, by family: Llama, GPT-2, GPT-NeoX and OPT, Phi, MPT, Falcon-H1, RWKV."""


class AttentionRecorder:
    """A copy of a model that shares its weights, and computes attention in the way that returns the weights.

    The model itself keeps the fast attention, also while another thread records.
    """

    def __init__(self, module: Any) -> None:
        shared = [*module.parameters(), *module.buffers()]
        self._module = deepcopy(module, {id(tensor): tensor for tensor in shared})
        self._module.set_attn_implementation("eager")
        self._final_norm = _find_final_norm(self._module)
        self._lock = threading.Lock()

    def record(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read `ids` `[1, positions]`.

        Returns:
            Attention weights `[layers, heads, positions, positions]`; the vectors `[layers + 1, positions, width]`
            before the first layer and after each layer; and the logits `[positions, vocabulary]`.
        """
        # transformers normalizes the last of its vectors, so the vector after the last layer is taken before the norm.
        last: list[Tensor] = []
        output = self._run(ids, lambda _, inputs: last.append(inputs[0]), output_attentions=True)
        weights = torch.cat(output.attentions)
        return (
            weights,
            torch.cat([*output.hidden_states[: len(weights)], last[-1].reshape(1, ids.shape[1], -1)]),
            output.logits[0],
        )

    def logits(self, vectors: Tensor) -> Tensor:
        """Return the logits `[rows, vocabulary]` of vectors `[rows, width]` after the last layer.

        They take the place of the vectors of some text, so that the model itself scales and bounds the logits.
        """
        ids = torch.zeros(1, len(vectors), dtype=torch.long, device=vectors.device)
        logits: Tensor = self._run(ids, lambda _, inputs: vectors.to(inputs[0].dtype).reshape(inputs[0].shape)).logits[
            0
        ]
        return logits

    def _run(self, ids: Tensor, hook: Callable[..., Any], **options: Any) -> Any:
        """Read `ids` with a hook on what the final norm reads."""
        with self._lock:
            handle = self._final_norm.register_forward_pre_hook(hook)
            try:
                return self._module(ids, use_cache=False, output_hidden_states=True, **options)
            finally:
                handle.remove()


def _find_final_norm(module: Any) -> nn.Module:
    body = getattr(module, module.base_model_prefix, None)
    for part in (body, getattr(body, "decoder", None), getattr(body, "language_model", None)):
        for name in FINAL_NORM_NAMES:
            if isinstance(norm := getattr(part, name, None), nn.Module):
                return norm
    raise ValueError("no final norm")


def find_recorder(module: nn.Module, vocabulary_size: int) -> AttentionRecorder | None:
    """Return a recorder of a model's attention, or None if the model has no attention or an unknown structure.

    The recorder is tried on some tokens: its weights sum to 1, and its last vectors lead to the logits.
    """
    ids = torch.tensor([[id % vocabulary_size for id in (3, 7, 5, 11)]], device=next(module.parameters()).device)
    try:
        with torch.inference_mode():
            recorder = AttentionRecorder(module)
            weights, vectors, logits = recorder.record(ids)
            is_normal = bool((weights.float().sum(-1) - 1).abs().max() < 0.02) and not bool(weights.triu(1).any())
            is_usable = (
                is_normal and weights.shape[-1] == ids.shape[1] and is_close(recorder.logits(vectors[-1]), logits)
            )
    except Exception:  # models of unknown structure raise anything
        return None
    return recorder if is_usable else None


class AttentionPretrainedModel(PretrainedModel):
    """A model by others whose attention and layers `recorder` records; see `PretrainedModel` for other arguments."""

    def __init__(self, recorder: AttentionRecorder, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recorder = recorder

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        """Read the start of a text and then `ids` `[time]`, and record all `time + 1` positions.

        Raises:
            InvalidInputError: If the positions do not fit into the context, or the record into memory.
        """
        config: Any = self.reader.module.config
        pair_bytes = 4 * config.num_hidden_layers * config.num_attention_heads
        size, max_size = len(ids) + 1, min(self.context_size, int((MAX_RECORD_BYTES / pair_bytes) ** 0.5))
        if size > max_size:
            raise InvalidInputError(
                f"attention of {size:,} positions: {self.name} can show {max_size:,} at most; shorten the text"
            )
        model_ids = torch.tensor([self.model_ids(self.start(), [EOS_ID, *ids.tolist()])], device=self.reader.device)
        with torch.inference_mode():
            weights, vectors, _ = self._recorder.record(model_ids)
            return AttentionRecord(weights.float().cpu().numpy(), vectors.float().cpu().numpy())

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        with torch.inference_mode():
            vectors = torch.from_numpy(np.ascontiguousarray(layer_outputs)).to(self.reader.device)
            return self._log_probs(self._recorder.logits(vectors))
