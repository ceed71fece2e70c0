"""Tests of what a head looks at most among the earlier words."""

import numpy as np
import pytest

from lotr_tui.learn.attention_line import strongest_earlier


def test_start_and_the_word_itself_do_not_count() -> None:
    weights = np.array([0.5, 0.03, 0.07, 0.4], np.float32)
    assert strongest_earlier(weights) == (2, pytest.approx(0.07))


@pytest.mark.parametrize("num_positions", [1, 2])
def test_first_word_has_no_earlier_word(num_positions: int) -> None:
    assert strongest_earlier(np.ones(num_positions, np.float32)) is None
