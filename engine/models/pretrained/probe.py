"""Choice of the fastest way to keep what a model has read, by comparing a few forward passes with one without cache."""

from collections.abc import Callable

import torch
from torch import Tensor

from engine.models.pretrained.contexts import BufferReader, ContextReader, CopyReader, RereadReader
from engine.models.pretrained.forward import CausalForward

NUM_PROBE_TOKENS = 6
"""Tokens of the comparison; the context of a model must have as many positions."""
MAX_DIFFERENCE, MAX_HALF_PRECISION_DIFFERENCE = 5e-4, 0.5
"""Maximum difference between log-probabilities that are computed in two ways, in single and in half precision."""


def choose_reader(forward: CausalForward, vocabulary_size: int) -> tuple[ContextReader, bool]:
    """Return the fastest reader that computes what the model computes without a cache.

    Returns:
        The reader, and True if it can read texts of different lengths together.
    """
    ids = [id % vocabulary_size for id in range(5, 5 + 7 * NUM_PROBE_TOKENS, 7)]
    candidates: list[ContextReader] = [
        BufferReader(forward),
        CopyReader(forward, one_by_one=False),
        CopyReader(forward, one_by_one=True),
    ]
    for reader in candidates:
        if _succeeds(_reads_correctly, reader, forward, ids):
            return reader, isinstance(reader, BufferReader) and _succeeds(_pads_correctly, reader, forward, ids)
    return RereadReader(forward), False


def _succeeds(
    check: Callable[[ContextReader, CausalForward, list[int]], bool],
    reader: ContextReader,
    forward: CausalForward,
    ids: list[int],
) -> bool:
    """Return the result of `check`, or False if it fails: a model raises anything for a cache of another kind."""
    try:
        with torch.inference_mode():
            return check(reader, forward, ids)
    except Exception:
        return False


def _reads_correctly(reader: ContextReader, forward: CausalForward, ids: list[int]) -> bool:
    """Return True if the last distribution is right after one token, several tokens, and a branch."""
    first, rest, branch = ids[:3], ids[3:], ids[4:] + ids[:1]
    start = reader.read([reader.empty()], [first], last_only=True).contexts
    middle = reader.read(start, [rest[:1]], last_only=True).contexts
    texts = [
        (reader.read(middle, [rest[1:]], last_only=False).logits[0], rest[1:], [*first, *rest]),
        (reader.read(start, [branch], last_only=True).logits[0], branch[-1:], [*first, *branch]),
        (reader.read(middle, [rest[1:2]], last_only=True).logits[0], rest[1:2], [*first, *rest[:2]]),
    ]
    return all(is_close(logits, _reference(forward, text)[-len(new) :]) for logits, new, text in texts)


def _pads_correctly(reader: ContextReader, forward: CausalForward, ids: list[int]) -> bool:
    """Return True if two texts of different lengths are read together as each alone."""
    (long,) = reader.read([reader.empty()], [ids[:4]], last_only=True).contexts
    (short,) = reader.read([reader.empty()], [ids[1:2]], last_only=True).contexts
    output = reader.read([long, short], [ids[4:5], ids[2:3]], last_only=True)
    output = reader.read(output.contexts, [ids[5:6], ids[3:4]], last_only=True)
    references = _reference(forward, ids[:6])[-1], _reference(forward, ids[1:4])[-1]
    return all(is_close(logits[-1], reference) for logits, reference in zip(output.logits, references, strict=True))


def _reference(forward: CausalForward, ids: list[int]) -> Tensor:
    """Return the logits `[time, vocabulary]` of a pass without cache."""
    return forward(forward.to_ids([ids]), use_cache=False)[0][0]


def is_close(logits: Tensor, reference: Tensor) -> bool:
    """Return True if logits `[rows, vocabulary]` predict the same as others, to within rounding."""
    limit = MAX_DIFFERENCE if logits.dtype in (torch.float32, torch.float64) else MAX_HALF_PRECISION_DIFFERENCE
    difference = torch.log_softmax(logits.float(), -1) - torch.log_softmax(reference.float(), -1)
    return bool(difference.abs().max() <= limit)
