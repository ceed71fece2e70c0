"""A causal language model of transformers as a `LanguageModel`, also with attention where that can be read."""

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError
from engine.models.attention import AttentionRecord
from engine.models.base import EXCLUDED_LOG_PROB, HiddenVector, LogProbs
from engine.models.pretrained.chat import ChatTemplate
from engine.models.pretrained.reader import PretrainedState, TextReader, count_bytes
from engine.models.pretrained.tokenizer import PretrainedTokenizer
from engine.models.transformer_layout import num_kept_tokens

MAX_CHUNK_TOKENS = 512
"""Maximum number of tokens in one forward pass; a longer text needs more memory and is not faster."""
FINAL_NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "ln_out")
"""Names of the layer before the output layer, by family: Llama, GPT-2, GPT-NeoX and OPT, Phi, MPT, Falcon-H1, RWKV."""
TRIED_IDS = np.array([3, 7, 5], np.int32)


@dataclass(eq=False)
class PretrainedModel:
    """A causal language model of transformers as a `BatchModel` and `HiddenVectorModel`. Threads may share it.

    A text that fills the context slides: its last half is read again from position 0, and the next tokens after it. So
    a state depends only on the tokens read.
    """

    reader: TextReader
    tokenizer: PretrainedTokenizer
    name: str
    description: str
    context_size: int
    chat: ChatTemplate | None = None

    is_slow = True  # reading a token takes long enough to delay the keyboard, so screens call the model in a thread

    def start(self) -> PretrainedState:
        return self.reader.start()

    def advance(self, state: PretrainedState, token: int) -> tuple[LogProbs, PretrainedState]:
        rows, state = self.predict_tokens(state, (token,), last_only=True)
        return rows[0], state

    def advance_batch(
        self, states: Sequence[PretrainedState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, PretrainedState]]:
        """Read one token in each of several texts: in one pass if they have one length, and the cache can be shared."""
        lengths = {state.num_positions for state in states}
        if self.reader.caching != "crop" or len(lengths) > 1 or not 0 < min(lengths) < self.context_size:
            return [self.advance(state, token) for state, token in zip(states, tokens, strict=True)]
        with torch.inference_mode():
            ids = self.tokenizer.swapped_ids[list(tokens)]
            logits, new_states = self.reader.read(states, ids[:, None].tolist(), last_only=True)
            log_probs = self._log_probs(logits[:, -1])
        new_states = [new._replace(has_slid=state.has_slid) for new, state in zip(new_states, states, strict=True)]
        return list(zip(log_probs, new_states, strict=True))

    def predict_tokens(
        self, state: PretrainedState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, PretrainedState]:
        ids, parts = self.model_ids(state, tokens), list[Float32Array]()
        with torch.inference_mode():
            while ids:
                reread, has_slid = list[int](), state.has_slid
                if state.num_positions >= self.context_size:
                    first = state.num_positions - num_kept_tokens(self.context_size)
                    reread, state, has_slid = state.tokens[first:], self.start(), True
                num_new = min(self.context_size - state.num_positions - len(reread), MAX_CHUNK_TOKENS)
                new, ids = ids[:num_new], ids[num_new:]
                logits, (state,) = self.reader.read([state], [reread + new], last_only=last_only)
                state = state._replace(has_slid=has_slid)
                rows = self._log_probs(logits[0, -len(new) :])
                parts = [rows] if last_only else [*parts, rows]
        return parts[0] if len(parts) == 1 else np.concatenate(parts), state

    def model_ids(self, state: PretrainedState, tokens: Sequence[int]) -> list[int]:
        """Return the model's ids of `tokens`; `<eos>` at the start of a text is the token that starts a text."""
        ids: list[int] = self.tokenizer.swapped_ids[list(tokens)].tolist()
        if not state.num_positions and tokens[0] == EOS_ID:
            ids[0] = self.tokenizer.specials.start_id
        return ids

    def _log_probs(self, logits: Tensor) -> Float32Array:
        """Return log-probabilities `[rows, vocabulary]` of our tokens, given logits `[rows, model vocabulary]`."""
        log_probs = torch.log_softmax(logits[:, : len(self.tokenizer)].float(), -1)
        swapped = [EOS_ID, self.tokenizer.end_id]
        log_probs[:, swapped] = log_probs[:, swapped[::-1]]
        if self.tokenizer.other_end_ids:
            end_ids = [EOS_ID, *self.tokenizer.other_end_ids]
            ends = log_probs[:, end_ids].logsumexp(1)
            log_probs[:, end_ids] = EXCLUDED_LOG_PROB
            log_probs[:, EOS_ID] = ends
        rows: Float32Array = log_probs.cpu().numpy()
        return rows

    def hidden_vector(self, state: PretrainedState) -> HiddenVector:
        return state.hidden

    def state_memory(self, state: PretrainedState) -> tuple[int, int]:
        """Return the identity of the memory that `state` shares with others of its text, and its size in bytes."""
        return id(state.texts), count_bytes(state.texts.cache)

    def has_slid(self, state: PretrainedState) -> bool:
        return state.has_slid


@dataclass(eq=False)
class AttentionPretrainedModel(PretrainedModel):
    """A model by others as an `AttentionModel`; creating one fails if it has no attention or an unknown structure.

    A copy that shares the weights computes attention in the slower way that returns its weights.
    """

    def __post_init__(self) -> None:
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
        errors = record.weights.sum(-1) - 1, np.exp(self.layer_log_probs(record.layer_outputs[-1])) - np.exp(rows)
        if np.triu(record.weights, 1).any() or max(np.abs(error).max() for error in errors) > 0.02:
            raise ValueError("a model of unknown structure")

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        size = len(ids) + 1
        if size > self.context_size:
            limit = f"{self.name} can show {self.context_size:,} at most"
            raise InvalidInputError(f"attention of {size:,} positions: {limit}; shorten the text")
        # transformers normalizes the last of its vectors, so the vector after the last layer is taken before the norm.
        last: list[Tensor] = []
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
