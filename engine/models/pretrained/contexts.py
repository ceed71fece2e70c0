"""Ways to keep what a model has read: shared key-value buffers, copies of the model's own cache, or only the tokens."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from engine.models.pretrained.cache import (
    BufferSlot,
    KeyValueBuffer,
    buffer_mask,
    buffer_positions,
    copy_slots,
)
from engine.models.pretrained.forward import CausalForward


class Context(Protocol):
    """Everything that a model has read of one text: an immutable value."""

    @property
    def num_positions(self) -> int:
        """Number of tokens read."""

    @property
    def tokens(self) -> list[int]:
        """Tokens read."""


class ContextOutput(NamedTuple):
    """Result of reading the same number of tokens in each of several texts."""

    logits: Tensor
    """`[texts, time, vocabulary]`; `time` is 1 if only the last logits were wanted."""
    hidden: Tensor | None
    """Vectors `[texts, 1 or more, width]` of the last tokens, from which the logits were computed."""
    contexts: list[Any]
    """Context of each text after the tokens."""


class ContextReader(Protocol):
    """A way to keep what a model has read. The contexts belong to the reader that created them."""

    def empty(self) -> Any:
        """Return the context before the first token."""

    def read(self, contexts: Sequence[Any], tokens: list[list[int]], *, last_only: bool) -> ContextOutput:
        """Read tokens `[texts][time]`, at least one, after `contexts`."""


class BufferReader:
    """Reader with shared key-value buffers: a state costs nothing, and a branch copies its prefix."""

    def __init__(self, forward: CausalForward) -> None:
        """Create a reader for a model whose cache consists of one key and one value per layer and position."""
        from engine.models.pretrained.transformers_cache import BufferedCache

        self._forward = forward
        self._new_cache = BufferedCache

    def empty(self) -> BufferSlot:
        """Return the context before the first token."""
        return BufferSlot(KeyValueBuffer([0], 0), 0, 0)

    def read(self, contexts: Sequence[BufferSlot], tokens: list[list[int]], *, last_only: bool) -> ContextOutput:
        """Read tokens `[texts][time]` after `contexts`, which may have different lengths."""
        num_new = len(tokens[0])
        buffer, start = self._find_room(contexts, num_new)
        ids = self._forward.to_ids(tokens)
        buffer.tokens[:, start : start + num_new] = tokens
        positions = mask = None
        if buffer.has_padding:
            positions = buffer_positions(buffer, start, num_new, ids.device)
            mask = buffer_mask(buffer, start + num_new, ids.device)
        cache = self._new_cache(buffer, start)
        logits, hidden, _ = self._forward(ids, cache, last_only=last_only, positions=positions, mask=mask)
        slots = [BufferSlot(buffer, row, start + num_new) for row in range(len(tokens))]
        return ContextOutput(logits, hidden, slots)

    def _find_room(self, contexts: Sequence[BufferSlot], num_new: int) -> tuple[KeyValueBuffer, int]:
        """Return a buffer with the columns of `contexts` and `num_new` reserved ones, and the first of these."""
        buffer, start = contexts[0].buffer, contexts[0].num_columns
        is_whole = len(contexts) == len(buffer.padding) and all(
            slot.buffer is buffer and slot.row == row and slot.num_columns == start for row, slot in enumerate(contexts)
        )
        if not is_whole or not buffer.reserve(start, num_new):
            buffer = copy_slots(contexts, num_new)
            start = max(slot.num_positions for slot in contexts)
        return buffer, start


@dataclass(frozen=True)
class CachedContext:
    """The model's own cache after some tokens; None before the first token, or if it is not kept."""

    cache: Any
    read_tokens: tuple[int, ...]

    @property
    def num_positions(self) -> int:
        """Number of tokens read."""
        return len(self.read_tokens)

    @property
    def tokens(self) -> list[int]:
        """Tokens read."""
        return list(self.read_tokens)


class CopyReader:
    """Reader that copies the model's own cache for each state, for caches that are not keys and values."""

    def __init__(self, forward: CausalForward, *, one_by_one: bool) -> None:
        """Create a reader. With `one_by_one`, it continues a cache by one token per pass, as recurrent models need."""
        self._forward = forward
        self._one_by_one = one_by_one

    def empty(self) -> CachedContext:
        """Return the context before the first token."""
        return CachedContext(None, ())

    def read(self, contexts: Sequence[CachedContext], tokens: list[list[int]], *, last_only: bool) -> ContextOutput:
        """Read tokens `[texts][time]` after `contexts`, one text after the other."""
        return _join([self._read(context, row, last_only) for context, row in zip(contexts, tokens, strict=True)])

    def _read(self, context: CachedContext, tokens: list[int], last_only: bool) -> ContextOutput:
        cache = deepcopy(context.cache)
        is_split = self._one_by_one and cache is not None
        outputs = []
        for part in [[token] for token in tokens] if is_split else [tokens]:
            logits, hidden, cache = self._forward(self._forward.to_ids([part]), cache, last_only=last_only)
            if cache is None:
                raise ValueError("the model returns no cache")
            outputs.append(logits)
        logits = outputs[-1] if last_only or len(outputs) == 1 else torch.cat(outputs, 1)
        return ContextOutput(logits, hidden, [CachedContext(cache, (*context.read_tokens, *tokens))])


class RereadReader:
    """Reader that keeps only the tokens and reads all of them again for each state: slow, but right for any model."""

    def __init__(self, forward: CausalForward) -> None:
        """Create a reader for a model whose cache cannot be used."""
        self._forward = forward

    def empty(self) -> CachedContext:
        """Return the context before the first token."""
        return CachedContext(None, ())

    def read(self, contexts: Sequence[CachedContext], tokens: list[list[int]], *, last_only: bool) -> ContextOutput:
        """Read tokens `[texts][time]` after `contexts`, one text after the other."""
        return _join([self._read(context, row, last_only) for context, row in zip(contexts, tokens, strict=True)])

    def _read(self, context: CachedContext, tokens: list[int], last_only: bool) -> ContextOutput:
        read_tokens = (*context.read_tokens, *tokens)
        ids = self._forward.to_ids([list(read_tokens)])
        logits, hidden, _ = self._forward(ids, last_only=last_only, use_cache=False)
        return ContextOutput(logits[:, -len(tokens) :], hidden, [CachedContext(None, read_tokens)])


def context_memory(context: Context) -> tuple[int, int]:
    """Return the identity of the memory that a context shares with others of its text, and its size in bytes."""
    if isinstance(context, BufferSlot):
        return id(context.buffer), context.buffer.num_bytes
    cache = context.cache if isinstance(context, CachedContext) else None
    return id(cache), sum({id(tensor): tensor.nbytes for tensor in _tensors(cache)}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a cache of transformers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif hasattr(value, "__dict__"):
        yield from _tensors(list(vars(value).values()))


def _join(outputs: Sequence[ContextOutput]) -> ContextOutput:
    """Join the outputs of several texts into one."""
    hidden = [output.hidden[:, -1:] for output in outputs if output.hidden is not None]
    return ContextOutput(
        torch.cat([output.logits for output in outputs]),
        torch.cat(hidden) if hidden else None,
        [context for output in outputs for context in output.contexts],
    )
