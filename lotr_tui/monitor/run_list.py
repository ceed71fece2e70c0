"""The runs as people look through them: filtered, sorted, their curves and how their settings differ."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.config import BUNDLED
from engine.errors import UnusableInput
from engine.events import Evaluated, Resume, from_record
from engine.runs.metrics import read_rows
from engine.runs.store import METRICS, RunSummary, list_runs, read_config, summarize
from engine.storage.files import assets_folder
from lotr_tui.formatting import ago


@dataclass(frozen=True)
class Column:
    """A column of the list."""

    name: str
    width: int
    show: Callable[[RunSummary], str]
    order: Callable[[RunSummary], float | str]
    """What it is sorted by, the smallest first."""


LAST = float("inf")
"""What is not known comes last."""

COLUMNS = (
    Column("run", 0, lambda run: run.name, lambda run: run.name.lower()),
    Column("state", 8, lambda run: run.state, lambda run: run.state),
    Column("valid", 7, lambda run: _perplexity(run.valid_perplexity), lambda run: _known(run.valid_perplexity)),
    Column("test", 7, lambda run: _perplexity(run.test_perplexity), lambda run: _known(run.test_perplexity)),
    Column("epochs", 7, lambda run: f"{run.epochs:.1f}", lambda run: -run.epochs),
    Column("preset", 8, lambda run: run.preset, lambda run: run.preset),
    Column("age", 6, lambda run: ago(time.time() - run.started), lambda run: -run.started),
    Column("size", 8, lambda run: _size(run.bytes), lambda run: -run.bytes),
)
"""The first takes the room that is left. All have some at 80 columns; on a narrower terminal those at the end are left
out, but for the one that is sorted by."""
BY_AGE = [column.name for column in COLUMNS].index("age")


@dataclass(frozen=True)
class Curve:
    """The validation perplexity of a run."""

    name: str
    epochs: npt.NDArray[np.float64]
    """`[evaluation]`"""
    perplexities: npt.NDArray[np.float64]
    """`[evaluation]`, NaN where it was not a number."""


def all_runs(folder: Path | None) -> list[RunSummary]:
    """The bundled model and the runs of a folder."""
    runs = list_runs(folder)
    try:
        return [*runs, replace(summarize(assets_folder() / "model"), name=BUNDLED)]
    except (UnusableInput, OSError):
        return runs


def choose(runs: Sequence[RunSummary], typed: str, column: int, backwards: bool) -> list[RunSummary]:
    """Those in whose name, state, preset, corpus or mode all the typed words stand, sorted by a column."""
    words = typed.lower().split()
    found = [
        run
        for run in runs
        if all(word in f"{run.name} {run.state} {run.preset} {run.corpus} {run.mode}".lower() for word in words)
    ]
    found.sort(key=lambda run: run.name.lower())
    found.sort(key=COLUMNS[column].order, reverse=backwards)
    return found


def read_curve(run: RunSummary) -> Curve:
    """Its validation curve; what a resume did again is left out."""
    evaluations: list[Evaluated] = []
    for row in read_rows(run.path / METRICS, outline=True):
        event = from_record(row)
        if isinstance(event, Resume):
            evaluations = [earlier for earlier in evaluations if earlier.step < event.step]
        elif isinstance(event, Evaluated):
            evaluations.append(event)
    perplexities = np.array([event.valid_perplexity for event in evaluations], np.float64)
    perplexities[~(perplexities > 0) | ~np.isfinite(perplexities)] = np.nan
    return Curve(run.name, np.array([event.epoch for event in evaluations], np.float64), perplexities)


def differences(runs: Sequence[RunSummary]) -> list[tuple[str, list[str]]]:
    """The settings that differ: the name, and the value of each run; "?" where a run's cannot be read."""
    found: list[dict[str, object]] = []
    for run in runs:
        try:
            config = read_config(run.path)
        except UnusableInput:
            found.append({})
            continue
        parts = asdict(config)
        found.append(
            {"preset": parts.pop("preset")} | {name: value for part in parts.values() for name, value in part.items()}
        )
    names = dict.fromkeys(name for settings in found for name in settings)
    return [
        (name, [str(settings.get(name, "?")) for settings in found])
        for name in names
        if len({str(settings.get(name, "?")) for settings in found}) > 1
    ]


def _perplexity(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 999.95e6 else f"{count / 1e9:,.1f} GB"


def _known(value: float | None) -> float:
    return LAST if value is None else value
