"""Attention and logit lens of models by others."""

import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError
from engine.models.attention import AttentionRecord
from engine.models.pretrained.model import PretrainedModel

FINAL_NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "ln_out")
"""Names of the layer before the output layer, by family: Llama, GPT-2, GPT-NeoX and OPT, Phi, MPT, Falcon-H1, RWKV."""
TRIED_IDS = np.array([3, 7, 5], np.int32)
MAX_DIFFERENCE = 0.02  # of a sum of weights from 1, and of a probability


class AttentionPretrainedModel(PretrainedModel):
    """A model by others as an `AttentionModel`; creating one fails if it has no attention or an unknown structure.

    A copy that shares the weights computes attention in the slower way that returns its weights.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        module, self._lock = self.reader.module, threading.Lock()
        shared = [*module.parameters(), *module.buffers()]
        self._copy = deepcopy(module, {id(tensor): tensor for tensor in shared})
        self._copy.set_attn_implementation("eager")
        body = getattr(self._copy, module.base_model_prefix)
        parts = (body, *body.children())
        norms = [getattr(part, name) for part in parts for name in FINAL_NORM_NAMES if hasattr(part, name)]
        self._final_norm = norms[0]
        record = self.record_attention(TRIED_IDS)
        rows, _ = self.predict_tokens(self.start(), [EOS_ID, *TRIED_IDS.tolist()])
        differences = np.exp(self.layer_log_probs(record.layer_outputs[-1])) - np.exp(rows), record.weights.sum(-1) - 1
        if np.triu(record.weights, 1).any() or max(np.abs(each).max() for each in differences) > MAX_DIFFERENCE:
            raise ValueError("a model of unknown structure")

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        size = len(ids) + 1
        if size > self.context_size:
            limit = f"{self.name} can show {self.context_size:,} at most"
            raise InvalidInputError(f"attention of {size:,} positions: {limit}; shorten the text")
        # transformers normalizes the last of its vectors, so the vector after the last layer is taken before the norm.
        last: list[torch.Tensor] = []
        options = {"output_attentions": True, "output_hidden_states": True}
        model_ids = self.model_ids(self.start(), [EOS_ID, *ids.tolist()])
        output = self._run(model_ids, lambda _, inputs: last.append(inputs[0]), **options)
        weights = torch.cat(output.attentions)
        vectors = torch.cat([*output.hidden_states[: len(weights)], last[-1].reshape(1, size, -1)])
        return AttentionRecord(weights.float().cpu().numpy(), vectors.float().cpu().numpy())

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        # They take the place of the vectors of some text, so that the model itself scales and bounds the logits.
        vectors = torch.from_numpy(np.ascontiguousarray(layer_outputs))
        output = self._run([0] * len(vectors), lambda _, inputs: vectors.to(inputs[0]).reshape(inputs[0].shape))
        return self._log_probs(output.logits[0])

    def _run(self, model_ids: list[int], hook: Callable[..., Any], **options: Any) -> Any:
        """Read tokens with a hook before the final norm."""
        with self._lock, torch.inference_mode():
            handle = self._final_norm.register_forward_pre_hook(hook)
            try:
                ids = torch.tensor([model_ids], device=self.reader.device)
                return self._copy(ids, use_cache=False, **options)
            finally:
                handle.remove()
