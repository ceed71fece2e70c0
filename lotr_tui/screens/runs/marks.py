"""Marks of the list of runs: the runs to compare, and the baseline."""

from collections.abc import Collection, Sequence
from pathlib import Path

from engine.runs.summary import RunSummary
from lotr_tui.screens.runs.overlay_chart import BASELINE_MARK, CURVE_MARKS


class RunMarks:
    """Runs that are marked for a comparison, and the pinned baseline, by their paths."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self.baseline: Path | None = None
        """Path of the pinned baseline, which may be in another folder; None without one."""

    def toggle(self, run: RunSummary) -> str:
        """Mark a run, or remove its mark. Return why that is impossible, or ""."""
        if run.path == self.baseline:
            return f"{run.name} is the baseline; press b to unpin it."
        if run.path in self._paths:
            self._paths.remove(run.path)
        elif len(self._paths) < len(CURVE_MARKS):
            self._paths.append(run.path)
        else:
            return f"At most {len(CURVE_MARKS)} runs can be marked; remove a mark first."
        return ""

    def toggle_baseline(self, run: RunSummary) -> bool:
        """Pin a run as the baseline instead of another, or unpin it. Return True if it is the baseline now."""
        self.baseline = None if run.path == self.baseline else run.path
        self._paths = [path for path in self._paths if path != run.path]
        return self.baseline is not None

    def keep(self, paths: Collection[Path]) -> None:
        """Remove the marks of runs that are not in `paths`; the baseline stays."""
        self._paths = [path for path in self._paths if path in paths]

    def forget(self, path: Path) -> None:
        """Remove the mark of a deleted run, and unpin it."""
        self._paths = [marked for marked in self._paths if marked != path]
        self.baseline = None if self.baseline == path else self.baseline

    def rename(self, path: Path, new_path: Path) -> None:
        """Give the mark of a run to its new path."""
        self._paths = [new_path if marked == path else marked for marked in self._paths]
        self.baseline = new_path if self.baseline == path else self.baseline

    def mark_of(self, path: Path) -> str:
        """Return the mark of a run: "b" for the baseline, a digit, or a space."""
        if path == self.baseline:
            return BASELINE_MARK
        return CURVE_MARKS[self._paths.index(path)] if path in self._paths else " "

    def compared_runs(self, runs: Sequence[RunSummary], selected: RunSummary | None) -> list[tuple[str, RunSummary]]:
        """Return mark and summary of the runs to compare: the baseline, then the marked runs, or the selected one.

        Without a pinned baseline, the first run is the one that the others are compared with.
        """
        by_path = {run.path: run for run in runs}
        compared = [(self.mark_of(path), by_path[path]) for path in self._paths if path in by_path]
        if not compared and selected is not None and selected.path != self.baseline:
            compared = [(CURVE_MARKS[0], selected)]
        baseline = None if self.baseline is None else by_path.get(self.baseline)
        return [*([(BASELINE_MARK, baseline)] if baseline else []), *compared]
