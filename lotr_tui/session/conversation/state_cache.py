"""Limits on the memory that a conversation takes: decoder states to branch from, and models that generated replies."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.generation.prompt import DecoderState
from engine.models.base import LogProbs
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import NO_LOG_PROBS, SharedMemoryModel, has_log_probs, is_slow, split_dialogue
from lotr_tui.session.session_model import SessionModel

MAX_CACHE_BYTES = 32_000_000
"""Memory for decoder states, enough for some thousand tokens; the text is read again where a state was evicted."""
MAX_LOG_PROB_BYTES = 50_000_000
"""Memory for the log-probabilities of states of slow models, enough for 250 tokens to branch from at once."""
MAX_TEXT_BYTES = 768_000_000
"""Memory for the keys and values of texts of slow models; a text whose states were evicted is read again."""
MAX_MODELS_PER_RUN = 3
"""Models kept of one training, which produces a new one with every evaluation."""


class DecoderStateCache:
    """First-in, first-out cache of the decoder states of replies, bounded in bytes."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Reply, int, int]] = deque()
        """Reply, index of the state in its `decoder_states`, and bytes."""
        self._total_bytes = 0
        self._latest_arrays: set[int] = set()
        """Identities of the arrays of the latest state, which the next state may share."""
        self._slow_cache = SlowStateCache()

    def add(self, reply: Reply, state: DecoderState | None) -> None:
        """Append a state to the states of `reply`, and evict the oldest states over the limit."""
        if is_slow(reply.session_model.model):
            self._slow_cache.add(reply, state)
            return
        arrays = {id(array): array.nbytes for array in state_arrays(state)}
        num_bytes = sum(size for identity, size in arrays.items() if identity not in self._latest_arrays)
        self._latest_arrays = set(arrays)
        self._entries.append((reply, len(reply.decoder_states), num_bytes))
        self._total_bytes += num_bytes
        reply.decoder_states.append(state)
        while self._total_bytes > MAX_CACHE_BYTES and len(self._entries) > 1:
            oldest, index, num_bytes = self._entries.popleft()
            self._total_bytes -= num_bytes
            if index < len(oldest.decoder_states):
                oldest.decoder_states[index] = None


class SlowStateCache:
    """First-in, first-out cache of the decoder states of slow models, bounded in bytes.

    The log-probabilities of a state are large, and reading one token computes them again, so they are evicted first.
    The states of a text share its keys and values, which are evicted together.
    """

    def __init__(self) -> None:
        self._log_probs: deque[tuple[Reply, int, LogProbs]] = deque()
        """Reply, index of the state in its `decoder_states`, and log-probabilities."""
        self._num_uses: Counter[int] = Counter()
        """Number of entries by the identity of their log-probabilities, which branches share."""
        self._log_prob_bytes = 0
        self._texts: dict[int, tuple[int, list[tuple[Reply, int]]]] = {}
        """Size in bytes of the memory that states share and the places of these states, by the memory's identity."""

    def add(self, reply: Reply, state: DecoderState | None) -> None:
        """Append a state to the states of `reply`, and evict the oldest log-probabilities and texts over the limits."""
        index = len(reply.decoder_states)
        reply.decoder_states.append(state)
        if state is None:
            return
        self._add_text(reply, index, state)
        if not has_log_probs(state):
            return
        self._log_probs.append((reply, index, state.log_probs))
        self._num_uses[id(state.log_probs)] += 1
        if self._num_uses[id(state.log_probs)] == 1:
            self._log_prob_bytes += state.log_probs.nbytes
        while self._log_prob_bytes > MAX_LOG_PROB_BYTES and len(self._log_probs) > 1:
            self._evict_log_probs(*self._log_probs.popleft())

    def _evict_log_probs(self, reply: Reply, index: int, log_probs: LogProbs) -> None:
        self._num_uses[id(log_probs)] -= 1
        if not self._num_uses[id(log_probs)]:
            del self._num_uses[id(log_probs)]
            self._log_prob_bytes -= log_probs.nbytes
        state = reply.decoder_states[index] if index < len(reply.decoder_states) else None
        if state is not None and state.log_probs is log_probs:
            reply.decoder_states[index] = state._replace(log_probs=NO_LOG_PROBS)

    def _add_text(self, reply: Reply, index: int, state: DecoderState) -> None:
        """Count the memory of the text of a state, and evict the states of the oldest texts over the limit."""
        model, model_state = split_dialogue(reply.session_model.model, state.model_state)
        if not isinstance(model, SharedMemoryModel):
            return
        identity, num_bytes = model.state_memory(model_state)
        _, places = self._texts.pop(identity, (0, []))  # the latest text comes last
        places.append((reply, index))
        self._texts[identity] = num_bytes, places
        while sum(size for size, _ in self._texts.values()) > MAX_TEXT_BYTES and len(self._texts) > 1:
            _, evicted = self._texts.pop(next(iter(self._texts)))
            for oldest, at in evicted:
                if at < len(oldest.decoder_states):
                    oldest.decoder_states[at] = None


def evict_models(replies: Iterable[Reply]) -> None:
    """Keep the latest models of each training; replies of earlier models are continued by the latest."""
    latest_models: dict[str, list[SessionModel]] = {}
    for reply in reversed(list(replies)):
        kept = latest_models.setdefault(reply.session_model.name, [])
        if any(reply.session_model.model is session_model.model for session_model in kept):
            continue
        if len(kept) < MAX_MODELS_PER_RUN:
            kept.append(reply.session_model)
        elif reply.session_model.model.tokenizer == kept[0].model.tokenizer:
            reply.session_model = kept[0]
            reply.decoder_states.clear()


def count_array_bytes(state: DecoderState) -> int:
    """Return the bytes of all arrays in a decoder state."""
    return sum(array.nbytes for array in state_arrays(state))


def state_arrays(value: Any) -> Iterator[npt.NDArray[Any]]:
    """Yield all arrays of a decoder state; states that follow each other share some of them."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from state_arrays(item)
    elif is_dataclass(value):
        for item in vars(value).values():
            yield from state_arrays(item)
