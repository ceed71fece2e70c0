"""The notebook's validation, compared with the notebook's own loop and with a loop over single tokens."""

import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from engine.analysis.evaluation import printed_perplexity, window_starts


def printed(losses, window):
    """Return the starts of windows, and what the notebook prints, for losses `[rows, width - 1]`."""
    width = losses.shape[1] + 1
    starts = window_starts(width, window)
    means = (float(losses[:, start : start + window].mean()) for start in starts)
    return starts, printed_perplexity(means, width, window)


def loop_of_the_notebook(losses, seq):
    """Return what the notebook prints for losses `[rows, width - 1]`, and the losses that it reads.

    Written from the notebook's code: `width = width - (width - 1) % seq`, `range(0, width - 1, seq)`,
    `total += loss.item() * seq` and `exp(total / width)`.
    """
    width = len(losses[0]) + 1
    width = width - (width - 1) % seq
    total, read = 0.0, []
    for i in range(0, width - 1, seq):
        window = [loss for row in losses for loss in row[i : i + seq]]
        total += sum(window) / len(window) * seq
        read += window
    return math.exp(total / width), read


@given(st.data(), st.integers(1, 5), st.integers(1, 40), st.integers(1, 60))
def test_windows_agree_with_a_loop_over_tokens(data, rows, targets, window):
    row = st.lists(st.floats(0, 15), min_size=targets, max_size=targets)
    losses = data.draw(st.lists(row, min_size=rows, max_size=rows))
    starts, result = printed(np.array(losses), window)
    expected, read = loop_of_the_notebook(losses, window)
    assert result == pytest.approx(expected, rel=1e-9)
    assert rows * len(starts) * window == len(read)
    assert read or result == 1.0


@pytest.fixture(scope="module")
def notebook():
    """Import the notebook as a peer, from `LOTR_TUI_SHARED` or the folder beside the checkout."""
    shared = Path(os.environ.get("LOTR_TUI_SHARED") or Path(__file__).parents[4] / "shared")
    path = shared / "peers" / "notebook.py"
    if not path.is_file():
        pytest.skip("the notebook (shared/peers/notebook.py) is not here")
    pytest.importorskip("pandas")
    spec = importlib.util.spec_from_file_location("notebook", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("window", [50, 35, 30, 7])
def test_notebook_itself_prints_the_same(notebook, window):
    torch.manual_seed(0)
    model = notebook.Notebook(10, width=8)
    data = notebook.columns(torch.randint(0, 10, (4 * 36 + 3,)), 4)
    with torch.no_grad():
        expected, seen = notebook.run_epoch(model, data, window)
        logits, _ = model(data[:, :-1])
        losses = functional.cross_entropy(logits.flatten(0, 1), data[:, 1:].flatten(), reduction="none")
    starts, result = printed(losses.view(4, 35).double().numpy(), window)
    assert result == pytest.approx(expected, rel=1e-5)
    assert 4 * len(starts) * window == seen
    assert len(starts) * window + 1 == notebook.usable(data, window)[1]
