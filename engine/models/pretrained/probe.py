"""Choice of the fastest way to keep what a model has read, by comparing a few forward passes with one without cache."""

from typing import get_args

import torch
from torch import Tensor, nn

from engine.models.pretrained.reader import Caching, PretrainedState, TextReader

NUM_PROBE_TOKENS = 6
"""Tokens of the comparison; the context of a model must have as many positions."""
MAX_DIFFERENCE, MAX_HALF_PRECISION_DIFFERENCE = 5e-4, 0.5
"""Maximum difference between log-probabilities that are computed in two ways, in single and in half precision."""


def choose_reader(module: nn.Module, vocabulary_size: int) -> TextReader:
    """Return a reader that keeps texts in the fastest way that computes what the model computes without a cache."""
    reader, ids = TextReader(module), [id % vocabulary_size for id in range(5, 5 + 7 * NUM_PROBE_TOKENS, 7)]
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
    first, rest, branch = ids[:3], ids[3:], ids[4:] + ids[:1]

    def is_right(state: PretrainedState, new: list[int]) -> bool:
        logits, _ = reader.read([state], [new], last_only=False)
        expected = reader.module(torch.tensor([[*state.tokens, *new]], device=reader.device), use_cache=False).logits
        return is_close(logits[0], expected[0, -len(new) :])

    _, (start,) = reader.read([reader.start()], [first], last_only=True)
    _, (middle,) = reader.read([start], [rest[:1]], last_only=True)
    _, (other,) = reader.read([start], [branch[:1]], last_only=True)
    if reader.caching == "crop":
        _, (middle, other) = reader.read([middle, other], [rest[1:2], branch[1:2]], last_only=True)
    return is_right(middle, rest[-1:]) and is_right(start, branch) and is_right(other, branch[-1:])


def is_close(logits: Tensor, reference: Tensor) -> bool:
    """Return True if logits `[rows, vocabulary]` predict the same as others, to within rounding."""
    limit = MAX_DIFFERENCE if logits.dtype in (torch.float32, torch.float64) else MAX_HALF_PRECISION_DIFFERENCE
    difference = torch.log_softmax(logits.float(), -1) - torch.log_softmax(reference.float(), -1)
    return bool(difference.abs().max() <= limit)
