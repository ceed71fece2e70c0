"""Tests of the table of perplexities."""

from pathlib import Path

import pytest

from engine.storage.files import assets_dir
from lotr_tui.bench.training import perplexities
from lotr_tui.bench.training.perplexities import MIXTURES, Plan, Scores, format_table, measure_split

SETTINGS = ("--epochs", "1", "--set", "hidden_size=8", "--set", "embedding_size=8", "--set", "mogrifier_rounds=0")


def test_models_are_trained_once_and_then_combined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexities, "SEEDS", (0,))
    monkeypatch.setattr(perplexities, "TEACHERS", ("default-0",))
    csv = tmp_path / "dialogues.csv"
    csv.write_text("\n".join((assets_dir() / "dialogues.csv").read_text().splitlines()[:200]))
    plan = Plan(tmp_path, csv, 1, SETTINGS)
    default, student, ensemble, *mixtures = measure_split(plan)
    assert len(mixtures) + 1 == len(MIXTURES)
    assert default.valid
    assert student.seconds > default.seconds > 0
    assert ensemble.test <= (default.test * student.test) ** 0.5 + 0.01, (
        "the mean probability is at least the geometric mean"
    )
    assert mixtures[-1].test < ensemble.test

    monkeypatch.setattr(perplexities, "SESSION_COMMAND", ["false"])
    assert plan.train("default-0") == default


def test_a_row_shows_all_splits_and_the_median_time() -> None:
    columns = [[Scores(70 + n, 60.04 + n, 60 * n), Scores(50 + n)] for n in (1, 2, 9)]
    rows = list(format_table([[scores, *[last] * 5] for scores, last in columns]))
    assert rows[2] == "| `default`, median of 3 | 71.0 (61.0) | 72.0 (62.0) | 79.0 (69.0) | 2 min |"
    assert rows[-1] == "| … and Kneser-Ney | 51.0 | 52.0 | 59.0 |  |"
    assert len(rows) == 2 + 2 + len(MIXTURES)
