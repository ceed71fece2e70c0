"""`lotr-tui runs compare`: runs side by side, as a table or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text

from engine.errors import InvalidInputError
from engine.runs.directory import bundled_run_name, resolve_run
from lotr_tui.cli.console import make_console, print_json
from lotr_tui.monitor.compared_run import read_compared_run
from lotr_tui.monitor.comparison_layout import layout_comparison
from lotr_tui.monitor.run_comparison import RunComparison, compare_runs
from lotr_tui.monitor.text_table import Role

STYLES: dict[Role, str] = {
    "plain": "",
    "heading": "bold",
    "best": "bold green",
    "better": "green",
    "worse": "red",
    "muted": "dim",
}


def print_run_comparison(runs: Sequence[str], baseline: str | None, runs_dir: Path | None, *, as_json: bool) -> None:
    """Print a comparison of runs with a baseline, the first of them by default; a run that is named twice counts once.

    Raises:
        RunError: If a run does not exist.
        InvalidInputError: If there are fewer than two different runs.
    """
    paths = list(dict.fromkeys(resolve_run(run, runs_dir).absolute() for run in runs))
    baseline_path = paths[0] if baseline is None else resolve_run(baseline, runs_dir).absolute()
    if baseline_path not in paths:
        paths.insert(0, baseline_path)
    if len(paths) < 2:
        raise InvalidInputError(
            f"runs compare needs two different runs, and got only {runs[0]}; name another one, see `lotr-tui runs`"
        )
    names = _distinct_names(paths)
    compared = [read_compared_run(path, name) for path, name in zip(paths, names, strict=True)]
    comparison = compare_runs(compared, paths.index(baseline_path))
    if as_json:
        print_json(comparison_record(comparison), indent=2)
        return
    console = make_console()
    for line in layout_comparison(comparison, names, console.width):
        text = Text.assemble(*((piece, STYLES[role]) for piece, role in line))
        text.rstrip()
        console.print(text, soft_wrap=True)


def comparison_record(comparison: RunComparison) -> dict[str, Any]:
    """Return a comparison as a JSON object. Unknown values and differences of incomparable figures are null."""
    names = [run.name for run in comparison.runs]
    records = []
    for index, run in enumerate(comparison.runs):
        figures = {row.metric.name: row.values[index] for row in comparison.metrics}
        differences = {
            row.metric.name: None if (difference := row.differences[index]) is None else asdict(difference)
            for row in comparison.metrics
        }
        records.append(
            {
                "run": run.name,
                "path": str(run.path),
                "state": run.state,
                "settings": {row.name: row.values[index] for row in comparison.settings},
                **figures,
                "difference": differences,
            }
        )
    best = {
        row.metric.name: names[min(row.best)] if row.best else None for row in comparison.metrics if row.metric.better
    }
    comparable = {row.metric.name: row.is_comparable for row in comparison.metrics if row.metric.parts}
    return {
        "baseline": names[comparison.baseline],
        "runs": records,
        "best": best,
        "comparable": comparable,
        "notes": list(comparison.notes),
    }


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of runs; the path of a run, where several have the same name."""
    names = [bundled_run_name(path) or path.name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
