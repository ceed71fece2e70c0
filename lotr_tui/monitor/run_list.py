"""List of runs for browsing: columns, filter, sort order and validation curves."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Float64Array
from engine.errors import InvalidInputError
from engine.events import Evaluated
from engine.runs import directory
from engine.runs.directory import METRICS_FILE, RunSummary, bundled_runs, list_runs, resolve_run, summarize_run
from lotr_tui.formatting import format_age, format_bytes, format_run_perplexity


class RunColumn(NamedTuple):
    """Column of the list of runs; a width of 0 cells fills the remaining width."""

    name: str
    width: int
    format: Callable[[RunSummary], str]
    sort_key: Callable[[RunSummary], float | str]


def _unknown_last(value: float | None) -> float:
    return math.inf if value is None else value


RUN_COLUMNS = (
    RunColumn("run", 0, lambda run: run.name, lambda run: run.name.lower()),
    RunColumn("state", 8, lambda run: run.state, lambda run: run.state),
    RunColumn(
        "valid",
        7,
        lambda run: format_run_perplexity(run.valid_perplexity, run),
        lambda run: _unknown_last(run.valid_perplexity),
    ),
    RunColumn(
        "test",
        7,
        lambda run: format_run_perplexity(run.test_perplexity, run),
        lambda run: _unknown_last(run.test_perplexity),
    ),
    RunColumn("epochs", 7, lambda run: f"{run.epochs:.1f}", lambda run: -run.epochs),
    RunColumn("preset", 8, lambda run: run.preset, lambda run: run.preset),
    RunColumn("age", 6, lambda run: format_age(time.time() - run.started_at), lambda run: -run.started_at),
    RunColumn("size", 8, lambda run: format_bytes(run.size_bytes), lambda run: -run.size_bytes),
)
"""Columns from left to right. All fit into 80 cells; narrower terminals drop columns from the right, except the column
that the list is sorted by."""
AGE_COLUMN = [column.name for column in RUN_COLUMNS].index("age")
"""Index of the column that the list is sorted by at first: latest first."""


class ValidationCurve(NamedTuple):
    """Validation perplexity of a run over its epochs; NaN for a value that is not a positive finite number."""

    run_name: str
    epochs: Float64Array  # [evaluation], with fraction
    perplexities: Float64Array  # [evaluation]


def list_selectable_runs(runs_dir: Path | None) -> list[RunSummary]:
    """Return the runs of a folder, latest first, followed by the bundled models."""
    runs = list_runs(runs_dir)
    for name in bundled_runs().values():
        with suppress(InvalidInputError, OSError):
            runs.append(replace(summarize_run(resolve_run(name)), name=name))
    return runs


def filter_and_sort_runs(runs: Sequence[RunSummary], query: str, sort_column: int) -> list[RunSummary]:
    """Return the runs whose name, state, preset, corpus or mode contain all words of `query`.

    The runs are sorted by the column with the index `sort_column` in `RUN_COLUMNS`, and then by name.
    """

    def matches(run: RunSummary) -> bool:
        text = f"{run.name} {run.state} {run.preset} {run.corpus} {run.mode}".lower()
        return all(word in text for word in query.lower().split())

    by_name = sorted(filter(matches, runs), key=lambda run: run.name.lower())
    return sorted(by_name, key=RUN_COLUMNS[sort_column].sort_key)


def read_validation_curve(run: RunSummary) -> ValidationCurve:
    """Read the validation curve of a run, without evaluations that a resumed training has superseded."""
    events = directory.drop_superseded(directory.read_events(run.path / METRICS_FILE, subsample=True))
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    perplexities = np.array([event.valid_perplexity for event in evaluations], np.float64)
    perplexities[~(perplexities > 0) | ~np.isfinite(perplexities)] = np.nan
    return ValidationCurve(run.name, np.array([event.epoch for event in evaluations], np.float64), perplexities)
