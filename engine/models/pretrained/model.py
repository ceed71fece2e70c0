"""A causal language model of transformers as a `LanguageModel`. This module imports transformers."""

import inspect
import threading
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers.base import EOS_ID
from engine.models.base import HiddenVector, LogProbs
from engine.models.numpy_transformer import merge_ends
from engine.models.pretrained.chat import ChatTemplate
from engine.models.pretrained.tokenizer import PretrainedTokenizer
from engine.models.transformer_layout import num_kept_tokens

MAX_CHUNK_TOKENS = 512  # in one forward pass; more need more memory and are not faster
MAX_DIFFERENCE, MAX_HALF_PRECISION_DIFFERENCE = 5e-4, 0.5  # of log-probabilities that are computed in two ways


class ReadTexts:
    # Texts of one length that were read together, one row per text, and their cache. Their states share this.
    def __init__(self, tokens: Int64Array, cache: DynamicCache) -> None:
        self.tokens = tokens  # `[texts, positions]`
        self.cache = cache


class PretrainedState(NamedTuple):
    texts: ReadTexts
    row: int = 0
    num_positions: int = 0
    hidden: HiddenVector = np.empty(0, np.float32)  # the next token is predicted from it
    has_slid: bool = False  # True if the start of the text has left the context

    @property
    def tokens(self) -> list[int]:
        # The model's ids of the tokens in the context.
        ids: list[int] = self.texts.tokens[self.row, : self.num_positions].tolist()
        return ids


class PretrainedModel:
    """A causal language model of transformers as a `BatchModel` and `HiddenVectorModel`. Threads may share it.

    A text that fills the context slides: its last half is read again from position 0. Recurrent models have no cache
    that can be cropped: each token is predicted from the whole text.
    """

    is_slow = True  # reading a token takes long enough to delay the keyboard, so screens call the model in a thread

    def __init__(
        self,
        module: Any,
        tokenizer: PretrainedTokenizer,
        name: str,
        description: str,
        context_size: int,
        chat: ChatTemplate | None = None,
    ) -> None:
        self.module, self.tokenizer, self.name, self.description = module, tokenizer, name, description
        self.context_size, self.chat = context_size, chat
        self._device = next(module.parameters()).device
        arguments = inspect.signature(module.forward).parameters
        self._cache_name = "cache" if "cache" in arguments else "past_key_values"  # in newer and older versions
        self._can_limit_logits = "logits_to_keep" in arguments
        self._lock = threading.Lock()
        self._observed = observed = threading.local()
        if (output_layer := module.get_output_embeddings()) is not None:
            output_layer.register_forward_pre_hook(lambda _, inputs: setattr(observed, "vectors", inputs[0]))
        self.has_cache = True
        try:
            with torch.inference_mode():
                self.has_cache = self._reads_correctly()
        except Exception:  # a model raises anything for a cache of another kind
            self.has_cache = False

    def start(self) -> PretrainedState:
        return PretrainedState(ReadTexts(np.empty((1, 0), np.int64), DynamicCache()))

    def advance(self, state: PretrainedState, token: int) -> tuple[LogProbs, PretrainedState]:
        rows, state = self.predict_tokens(state, (token,), last_only=True)
        return rows[0], state

    def advance_batch(
        self, states: Sequence[PretrainedState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, PretrainedState]]:
        # In one pass if the texts have one length, and the cache can be shared.
        lengths = {state.num_positions for state in states}
        if not self.has_cache or len(lengths) > 1 or not 0 < min(lengths) < self.context_size:
            return [self.advance(state, token) for state, token in zip(states, tokens, strict=True)]
        with torch.inference_mode():
            ids = self.tokenizer.swapped_ids[list(tokens)]
            logits, new_states = self._read(states, ids[:, None].tolist(), last_only=True)
            log_probs = self._log_probs(logits[:, -1])
        new_states = [new._replace(has_slid=state.has_slid) for new, state in zip(new_states, states, strict=True)]
        return list(zip(log_probs, new_states, strict=True))

    def predict_tokens(
        self, state: PretrainedState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, PretrainedState]:
        ids: list[int] = self.tokenizer.swapped_ids[list(tokens)].tolist()
        if not state.num_positions and tokens[0] == EOS_ID:
            ids[0] = self.tokenizer.specials.start_id
        parts = list[Float32Array]()
        with torch.inference_mode():
            while ids:
                reread, has_slid = list[int](), state.has_slid
                if state.num_positions >= self.context_size:
                    first = state.num_positions - num_kept_tokens(self.context_size)
                    reread, state, has_slid = state.tokens[first:], self.start(), True
                num_new = min(self.context_size - state.num_positions - len(reread), MAX_CHUNK_TOKENS)
                new, ids = ids[:num_new], ids[num_new:]
                logits, (state,) = self._read([state], [reread + new], last_only=last_only)
                state = state._replace(has_slid=has_slid)
                rows = self._log_probs(logits[0, -len(new) :])
                parts = [rows] if last_only else [*parts, rows]
        return parts[0] if len(parts) == 1 else np.concatenate(parts), state

    def hidden_vector(self, state: PretrainedState) -> HiddenVector:
        return state.hidden

    def state_memory(self, state: PretrainedState) -> tuple[int, int]:
        layers: list[Any] = state.texts.cache.layers
        return id(state.texts), sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    def has_slid(self, state: PretrainedState) -> bool:
        return state.has_slid

    def _read(
        self, states: Sequence[PretrainedState], tokens: list[list[int]], *, last_only: bool
    ) -> tuple[Tensor, list[PretrainedState]]:
        # Logits `[texts, time, vocabulary]` of tokens `[texts][time]` after texts of one length, and the new states.
        texts, num_read, new = _join(states), states[0].num_positions, np.array(tokens, np.int64)
        read, cache = np.concatenate([texts.tokens[:, :num_read], new], 1), texts.cache
        options: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._can_limit_logits else {}
        if self.has_cache:
            options[self._cache_name] = cache = _crop(cache, num_read)
        ids, self._observed.vectors = torch.from_numpy(new if self.has_cache else read).to(self._device), None
        logits = self.module(ids, use_cache=self.has_cache, **options).logits
        vectors, self._observed.vectors = self._observed.vectors, None
        hidden = np.empty((len(new), 0), np.float32) if vectors is None else vectors[:, -1].float().cpu().numpy()
        with self._lock:
            if texts.tokens.shape[1] == num_read:
                texts.tokens, texts.cache = read, cache
            else:
                texts = ReadTexts(read, cache)
        new_states = [PretrainedState(texts, row, read.shape[1], vector) for row, vector in enumerate(hidden)]
        return logits[:, -1 if last_only else -new.shape[1] :], new_states

    def _log_probs(self, logits: Tensor) -> Float32Array:
        # Log-probabilities `[rows, vocabulary]` of our tokens, given logits `[rows, model vocabulary]`.
        log_probs: Float32Array = torch.log_softmax(logits[:, : len(self.tokenizer)].float(), -1).cpu().numpy()
        swapped = [EOS_ID, self.tokenizer.end_id]
        log_probs[:, swapped] = log_probs[:, swapped[::-1]]
        return merge_ends(log_probs, self.tokenizer)

    def _reads_correctly(self) -> bool:
        # True if distributions are right after one token, several tokens, a branch, and in a batch.
        def is_right(state: PretrainedState, new: list[int]) -> bool:
            logits, _ = self._read([state], [new], last_only=False)
            expected = self.module(torch.tensor([[*state.tokens, *new]], device=self._device), use_cache=False).logits
            rows = [torch.log_softmax(each[0, -len(new) :].float(), -1) for each in (logits, expected)]
            limit = MAX_DIFFERENCE if logits.dtype == torch.float32 else MAX_HALF_PRECISION_DIFFERENCE
            return bool((rows[0] - rows[1]).abs().max() <= limit)

        ids = [id % len(self.tokenizer) for id in range(5, 47, 7)]
        branch = ids[4:] + ids[:1]
        _, (start,) = self._read([self.start()], [ids[:3]], last_only=True)
        _, (middle,) = self._read([start], [ids[3:4]], last_only=True)
        _, (other,) = self._read([start], [branch[:1]], last_only=True)
        _, (middle, other) = self._read([middle, other], [ids[4:5], branch[1:2]], last_only=True)
        return is_right(middle, ids[5:]) and is_right(start, branch) and is_right(other, branch[2:])


def _join(states: Sequence[PretrainedState]) -> ReadTexts:
    # Texts that begin with those of `states`, in this order.
    texts, num_read = states[0].texts, states[0].num_positions
    if [(state.texts, state.row) for state in states] == [(texts, row) for row in range(len(texts.tokens))]:
        return texts
    caches = [_crop(state.texts.cache, num_read) for state in states]
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        keys = [layer.keys[state.row] for layer, state in zip(layers, states, strict=True)]
        values = [layer.values[state.row] for layer, state in zip(layers, states, strict=True)]
        layers[0].keys, layers[0].values = torch.stack(keys), torch.stack(values)
    return ReadTexts(np.stack([state.texts.tokens[state.row, :num_read] for state in states]), caches[0])


def _crop(cache: DynamicCache, num_positions: int) -> DynamicCache:
    # It shares memory until a pass appends to it, which makes new tensors.
    cropped = copy(cache)
    cropped.layers = [copy(layer) for layer in cache.layers]
    if num_excess := cache.get_seq_length() - num_positions:
        cropped.crop(-num_excess)
    return cropped
