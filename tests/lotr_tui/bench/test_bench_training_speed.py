"""The sums behind the figures of training: work a token, and that both ways read what they say."""

import math
import sys

import pytest

from engine.config import preset
from lotr_tui.bench.figures import Figure
from lotr_tui.bench.training import notebook_loop
from lotr_tui.bench.training import speed as train
from tests.conftest import sentences, write_csv


def test_the_work_of_a_token_is_that_of_its_products() -> None:
    config = preset("notebook")
    products = 2 * 4 * 512 * (512 + 512) + 512 * 879  # two layers of four gates, and the output
    assert train.work_a_token(config, 879) == 3 * 2 * products
    tied = preset("tiny").with_values(embedding_size=30, hidden_size=50, layers=2)
    assert train.work_a_token(tied, 100) == 6 * (4 * 50 * (30 + 50) + 4 * 30 * (50 + 30) + 30 * 100)


def test_the_plain_way_reads_whole_windows(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(notebook_loop, "HIDDEN", 8)
    monkeypatch.setattr(notebook_loop, "BATCH", 4)
    monkeypatch.setattr(notebook_loop, "WINDOW", 10)
    assert notebook_loop.tokens_an_epoch(4 * 51) == 4 * 50  # the last word of a column has no target
    assert notebook_loop.tokens_an_epoch(4 * 50) == 4 * 40
    corpus = {"corpus": str(write_csv(tmp_path / "lines.csv", sentences(60)))}
    seconds = list(notebook_loop.train(corpus, 2))
    assert len(seconds) == 2
    assert all(value > 0 for value in seconds)


def test_ratios_are_of_runs_side_by_side(monkeypatch) -> None:
    rates = iter([{"tokens_per_second": 30.0, "work": 8.0}, {"tokens_per_second": 20.0, "work": 9.0}])
    monkeypatch.setattr(train, "_ours", lambda *_: next(rates))
    monkeypatch.setattr(train, "_product_rate", lambda _: 10.0)
    plain = iter([10.0, 20.0])
    monkeypatch.setattr(train, "_plain_rate", lambda _: next(plain))
    monkeypatch.setattr(train, "has_bf16", lambda: False)
    *figures, skipped = train.train(2, None)
    speed, other, ratio, share = figures
    assert all(isinstance(figure, Figure) for figure in figures)
    assert (speed.value, other.value) == (25, 15)
    assert ratio.runs == (3, 1)
    assert (ratio.least, ratio.within) == (1.1, True)
    assert share.value == pytest.approx(0.85)
    assert share.within is False
    assert "bf16" in skipped.name


def test_the_time_to_quality_ends_with_the_first_validation_under_the_line(tmp_path, monkeypatch) -> None:
    path = tmp_path / "lines.csv"
    told = [
        '{"event": "preparing", "what": "x"}',
        '{"event": "started", "kneser_ney_perplexity": 20.0}',
        '{"event": "evaluated", "valid_perplexity": 30.0}',
        '{"event": "evaluated", "valid_perplexity": 19.0}',
    ]
    script = "; ".join(f"print({line!r}, flush=True)" for line in told)
    monkeypatch.setattr(train, "SESSION_COMMAND", [sys.executable, "-c", script])
    assert 0 < train.seconds_to_quality(path) < math.inf
    monkeypatch.setattr(train, "SESSION_COMMAND", [sys.executable, "-c", f"print({told[1]!r})"])
    with pytest.raises(train.BenchError, match="above Kneser-Ney"):
        train.seconds_to_quality(path)


def test_only_whole_windows_are_timed(tmp_path) -> None:
    import torch

    from engine.data.dataset import prepare
    from engine.training.trainer import Loop

    path = write_csv(tmp_path / "lines.csv", sentences(60))
    config = preset("tiny").with_values(corpus=str(path), hidden_size=8, embedding_size=8, window=20, batch_size=4)
    loop = Loop(config, prepare(config.data), torch.device("cpu"), 0.0)
    places = []
    for _ in range(6):
        assert train._whole_window(loop) > 0
        places.append(loop.position)
    assert all(place % 20 == 0 and place for place in places)
    assert loop.step > len(places)  # what the epochs ended with was read as well
