"""List of runs: filter, order and validation curves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import Evaluated, Resume
from engine.runs import directory
from engine.runs.summary import RunSummary
from lotr_tui.monitor.run_list import (
    RUN_COLUMNS,
    filter_and_sort_runs,
    list_selectable_runs,
    read_validation_curve,
)
from tests.support.files import write_run
from tests.support.metrics import append_events


def summary(name: str, **values: object) -> RunSummary:
    plain = RunSummary(name, Path(name), "finished", "tiny", "bundled", "line", 5.0, 80.0, 82.0, 1000.0, 10, "lstm")
    return replace(plain, **values)  # type: ignore[arg-type]


def test_bundled_models_follow_the_runs_if_they_are_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "assets_dir", lambda: tmp_path / "assets")
    write_run(tmp_path / "runs" / "mine")
    write_run(tmp_path / "assets" / "model")
    assert [run.name for run in list_selectable_runs(tmp_path / "runs")] == ["mine", "bundled"]
    write_run(tmp_path / "assets" / "base")
    assert [run.name for run in list_selectable_runs(tmp_path / "runs")] == ["mine", "bundled", "base"]
    (tmp_path / "assets" / "model" / "config.json").write_text("{")
    assert [run.name for run in list_selectable_runs(tmp_path / "runs")] == ["mine", "base"]


@pytest.mark.parametrize(
    ("query", "names"), [("IR", ["shire"]), ("crash SHA", ["shadow"]), ("paper stream", ["ring"]), ("[", [])]
)
def test_filter_requires_all_words(query: str, names: list[str]) -> None:
    runs = [summary("shire"), summary("ring", preset="paper", mode="stream"), summary("shadow", state="crashed")]
    assert [run.name for run in filter_and_sort_runs(runs, query, 0, False)] == names


@given(st.lists(st.one_of(st.none(), st.floats(1, 500)), max_size=8), st.booleans())
def test_unknown_perplexities_sort_after_all_others(perplexities: list[float | None], is_reversed: bool) -> None:
    runs = [summary(f"r{number}", valid_perplexity=value) for number, value in enumerate(perplexities)]
    column = [column.name for column in RUN_COLUMNS].index("valid")
    values = [run.valid_perplexity for run in filter_and_sort_runs(runs, "", column, is_reversed)]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=is_reversed)
    num_unknown = len(values) - len(known)
    unknown = values[:num_unknown] if is_reversed else values[len(known) :]
    assert unknown == [None] * num_unknown


def test_curve_leaves_out_evaluations_superseded_by_a_resume(tmp_path: Path) -> None:
    first = [Evaluated(n * 10, float(n), 60 + 90 * 0.5**n, True, float(n)) for n in range(7)]
    not_a_number = Evaluated(70, 7.0, float("nan"), False, 9.0)
    append_events(tmp_path, [*first, not_a_number, Resume(41), Evaluated(50, 5.0, 70.0, True, 9.0)])
    curve = read_validation_curve(summary("r", path=tmp_path))
    assert curve.epochs.tolist() == [0, 1, 2, 3, 4, 5]
    assert curve.perplexities[-1] == 70.0
    assert np.isfinite(curve.perplexities).all()
