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

from engine.analysis.notebook import evaluate_windows, score_rows
from engine.config import ModelConfig
from engine.data.tokenizers import WordTokenizer
from engine.models.ngram import KneserNey
from tests.support.models import random_ids, random_lstm

VOCABULARY = WordTokenizer(("<unk>", "<eos>", *"abcdefgh"))


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
    result = evaluate_windows(-np.array(losses), window)
    printed, read = loop_of_the_notebook(losses, window)
    assert result.printed == pytest.approx(printed, rel=1e-9)
    assert result.num_scored == len(read)
    if read:
        assert result.perplexity == pytest.approx(math.exp(sum(read) / len(read)), rel=1e-9)
        assert result.printed == pytest.approx(2 ** (result.mean_bits * (result.divisor - 1) / result.divisor))
    else:
        assert result.printed == 1.0
        assert result.perplexity is None


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
        printed, seen = notebook.run_epoch(model, data, window)
        logits, _ = model(data[:, :-1])
        losses = functional.cross_entropy(logits.flatten(0, 1), data[:, 1:].flatten(), reduction="none")
    result = evaluate_windows(-losses.view(4, 35).double().numpy(), window)
    assert result.printed == pytest.approx(printed, rel=1e-5)
    assert result.num_scored == seen
    assert result.divisor == notebook.usable(data, window)[1]


LSTM = random_lstm(ModelConfig(embedding_size=5, hidden_size=6, num_layers=2), VOCABULARY)
KNESER_NEY = KneserNey(random_ids(300, 10), VOCABULARY, 3)


@pytest.mark.parametrize("model", [LSTM, KNESER_NEY], ids=["LSTM", "Kneser-Ney"])
def test_rows_are_scored_from_an_empty_state(model):
    rows = np.random.default_rng(3).integers(0, 10, (4, 9)).astype(np.int32)
    expected = np.zeros((4, 8))
    for row, ids in enumerate(rows.tolist()):
        state = model.start()
        for time in range(8):
            log_probs, state = model.advance(state, ids[time])
            expected[row, time] = log_probs[ids[time + 1]]
    np.testing.assert_allclose(score_rows(model, rows), expected, rtol=1e-4)
    assert score_rows(model, rows[:, :1]).shape == (4, 0)
