"""List of runs for browsing: its columns, filter and sort order."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from engine.errors import InvalidInputError
from engine.runs.directory import RunSummary, bundled_runs, list_runs, resolve_run, summarize_run
from lotr_tui.formatting import format_age, format_bytes, format_run_perplexity


class RunColumn(NamedTuple):
    """Column of the list of runs; a width of 0 cells fills the remaining width."""

    name: str
    width: int
    format: Callable[[RunSummary], str]
    sort_key: Callable[[RunSummary], float | str]


def _perplexity_column(name: str, perplexity: Callable[[RunSummary], float | None]) -> RunColumn:
    def sort_key(run: RunSummary) -> float:
        return math.inf if (value := perplexity(run)) is None else value

    return RunColumn(name, 7, lambda run: format_run_perplexity(perplexity(run), run), sort_key)


# All columns fit into 80 cells; narrower terminals drop columns from the right, except the one that sorts the list.
RUN_COLUMNS = (
    RunColumn("run", 0, lambda run: run.name, lambda run: run.name.lower()),
    RunColumn("state", 8, lambda run: run.state, lambda run: run.state),
    _perplexity_column("valid", lambda run: run.valid_perplexity),
    _perplexity_column("test", lambda run: run.test_perplexity),
    RunColumn("epochs", 7, lambda run: f"{run.epochs:.1f}", lambda run: -run.epochs),
    RunColumn("preset", 8, lambda run: run.preset, lambda run: run.preset),
    RunColumn("age", 6, lambda run: format_age(time.time() - run.started_at), lambda run: -run.started_at),
    RunColumn("size", 8, lambda run: format_bytes(run.size_bytes), lambda run: -run.size_bytes),
)
AGE_COLUMN = 6  # by which the list is sorted at first: latest first


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
