"""Limits on the memory that a conversation takes: decoder states to branch from, and models that generated replies."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.generation.prompt import DecoderState
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import (
    NO_LOG_PROBS,
    SessionModel,
    SlidingModel,
    has_log_probs,
    is_slow,
    split_dialogue,
)

MAX_CACHE_BYTES = 32_000_000  # of states, enough for some thousand tokens; what was evicted is read again
MAX_SLOW_CACHE_BYTES = 768_000_000  # of keys and values of the texts of slow models
MAX_LOG_PROB_BYTES = 50_000_000  # beside keys and values, enough for 250 tokens of SmolLM2 to branch from at once
MAX_MODELS_PER_RUN = 3  # kept of one training, which produces a new one with every evaluation


class StateCache:
    """First-in, first-out cache of the decoder states of replies, bounded in bytes.

    The states of a text may share its keys and values, which are evicted together. Their log-probabilities are large,
    and reading one token computes them again, so these are evicted first.
    """

    def __init__(self) -> None:
        self._memory: OrderedDict[object, tuple[int, list[tuple[Reply, int]]]] = OrderedDict()
        """Bytes and places of the states of a text, or of one state: the reply and the index in its states."""
        self._num_bytes = 0
        self._latest_arrays: set[int] = set()  # identities, of which the next state may share some
        self._log_probs: deque[tuple[Reply, int, int]] = deque()  # reply, index of the state, bytes
        self._log_prob_bytes = 0

    def add(self, reply: Reply, state: DecoderState | None) -> None:
        """Append a state to the states of `reply`, and evict the oldest over the limits."""
        index = len(reply.decoder_states)
        reply.decoder_states.append(state)
        if state is None:
            return
        model, model_state = split_dialogue(reply.session_model.model, state.model_state)
        key: object = (reply, index)
        if isinstance(model, SlidingModel):
            key, num_bytes = model.state_memory(model_state)
            self._add_log_probs(reply, index, state)
        else:
            arrays = {id(array): array.nbytes for array in state_arrays(state)}
            num_bytes = sum(size for identity, size in arrays.items() if identity not in self._latest_arrays)
            self._latest_arrays = set(arrays)
        old_bytes, places = self._memory.pop(key, (0, []))  # the latest text comes last
        places.append((reply, index))
        self._memory[key] = num_bytes, places
        self._num_bytes += num_bytes - old_bytes
        limit = MAX_SLOW_CACHE_BYTES if is_slow(model) else MAX_CACHE_BYTES
        while self._num_bytes > limit and len(self._memory) > 1:
            _, (num_bytes, places) = self._memory.popitem(last=False)
            self._num_bytes -= num_bytes
            for oldest, at in places:
                if at < len(oldest.decoder_states):
                    oldest.decoder_states[at] = None

    def _add_log_probs(self, reply: Reply, index: int, state: DecoderState) -> None:
        if not has_log_probs(state):
            return
        self._log_probs.append((reply, index, state.log_probs.nbytes))
        self._log_prob_bytes += state.log_probs.nbytes
        while self._log_prob_bytes > MAX_LOG_PROB_BYTES and len(self._log_probs) > 1:
            oldest, at, num_bytes = self._log_probs.popleft()
            self._log_prob_bytes -= num_bytes
            evicted = oldest.decoder_states[at] if at < len(oldest.decoder_states) else None
            if evicted is not None:
                oldest.decoder_states[at] = evicted._replace(log_probs=NO_LOG_PROBS)


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
