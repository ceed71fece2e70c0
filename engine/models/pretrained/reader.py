"""Reading of texts with a model of transformers, and the fastest way to keep them. This module imports transformers."""

import inspect
import threading
from collections.abc import Sequence
from copy import copy, deepcopy
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from engine.data.arrays import Int64Array
from engine.models.base import HiddenVector

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""Names of the argument and of the output that hold the cache."""
Caching = Literal["crop", "step", "none"]
"""Use of a model's cache. crop: the states of a text share a `DynamicCache`, of which a branch crops a copy. step: each
state has a copy of a cache of another kind, which reads one token per pass, as recurrent models need. none: each state
reads all tokens again."""
MAX_DIFFERENCE, MAX_HALF_PRECISION_DIFFERENCE = 5e-4, 0.5
"""Maximum difference between log-probabilities that are computed in two ways, in single and in half precision."""


class ReadTexts:
    """Texts of one length that were read together, one row per text, and their cache. Their states share this."""

    def __init__(self, tokens: Int64Array, cache: Any) -> None:
        self.tokens = tokens  # `[texts, positions]`
        self.cache = cache


class PretrainedState(NamedTuple):
    """The first positions of a text that a model by others has read. An immutable value: it is a branch point."""

    texts: ReadTexts
    row: int = 0
    num_positions: int = 0
    hidden: HiddenVector = np.empty(0, np.float32)  # the next token is predicted from it
    has_slid: bool = False  # True if the start of the text has left the context

    @property
    def tokens(self) -> list[int]:
        """The model's ids of the tokens in the context."""
        ids: list[int] = self.texts.tokens[self.row, : self.num_positions].tolist()
        return ids


class TextReader:
    """A causal language model of transformers that reads texts. Threads may share it."""

    def __init__(self, module: Any, caching: Caching = "crop") -> None:
        self.module, self.caching = module, caching
        self.device = next(module.parameters()).device
        arguments = inspect.signature(module.forward).parameters
        self._cache_name = next((name for name in CACHE_NAMES if name in arguments), "")
        self._can_limit_logits = "logits_to_keep" in arguments
        self._lock = threading.Lock()
        self._observed = observed = threading.local()
        if (output_layer := module.get_output_embeddings()) is not None:
            output_layer.register_forward_pre_hook(lambda _, inputs: setattr(observed, "vectors", inputs[0]))

    def start(self) -> PretrainedState:
        cache = DynamicCache() if self.caching == "crop" else None
        return PretrainedState(ReadTexts(np.empty((1, 0), np.int64), cache))

    def read(
        self, states: Sequence[PretrainedState], tokens: list[list[int]], *, last_only: bool
    ) -> tuple[Tensor, list[PretrainedState]]:
        """Read tokens `[texts][time]` after texts of one length: several ones only where `caching` is "crop".

        Returns:
            Logits `[texts, time, vocabulary]`, or `[texts, 1, vocabulary]` with `last_only`, and the new states.
        """
        texts, num_read, new = self._join(states), states[0].num_positions, np.array(tokens, np.int64)
        read = np.concatenate([texts.tokens[:, :num_read], new], 1)
        cache = _crop(texts.cache, num_read) if self.caching == "crop" else deepcopy(texts.cache)
        parts = [read if self.caching == "none" else new]
        if self.caching == "step" and num_read:
            parts = np.split(new, new.shape[1], 1)
        logits: list[Tensor] = []
        for part in parts:
            options = {} if cache is None else {self._cache_name: cache}
            if last_only and self._can_limit_logits:
                options["logits_to_keep"] = 1
            ids, self._observed.vectors = torch.from_numpy(part).to(self.device), None
            output = self.module(ids, use_cache=self.caching != "none", **options)
            cache = next((kept for name in CACHE_NAMES if (kept := getattr(output, name, None)) is not None), None)
            logits.append(output.logits)
        vectors, self._observed.vectors = self._observed.vectors, None
        hidden = np.empty((len(new), 0), np.float32) if vectors is None else vectors[:, -1].float().cpu().numpy()
        with self._lock:
            if self.caching != "step" and texts.tokens.shape[1] == num_read:
                texts.tokens, texts.cache = read, cache
            else:
                texts = ReadTexts(read, cache)
        new_states = [PretrainedState(texts, row, read.shape[1], vector) for row, vector in enumerate(hidden)]
        joined = logits[-1] if last_only or len(logits) == 1 else torch.cat(logits, 1)
        return joined[:, -1:] if last_only else joined[:, -new.shape[1] :], new_states

    def _join(self, states: Sequence[PretrainedState]) -> ReadTexts:
        """Return texts that begin with those of `states`, in this order."""
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
    """Return the first positions of a cache. It shares memory until a pass appends to it, which makes new tensors."""
    cropped = copy(cache)
    cropped.layers = [copy(layer) for layer in cache.layers]
    if num_excess := cache.get_seq_length() - num_positions:
        cropped.crop(-num_excess)
    return cropped


def count_bytes(value: Any) -> int:
    """Return the bytes of the tensors in a cache of transformers."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict | list | tuple):
        return sum(map(count_bytes, value.values() if isinstance(value, dict) else value))
    return 0 if isinstance(value, type) else count_bytes(getattr(value, "__dict__", ()))


def choose_reader(module: Any, vocabulary_size: int) -> TextReader:
    """Return a reader that keeps texts in the fastest way that computes what the model computes without a cache."""
    reader, ids = TextReader(module), [id % vocabulary_size for id in range(5, 47, 7)]
    for caching in get_args(Caching):
        reader.caching = caching
        try:
            with torch.inference_mode():
                if _reads_correctly(reader, ids):
                    break
        except Exception:  # a model raises anything for a cache of another kind
            continue
    return reader


def _reads_correctly(reader: TextReader, ids: list[int]) -> bool:
    """Return True if distributions are right after one token, several tokens, a branch, and in a batch."""

    def is_right(state: PretrainedState, new: list[int]) -> bool:
        logits, _ = reader.read([state], [new], last_only=False)
        expected = reader.module(torch.tensor([[*state.tokens, *new]], device=reader.device), use_cache=False).logits
        rows = [torch.log_softmax(each[0, -len(new) :].float(), -1) for each in (logits, expected)]
        limit = MAX_DIFFERENCE if logits.dtype == torch.float32 else MAX_HALF_PRECISION_DIFFERENCE
        return bool((rows[0] - rows[1]).abs().max() <= limit)

    branch = ids[4:] + ids[:1]
    _, (start,) = reader.read([reader.start()], [ids[:3]], last_only=True)
    _, (middle,) = reader.read([start], [ids[3:4]], last_only=True)
    _, (other,) = reader.read([start], [branch[:1]], last_only=True)
    if reader.caching == "crop":
        _, (middle, other) = reader.read([middle, other], [ids[4:5], branch[1:2]], last_only=True)
    return is_right(middle, ids[5:]) and is_right(start, branch) and is_right(other, branch[2:])
