"""Tests of the place of a window in the training text, against the windows that the engine reads."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import TrainingConfig
from engine.training.batches import WindowReader
from lotr_tui.learn.bptt_window import steps_per_epoch, window_of_step


def make_reader(ids: Any, options: TrainingConfig) -> WindowReader:
    dataset = cast(Any, SimpleNamespace(train=ids, mode="line"))
    return WindowReader(dataset, options, torch.device("cpu"), lambda ids: None, with_punctuation=False)


@given(batch_size=st.integers(1, 7), bptt=st.integers(1, 12), row_length=st.integers(2, 40), rest=st.integers(0, 6))
def test_window_of_each_step_is_what_the_engine_reads(batch_size: int, bptt: int, row_length: int, rest: int) -> None:
    ids = np.arange(batch_size * row_length + min(rest, batch_size - 1), dtype=np.int32)
    options = TrainingConfig(batch_size=batch_size, bptt=bptt, shuffle_lines=False)
    reader = make_reader(ids, options)
    per_epoch = steps_per_epoch(len(ids), options)
    for step in range(1, 2 * per_epoch + 2):
        read = reader.next_window()
        window = window_of_step(step, len(ids), options)
        for row in range(batch_size):
            text = ids[row * row_length : (row + 1) * row_length]
            assert read.inputs[:, row].tolist() == text[window.begin : window.end].tolist()
            assert read.targets[:, row].tolist() == text[window.begin + 1 : window.end + 1].tolist()
        assert window.row_length == row_length
        assert (read.end == 1) == (step % per_epoch == 0)
