"""Perplexity by hand and by loops over single tokens, and the perplexity that the notebook prints."""

import importlib.util
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from engine.analysis.evaluation import evaluate, perplexity, printed_perplexity, summarize_log_probs, window_starts
from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID, UNK_ID
from engine.errors import CorpusError
from engine.models.base import forward_sequence, score_sequence
from engine.models.lstm import LSTMModel
from tests.support.models import make_tokenizer, random_ids
from tests.support.sampling import FixedModel


def to_ids(*tokens):
    return np.array(tokens, dtype=np.int32)


def test_evaluation_matches_a_hand_calculation():
    table = {(1,): [0.1, 0.2, 0.5, 0.2], (1, 2): [0.25, 0.25, 0.25, 0.25], (1, 2, 3): [0.5, 0.125, 0.125, 0.25]}
    model = FixedModel(lambda read: table.get(read, [0.25] * 4))
    evaluation = evaluate(model, to_ids(2, 3, 1))
    assert score_sequence(model, to_ids(2, 3, 1)) == pytest.approx(np.log([0.5, 0.25, 0.125]), rel=1e-6)
    assert evaluation.tokens == 3
    assert evaluation.perplexity == pytest.approx(4)  # (1/2 * 1/4 * 1/8) ** (-1/3)
    assert evaluation.bits_per_token == pytest.approx(2)
    assert evaluation.unk_rate == 0


def test_every_token_is_read_once_with_the_state_carried():
    model = FixedModel(lambda read: [0.25] * 4)
    tokens = [2, 3, 0, 1, 2, 2]
    evaluate(model, to_ids(*tokens))
    inputs = [EOS_ID, *tokens]
    expected = [(tuple(inputs[:i]), token) for i, token in enumerate(inputs)]
    assert model.calls[: len(tokens)] == expected[: len(tokens)]  # the last token is scored, but need not be read
    assert model.calls == expected[: len(model.calls)]


def test_unk_counts_like_any_token_and_its_rate_is_reported():
    evaluation = evaluate(FixedModel(lambda read: [0.7, 0.1, 0.1, 0.1]), to_ids(UNK_ID, UNK_ID, 2, EOS_ID))
    assert evaluation.unk_rate == 0.5
    assert summarize_log_probs(np.log([0.5, 0.5]), to_ids(UNK_ID, 2), unk_id=None).unk_rate == 0
    assert evaluation.perplexity == pytest.approx(math.exp(-(2 * math.log(0.7) + 2 * math.log(0.1)) / 4), rel=1e-6)


def test_an_empty_text_is_an_error():
    with pytest.raises(CorpusError) as caught:
        evaluate(FixedModel(lambda read: [0.25] * 4), to_ids())
    assert str(caught.value) == "the text has no token to score; use a longer text"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("length", "punctuation"), [(1, False), (1023, True), (1024, False), (1025, True)])
@torch.no_grad()
def test_perplexity_matches_a_loop_over_every_token(length, punctuation):
    """Of the PyTorch LSTM, which scores a text in chunks, and of the numpy LSTM."""
    config = ModelConfig(embedding_size=8, hidden_size=8, num_layers=2, punctuation=punctuation)
    single = LSTMModel(config, 40, torch.Generator().manual_seed(0))
    decoder, model = single.to_decoder(make_tokenizer(40)), single.double()
    ids, total, previous, states = random_ids(length, 40, seed=1), 0.0, EOS_ID, model.initial_state(1)
    for token in ids.tolist():
        logits, states, _, _ = model(torch.tensor([[previous]]), states)
        total += math.log(math.fsum(math.exp(logit) for logit in logits[0, 0].tolist())) - float(logits[0, 0, token])
        previous = token
    for each, tolerance in ((model, 1e-9), (decoder, 1e-5)):
        assert evaluate(each, ids).perplexity == pytest.approx(math.exp(total / length), rel=tolerance)
        assert forward_sequence(each, ids).log_probs == pytest.approx(score_sequence(each, ids), abs=1e-5)


def test_perplexity_is_infinite_only_if_a_float_overflows():
    """NaN, the loss of a model with NaN weights, also gives infinity."""
    for exponent in (0.0, 699.5, 700.0, 709.7):
        assert perplexity(exponent) == math.exp(exponent)
    assert perplexity(math.log(sys.float_info.max)) == pytest.approx(sys.float_info.max)
    with np.errstate(divide="ignore"):
        assert evaluate(FixedModel(lambda read: [0.5, 0.5, 0, 0]), to_ids(0, 2)).perplexity == math.inf
    assert [perplexity(exponent) for exponent in (709.79, 710.0, 1e6, math.inf, math.nan)] == [math.inf] * 5


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
