"""Place of a window of truncated backpropagation in the training text."""

import math
from dataclasses import dataclass

from engine.config import TrainingConfig


@dataclass(frozen=True)
class RowWindow:
    """The part of one row of the batch that a training step reads.

    The training text is cut into `batch_size` rows of equal length, and each step reads the same positions of all rows.
    """

    begin: int
    """Position in the row of the first token that the step reads."""
    end: int
    """Position in the row after the last token that the step reads."""
    row_length: int
    """Tokens in a row."""


def steps_per_epoch(num_tokens: int, options: TrainingConfig) -> int:
    """Return the number of windows into which an epoch of `num_tokens` training tokens is cut."""
    return math.ceil((num_tokens // options.batch_size - 1) / options.bptt)


def window_of_step(step: int, num_tokens: int, options: TrainingConfig) -> RowWindow:
    """Return the window that the step with this number reads; the first step has the number 1.

    The lines must not be shuffled, and all windows must have the same length, as without `shuffle_lines` and
    `variable_bptt`; otherwise the window depends on random numbers.
    """
    is_fixed = not options.shuffle_lines and not options.variable_bptt
    assert is_fixed, "the window depends on random numbers"
    row_length = num_tokens // options.batch_size
    begin = (step - 1) % steps_per_epoch(num_tokens, options) * options.bptt
    # The last token of a row is only a target.
    return RowWindow(begin, min(begin + options.bptt, row_length - 1), row_length)
